//! Names of targets become addresses that policy allows, and those become connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use zen_core::access::Purpose;
use zen_core::deliver::{ConnectFailure, Outcome};
use zen_uring::{OpError, Reactor, SocketId};

use super::Deliveries;
use crate::config::Transport;
use crate::egress::connection::{Connection, Job, connect_failure};
use crate::egress::owner::Place;
use crate::reach;

/// Deliveries that wait for a name to be resolved, over all targets of a worker.
const UNRESOLVED_MAX: usize = 10_000;

impl Deliveries {
    /// The resolver's answer for a host.
    pub fn handle_resolved(
        &mut self,
        host: &str,
        result: Result<Vec<IpAddr>, io::Error>,
        reactor: &mut Reactor,
    ) {
        let steady_ms = self.clock.steady_ms;
        let (addresses, outcome) = self.permitted(host, result);
        self.probes.handle_resolved(host, &addresses, &self.snapshot.reach, reactor);
        for owner in self.owners.values_mut().filter(|owner| owner.target.address.host == host) {
            if addresses.is_empty() {
                let target = Arc::clone(&owner.target);
                owner.handle_outcome(&target, &outcome, steady_ms);
                owner.handle_unresolved();
            } else {
                owner.handle_resolved(addresses.clone(), steady_ms);
            }
        }
        for (target, job) in std::mem::take(&mut self.unresolved) {
            // By then the owner may have gone over to a target elsewhere: the job waits for its own.
            if job.target.address.host != host {
                self.unresolved.push((target, job));
            } else if addresses.is_empty() {
                self.end_job(&target, job, &outcome);
            } else {
                self.dial(&target, job, reactor);
            }
        }
    }

    pub(super) fn dial(&mut self, target: &Arc<str>, job: Job, reactor: &mut Reactor) {
        let Some(owner) = self.owners.get_mut(target) else { return };
        if !Arc::ptr_eq(&job.target, &owner.target) {
            // It is signed for the target that was in use before, or with a key that was replaced.
            let outcome = Outcome::ConnectFailed(ConnectFailure::Reset);
            return self.end_job(target, job, &outcome);
        }
        if let Transport::Unix { path, .. } = &owner.target.transport {
            let begun = reactor.connect_unix(path);
            return self.take_dialled(target, job, begun);
        }
        let address = match owner.poll_place(self.clock.steady_ms) {
            Place::At(address) => address,
            place => {
                if place == Place::Ask {
                    self.resolver.ask(&owner.target.address.host, self.worker);
                }
                if self.unresolved.len() < UNRESOLVED_MAX {
                    self.unresolved.push((Arc::clone(target), job));
                } else {
                    let outcome = Outcome::ConnectFailed(ConnectFailure::NoResources);
                    self.end_job(target, job, &outcome);
                }
                return;
            }
        };
        if !self.permits(&job.target.address.host, address) {
            let outcome = Outcome::ConnectFailed(ConnectFailure::Forbidden);
            return self.end_job(target, job, &outcome);
        }
        let begun = reactor.connect(address);
        self.take_dialled(target, job, begun);
    }

    fn take_dialled(&mut self, target: &Arc<str>, job: Job, begun: Result<SocketId, OpError>) {
        match begun {
            Ok(socket) => {
                let settings = Arc::clone(&job.target);
                let connection = Connection::dialling(Arc::clone(target), settings, socket, job);
                self.connections.insert(socket, connection);
            }
            Err(error) => {
                let outcome = Outcome::ConnectFailed(connect_failure(&io::Error::other(error)));
                self.end_job(target, job, &outcome);
            }
        }
    }

    /// Whether the rules of all destinations agree at the moment of dialling.
    fn permits(&self, host: &str, address: SocketAddr) -> bool {
        let verdict = self.snapshot.reach.check_dial(&self.settings().destinations, host, address);
        let tell = |refused| reach::tell(Purpose::Target, host, address.ip(), refused, &self.metrics);
        verdict.map_err(tell).is_ok()
    }

    /// Addresses of `host` that may be dialled; and what an attempt comes to if there is none.
    fn permitted(&self, host: &str, found: Result<Vec<IpAddr>, io::Error>) -> (Vec<IpAddr>, Outcome) {
        let mut outcome = Outcome::ConnectFailed(ConnectFailure::NameNotFound);
        let mut addresses = found.unwrap_or_default();
        addresses.retain(|&address| match self.settings().destinations.check(host, address) {
            Ok(()) => true,
            Err(refused) => {
                reach::tell(Purpose::Target, host, address, refused, &self.metrics);
                outcome = Outcome::ConnectFailed(ConnectFailure::Forbidden);
                false
            }
        });
        (addresses, outcome)
    }
}
