//! The moment before a connection is dialled: an address that [`ReachRules`] refuse is logged, counted and left alone.

use std::net::{IpAddr, SocketAddr};

use zen_core::access::{DestinationPolicy, DestinationRefused, Purpose, ReachRules};

use crate::metrics::WorkerMetrics;

/// Where the names of peers may lead whose links this node dials.
pub static LINK_PEERS: DestinationPolicy = DestinationPolicy::unlisted(Purpose::LinkPeer);
/// Where the name of the collector of spans may lead.
pub static COLLECTOR: DestinationPolicy = DestinationPolicy::unlisted(Purpose::Telemetry);

/// Whether a peer may be dialled at this address.
pub fn permits_peer(rules: &ReachRules, host: &str, address: SocketAddr, metrics: &WorkerMetrics) -> bool {
    let verdict = rules.check_dial(&LINK_PEERS, host, address);
    verdict.map_err(|refused| tell(Purpose::LinkPeer, host, address.ip(), refused, metrics)).is_ok()
}

/// Logs and counts an address that is not dialled.
pub fn tell(
    purpose: Purpose,
    host: &str,
    address: IpAddr,
    refused: DestinationRefused,
    metrics: &WorkerMetrics,
) {
    let remedy = match purpose {
        Purpose::Target | Purpose::TokenServer => "see egress.target_networks",
        Purpose::LinkPeer | Purpose::Telemetry | Purpose::NameServer => "name another host, or its address",
    };
    tracing::warn!(%purpose, host, %address, "not dialled: {refused}; {remedy}");
    metrics.destinations_refused.add(refused.label());
}
