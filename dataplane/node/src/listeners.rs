//! Listening sockets: the main thread binds one per worker and address while it may still take ports below
//! 1024, and hands each worker its own, which listens when the worker has recovered.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use zen_uring::{BindError, BoundSocket};

use crate::config::Snapshot;
use crate::link::Side;

/// Who connects to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// Sources.
    Sources,
    /// Peers that dial.
    Links(Side),
}

/// A worker's socket at one address, not listening yet.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub socket: BoundSocket,
    /// Who will connect to it.
    pub kind: Listening,
}

/// The sockets of all workers.
#[derive(Debug)]
pub struct Listeners {
    /// By worker; each has the addresses in the same order.
    workers: Vec<Vec<Bound>>,
}

impl Listeners {
    /// Binds whatever a configuration listens on.
    pub fn bind(snapshot: &Snapshot) -> Result<Self, BindError> {
        let addresses = addresses(snapshot);
        let bind = |(address, kind): &(SocketAddr, Listening)| {
            Ok(Bound { socket: zen_uring::bind_reuseport(*address)?, kind: *kind })
        };
        let worker = |_| addresses.iter().map(bind).collect();
        let workers = (0..snapshot.node.workers).map(worker).collect::<Result<_, _>>()?;
        let listeners = Self { workers };
        for (address, worker, socket) in listeners.sockets() {
            tracing::debug!(%address, worker, ?socket, "bound");
        }
        Ok(listeners)
    }

    /// Each socket that has not been taken: its address, its worker and its descriptor.
    pub fn sockets(&self) -> impl Iterator<Item = (SocketAddr, u16, BorrowedFd<'_>)> {
        self.workers.iter().zip(0..).flat_map(|(sockets, worker)| {
            sockets.iter().map(move |bound| (bound.socket.address(), worker, bound.socket.as_fd()))
        })
    }

    /// The sockets of each address, a second descriptor of each, by worker.
    pub fn groups(&self) -> std::io::Result<Vec<(SocketAddr, Vec<OwnedFd>)>> {
        let mut groups: Vec<(SocketAddr, Vec<OwnedFd>)> = Vec::new();
        for (address, _, socket) in self.sockets() {
            let socket = socket.try_clone_to_owned()?;
            match groups.iter_mut().find(|(known, _)| *known == address) {
                Some((_, sockets)) => sockets.push(socket),
                None => groups.push((address, vec![socket])),
            }
        }
        Ok(groups)
    }

    /// Hands out the sockets of one worker.
    pub fn take(&mut self, worker: u16) -> Vec<Bound> {
        self.workers.get_mut(usize::from(worker)).map(std::mem::take).unwrap_or_default()
    }
}

fn addresses(snapshot: &Snapshot) -> Vec<(SocketAddr, Listening)> {
    let mut addresses = Vec::new();
    if let Some(settings) = &snapshot.ingester {
        addresses.extend(settings.listen.iter().map(|address| (*address, Listening::Sources)));
        addresses.extend(settings.link_listen.map(|address| (address, Listening::Links(Side::Ingester))));
    }
    if let Some(settings) = &snapshot.egress {
        addresses.extend(settings.link_listen.map(|address| (address, Listening::Links(Side::Egress))));
    }
    addresses
}
