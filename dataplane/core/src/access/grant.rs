//! What a node connects for, and the networks and the port that it needs for that.

use alloc::sync::Arc;
use core::fmt;
use core::net::IpAddr;

use super::destination::DestinationRefused;
use super::network::Network;

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// What a node connects for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Deliveries and probes.
    Target,
    /// A link that this node dials.
    LinkPeer,
    /// Access tokens for targets.
    TokenServer,
    /// Spans.
    Telemetry,
    /// Names, which the system's resolver asks for.
    NameServer,
}

impl Purpose {
    /// Name in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::LinkPeer => "link_peer",
            Self::TokenServer => "token_server",
            Self::Telemetry => "telemetry",
            Self::NameServer => "name_server",
        }
    }

    /// Whether an address of such a range may be connected to because it was written down. A peer proves its identity in
    /// both directions, and name servers are the system's: the others could be metadata services.
    pub(super) fn opens_literal(self, range: DestinationRefused) -> bool {
        match self {
            Self::LinkPeer | Self::NameServer => range != DestinationRefused::NoHost,
            Self::Target | Self::TokenServer | Self::Telemetry => range == DestinationRefused::Loopback,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What is spoken over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Networks that may be reached at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What for.
    pub purpose: Purpose,
    /// Over what.
    pub protocol: Protocol,
    /// Not 0.
    pub port: u16,
    /// Where; shared by the grants of one list.
    pub networks: Arc<[Network]>,
}

impl Grant {
    /// What the system's resolver needs to ask this name server.
    pub fn name_server(address: IpAddr) -> [Self; 2] {
        let networks: Arc<[Network]> = Arc::new([Network::single(address)]);
        [Protocol::Udp, Protocol::Tcp].map(|protocol| Self {
            purpose: Purpose::NameServer,
            protocol,
            port: DNS_PORT,
            networks: Arc::clone(&networks),
        })
    }
}
