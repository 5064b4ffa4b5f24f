//! What is in force, from start to end.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use zen_ebpf::{Cgroup, EbpfError, Fence, Guard, Listener, Observe, Refusals, Steer};

use super::destinations::Destinations;
use super::local;
use super::stations::Stations;
use crate::config::{EbpfSettings, GuardSettings, HostPort};

/// What a feature's absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The node goes on without it, and says so.
    Wanted,
    /// The node does not start.
    Required,
}

/// A feature that is not there, and why.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its name.
    pub feature: &'static str,
    /// Why, and what to do.
    pub reason: String,
}

/// The programs of this node.
#[derive(Default)]
pub struct Programs {
    pub(super) guard: Option<Guard>,
    pub(super) guard_enforces: bool,
    /// Interfaces where the guard stands, too.
    pub(super) interfaces: Vec<String>,
    pub(super) fence: Option<Fence>,
    pub(super) fence_enforces: bool,
    /// For each address, in the order of the listeners.
    pub(super) steer: Vec<(SocketAddr, Steer)>,
    pub(super) observe: Option<(Observe, Destinations)>,
    pub(super) missing: Vec<Missing>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) since_ms: u64,
    listeners: Vec<SocketAddr>,
}

impl Programs {
    /// Loads and attaches what is configured; before any socket is made, and before any thread.
    pub fn attach(settings: &EbpfSettings, stations: &Stations, now_ms: u64) -> Result<Self, EbpfError> {
        let mut programs =
            Self { since_ms: now_ms, listeners: stations.listeners.clone(), ..Self::default() };
        programs.attach_to_cgroup(settings, stations)?;
        if let Some(need) = settings.steer {
            let load = |address: &SocketAddr| Ok((*address, Steer::load(&stations.processors)?));
            let steer = stations.listeners.iter().map(load).collect();
            programs.steer = programs.take("steer", need, steer)?.unwrap_or_default();
        }
        Ok(programs)
    }

    /// Each joins the cgroup for itself, which changes nothing after the first: what is missing is said by name.
    fn attach_to_cgroup(&mut self, settings: &EbpfSettings, stations: &Stations) -> Result<(), EbpfError> {
        if let Some(guard) = &settings.guard {
            let listeners: Vec<Listener> =
                stations.listeners.iter().map(|address| Listener { address: *address }).collect();
            let attached =
                self.join().and_then(|at| Guard::attach(&at, &listeners, guard.sources_max, &guard.rules));
            self.guard = self.take("guard", guard.need, attached)?;
            self.guard_enforces = guard.rules.enforce;
            self.attach_to_interfaces(guard)?;
        }
        if let Some((rules, need)) = &settings.fence {
            let attached = self.join().and_then(|at| Fence::attach(&at, rules));
            self.fence = self.take("fence", *need, attached)?;
            self.fence_enforces = rules.enforce;
        }
        if let Some(need) = settings.observe {
            let attached = self.join().and_then(|at| Observe::attach(&at)).and_then(|mut observe| {
                let destinations = Destinations::new(stations, &mut observe)?;
                Ok((observe, destinations))
            });
            self.observe = self.take("observe", need, attached)?;
        }
        Ok(())
    }

    fn join(&mut self) -> Result<Cgroup, EbpfError> {
        let cgroup = Cgroup::join()?;
        self.cgroup = Some(cgroup.path().to_owned());
        Ok(cgroup)
    }

    fn attach_to_interfaces(&mut self, settings: &GuardSettings) -> Result<(), EbpfError> {
        for name in &settings.interfaces {
            let Some(guard) = &mut self.guard else { return Ok(()) };
            let local = local::addresses(&self.listeners);
            let attached = guard.attach_to_interface(name, settings.xdp, &local);
            if self.take("guard at an interface", settings.need, attached)?.is_some() {
                self.interfaces.push(name.clone());
            }
        }
        Ok(())
    }

    /// What is there; what is not is said, unless it is required.
    fn take<T>(
        &mut self,
        feature: &'static str,
        need: Need,
        result: Result<T, EbpfError>,
    ) -> Result<Option<T>, EbpfError> {
        match (result, need) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(error), Need::Required) => Err(error),
            (Err(error), Need::Wanted) => {
                tracing::warn!(feature, %error, "not in force; the node goes on without it");
                self.missing.push(Missing { feature, reason: error.to_string() });
                Ok(None)
            }
        }
    }

    /// Whether listeners are wanted, to be steered.
    pub fn steers(&self) -> bool {
        !self.steer.is_empty()
    }

    /// Attaches the steerer to listeners that listen by now; of each address one a worker, in their order.
    pub fn steer(&mut self, groups: &[(SocketAddr, Vec<OwnedFd>)]) {
        for (address, listeners) in groups {
            let Some((_, steer)) = self.steer.iter_mut().find(|(steered, _)| steered == address) else {
                continue;
            };
            if let Err(error) = steer.attach(listeners) {
                tracing::warn!(%address, %error, "new connections are not steered there");
                self.missing.push(Missing { feature: "steer", reason: format!("{address}: {error}") });
                self.steer.retain(|(steered, _)| steered != address);
            }
        }
    }

    /// Puts the rules of another configuration in force; on an error those of `current` stay.
    pub fn handle_settings(&mut self, next: &EbpfSettings, current: &EbpfSettings) -> Result<(), EbpfError> {
        let replaced = self.replace(next);
        if replaced.is_err() {
            self.replace(current)?;
        }
        replaced
    }

    fn replace(&mut self, settings: &EbpfSettings) -> Result<(), EbpfError> {
        if let (Some(guard), Some(settings)) = (&mut self.guard, &settings.guard) {
            guard.replace(&settings.rules)?;
            self.guard_enforces = settings.rules.enforce;
        }
        if let (Some(fence), Some((rules, _))) = (&mut self.fence, &settings.fence) {
            fence.replace(rules)?;
            self.fence_enforces = rules.enforce;
        }
        Ok(())
    }

    /// Names that are dialled from now on.
    pub fn handle_destinations(&mut self, destinations: &[HostPort]) {
        if let Some((_, known)) = &mut self.observe {
            known.handle_destinations(destinations);
        }
    }

    /// What a name resolved to.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[std::net::IpAddr]) {
        if let Some((observe, known)) = &mut self.observe {
            known.handle_resolved(host, addresses, observe);
        }
    }

    /// Addresses of interfaces change; called every few seconds.
    pub fn handle_time(&mut self) {
        let Some(guard) = self.guard.as_mut().filter(|_| !self.interfaces.is_empty()) else { return };
        if let Err(error) = guard.set_local(&local::addresses(&self.listeners)) {
            tracing::warn!(%error, "the guard at interfaces does not know all addresses");
        }
    }

    /// The rings of refusals; once.
    pub fn take_refusals(&mut self) -> Vec<Refusals> {
        let guard = self.guard.as_mut().and_then(Guard::take_refusals);
        guard.into_iter().chain(self.fence.as_mut().and_then(Fence::take_refusals)).collect()
    }
}
