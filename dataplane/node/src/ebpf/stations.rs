//! Where a node has sockets, by its configuration.

use std::net::SocketAddr;

use crate::config::{Authorization, HostPort, Snapshot, Target, Transport};

/// Where the node has sockets.
#[derive(Clone, Debug, Default)]
pub struct Stations {
    /// Addresses that it listens on.
    pub listeners: Vec<SocketAddr>,
    /// The processor of each worker, in their order; none if they are not pinned.
    pub processors: Vec<usize>,
    /// What it dials, each once.
    pub destinations: Vec<HostPort>,
}

impl Stations {
    /// Of a configuration.
    pub fn of(snapshot: &Snapshot) -> Self {
        let (ingester, egress) = (snapshot.ingester.as_ref(), snapshot.egress.as_ref());
        let sources = ingester.into_iter().flat_map(|settings| settings.listen.iter().copied());
        let links = [
            ingester.and_then(|settings| settings.link_listen),
            egress.and_then(|settings| settings.link_listen),
        ];
        Self {
            listeners: sources.chain(links.into_iter().flatten()).collect(),
            processors: processors(snapshot),
            destinations: destinations(snapshot),
        }
    }
}

fn processors(snapshot: &Snapshot) -> Vec<usize> {
    let cores = zen_uring::online_cores();
    if !snapshot.node.pin_workers || cores.is_empty() {
        return Vec::new();
    }
    (0..usize::from(snapshot.node.workers)).map(|worker| cores[worker % cores.len()]).collect()
}

fn destinations(snapshot: &Snapshot) -> Vec<HostPort> {
    let (ingester, egress) = (snapshot.ingester.as_ref(), snapshot.egress.as_ref());
    let to_egresses = ingester.into_iter().flat_map(|settings| &settings.egresses);
    let to_ingesters = egress.into_iter().flat_map(|settings| &settings.ingesters);
    let links = to_egresses.map(|peer| &peer.address).chain(to_ingesters.map(|peer| &peer.address)).flatten();
    let targets = egress.into_iter().flat_map(|settings| settings.targets.values());
    let targets = targets.flat_map(|target| of_target(target));
    let collector = snapshot.tracing.export.as_ref().map(|export| export.address());
    let mut all: Vec<HostPort> = Vec::new();
    for address in links.chain(targets).chain(collector) {
        if !all.contains(address) {
            all.push(address.clone());
        }
    }
    all
}

fn of_target(target: &Target) -> impl Iterator<Item = &HostPort> {
    let server = match &target.authorization {
        Some(Authorization::Tokens(source)) => Some(&source.request.address),
        Some(Authorization::Fixed(_)) | None => None,
    };
    let over_tcp = matches!(target.transport, Transport::Tls { .. });
    over_tcp.then_some(&target.address).into_iter().chain(server)
}
