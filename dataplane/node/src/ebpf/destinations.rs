//! Places of the observer: each listener, and each host and port that the node dials.
//!
//! A destination keeps its number for the life of the process, so that its counts stay its own. Addresses become known as
//! names are resolved; several destinations at one address and port are one connection to the kernel, the last one named counts.

use std::net::{IpAddr, SocketAddr};

use zen_ebpf::abi::observe::{Counts, OTHER, PLACES_MAX};
use zen_ebpf::{EbpfError, Observe, Place};

use super::stations::Stations;
use crate::config::HostPort;

/// What has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Listener(u16),
    Destination(HostPort),
}

/// Places by their numbers, from 1.
pub(super) struct Destinations {
    named: Vec<Named>,
    is_full: bool,
}

impl Destinations {
    pub(super) fn new(stations: &Stations, observe: &mut Observe) -> Result<Self, EbpfError> {
        let mut known = Self { named: Vec::new(), is_full: false };
        for listener in &stations.listeners {
            let number = known.number(Named::Listener(listener.port()));
            observe.set_place(Place::Listener(listener.port()), number)?;
        }
        known.handle_destinations(&stations.destinations);
        for (host, port) in stations.destinations.iter().map(|at| (&at.host, at.port)) {
            if let Ok(address) = host.parse::<IpAddr>() {
                known.set(SocketAddr::new(address, port), host, observe);
            }
        }
        Ok(known)
    }

    pub(super) fn handle_destinations(&mut self, destinations: &[HostPort]) {
        for destination in destinations {
            self.number(Named::Destination(destination.clone()));
        }
    }

    pub(super) fn handle_resolved(&mut self, host: &str, addresses: &[IpAddr], observe: &mut Observe) {
        let ports: Vec<u16> = self.named.iter().filter_map(|named| port_of(named, host)).collect();
        for port in ports {
            for address in addresses {
                self.set(SocketAddr::new(*address, port), host, observe);
            }
        }
    }

    /// Names and counts of all places; the last has what has no place.
    pub(super) fn counts(&self, observe: &Observe) -> Vec<(String, Counts)> {
        let names = self.named.iter().map(|named| match named {
            Named::Listener(port) => format!("listener:{port}"),
            Named::Destination(HostPort { host, port }) if host.contains(':') => format!("[{host}]:{port}"),
            Named::Destination(HostPort { host, port }) => format!("{host}:{port}"),
        });
        let places = (1..).zip(names).chain([(OTHER, "other".to_owned())]);
        places.filter_map(|(number, name)| Some((name, observe.counts(number).ok()?))).collect()
    }

    fn set(&mut self, address: SocketAddr, host: &str, observe: &mut Observe) {
        let named = Named::Destination(HostPort { host: host.to_owned(), port: address.port() });
        let number = self.number(named);
        if number == OTHER {
            return;
        }
        if let Err(error) = observe.set_place(Place::Destination(address), number)
            && !std::mem::replace(&mut self.is_full, true)
        {
            tracing::warn!(%address, %error, "connections there are counted as \"other\"");
        }
    }

    /// Its number, a new one if there is room.
    fn number(&mut self, wanted: Named) -> u32 {
        let found = self.named.iter().position(|named| *named == wanted);
        let at = found.unwrap_or(self.named.len()) as u32 + 1;
        if at >= PLACES_MAX {
            return OTHER;
        }
        if found.is_none() {
            self.named.push(wanted);
        }
        at
    }
}

fn port_of(named: &Named, host: &str) -> Option<u16> {
    match named {
        Named::Destination(destination) if destination.host == host => Some(destination.port),
        _ => None,
    }
}
