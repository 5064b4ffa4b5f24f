//! What comes into force while a node runs: a configuration, certificates, a deny list.
//!
//! A reload is asked for by a signal or over the admin socket; the poll looks at files, and at where an agent's
//! link leads. A managed generation is taken whole or not at all: what is wrong with it changes a status line.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use zen_identity::{DenyList, Reloaded};

use crate::config::{self, Located, MemoryBound, Snapshot};
use crate::control::{Control, lock};
use crate::ebpf::Stations;
use crate::oauth;

/// Orders to reload that may wait.
pub const ORDERS_MAX: usize = 4;
/// A generation that was refused is looked at again by the poll after this: its cause may have been elsewhere.
const REFUSED_RETRY: Duration = Duration::from_mins(1);

/// An order to reload, by the way to answer it.
pub type ReloadOrder = oneshot::Sender<Result<InForce, ReloadError>>;

/// Which configuration counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Counts configurations accepted by this process, from 1.
    pub generation: u64,
    /// The number that its agent gave it, if it has one.
    pub managed: Option<u64>,
}

/// Why a reload changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration, or what it names.
    #[error("{0}")]
    Config(#[from] config::ConfigError),
    /// A key that stays for the life of the process.
    #[error("{0} needs a restart")]
    Restart(&'static str),
    /// Rules of a program in the kernel.
    #[error("{0}")]
    Ebpf(#[from] zen_ebpf::EbpfError),
}

/// A generation that the poll found and could not take.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    managed: Option<u64>,
    at: Instant,
}

impl InForce {
    /// What a snapshot is.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self { generation: snapshot.generation, managed: snapshot.managed }
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} in force", self.generation)?;
        self.managed.map_or(Ok(()), |number| write!(f, ", of the managed generation {number}"))
    }
}

impl Control {
    /// Takes what there is now; on any error what is in force stays in force.
    pub fn reload(&self) -> Result<InForce, ReloadError> {
        let located = self.place.locate().map_err(config::ConfigError::from);
        if located.as_ref().is_ok_and(|located| located.managed.is_none()) {
            self.reload_certificates();
        }
        let loaded = located.map_err(ReloadError::from).and_then(|located| self.put_in_force(&located));
        self.tell(&loaded);
        loaded
    }

    /// Looks at the files; whether another configuration is in force.
    pub fn poll(&mut self) -> bool {
        if self.poll_generation() {
            return true;
        }
        self.reload_certificates();
        self.reload_deny_list();
        false
    }

    /// Takes the generation to which the link leads, if it is not the one in force.
    fn poll_generation(&mut self) -> bool {
        let current = self.shared.snapshot.load_full();
        if current.managed.is_none() {
            return false;
        }
        let located = match self.place.locate() {
            Ok(located) => located,
            Err(error) => {
                self.tell(&Err(config::ConfigError::from(error).into()));
                return false;
            }
        };
        let again =
            |refused: Refused| refused.managed != located.managed || refused.at.elapsed() > REFUSED_RETRY;
        if located.managed == current.managed || !self.refused.is_none_or(again) {
            return false;
        }
        let loaded = self.put_in_force(&located);
        self.tell(&loaded);
        self.refused = loaded.is_err().then(|| Refused { managed: located.managed, at: Instant::now() });
        loaded.is_ok()
    }

    /// To the log and `/status`; what the poll finds wrong again and again is said once.
    fn tell(&self, loaded: &Result<InForce, ReloadError>) {
        let current = InForce::of(&self.shared.snapshot.load());
        let status = match loaded {
            Ok(_) => current.to_string(),
            Err(error) => format!("{current}; the last reload was refused: {error}"),
        };
        let is_news = **self.shared.status.load() != status;
        match loaded {
            Ok(InForce { generation, managed }) => {
                tracing::info!(generation, managed, "configuration in force");
            }
            Err(error) if is_news => {
                tracing::error!("configuration refused, generation {} stays: {error}", current.generation);
            }
            Err(_) => {}
        }
        if loaded.is_err() {
            self.node_metrics.reloads_refused.add(1);
        }
        self.shared.status.store(Arc::new(status));
    }

    /// Reads the configuration that was found. Everything that can fail comes before the first change.
    fn put_in_force(&self, located: &Located) -> Result<InForce, ReloadError> {
        let shared = &self.shared;
        let current = shared.snapshot.load_full();
        let raw = config::read(&located.file)?;
        let deny_list = config::deny_list(located, &raw);
        let deny_list = deny_list.inspect_err(|_| self.node_metrics.deny_list_refused.add(1))?;
        let certificates = located.managed.map(|_| self.certificates.prepare(located, &raw)).transpose()?;
        let mut next = config::validate(located, raw, &self.certificates, current.generation + 1)?;
        if let Some(key) = current.needs_restart(&next) {
            return Err(ReloadError::Restart(key));
        }
        // The kernel first: nothing is dialled that its rules do not have yet.
        let mut programs = lock(&shared.programs);
        programs.handle_settings(&next.ebpf, &current.ebpf)?;
        programs.handle_destinations(&Stations::of(&next).destinations);
        drop(programs);
        if let Some(certificates) = certificates {
            self.certificates.install(certificates);
        }
        self.take_deny_list(deny_list);
        next.tracing.export.clone_from(&current.tracing.export);
        if let (Some(next), Some(current)) = (&mut next.egress, &current.egress) {
            next.receipts.clone_from(&current.receipts);
        }
        self.node_metrics.memory_bound_bytes.set(MemoryBound::of(&next.settings()).total());
        self.node_metrics.managed_generation.set(next.managed.unwrap_or(0));
        oauth::inherit(&next, &current);
        let in_force = InForce::of(&next);
        shared.snapshot.store(Arc::new(next));
        shared.mesh.ring_all();
        Ok(in_force)
    }

    fn reload_certificates(&self) {
        let certificates = &self.certificates;
        match certificates.svid.reload() {
            Ok(Reloaded::Changed) => {
                tracing::info!(id = %certificates.svid.id(), "X.509-SVID or trust bundle reloaded");
            }
            Ok(Reloaded::Unchanged) => {}
            Err(error) => tracing::error!(%error, "X.509-SVID not reloaded, the old one stays"),
        }
        match certificates.public.as_ref().map(|public| public.reload()) {
            Some(Ok(Reloaded::Changed)) => tracing::info!("public certificate reloaded"),
            Some(Err(error)) => tracing::error!(%error, "public certificate not reloaded, the old one stays"),
            Some(Ok(Reloaded::Unchanged)) | None => {}
        }
    }

    /// Whether the deny list is still known to be the newest.
    pub fn watch_deny_list(&mut self) {
        let snapshot = self.shared.snapshot.load();
        let told = (&*self.certificates.svid, &*self.node_metrics);
        let line = self.deny_list_age.handle_time(&snapshot.node, told, SystemTime::now());
        self.shared.deny_list.store(Arc::new(line));
    }

    fn reload_deny_list(&self) {
        let snapshot = self.shared.snapshot.load();
        let Some(file) = &snapshot.node.deny_list_file else { return };
        match DenyList::load(file) {
            Ok(list) => self.take_deny_list(list),
            Err(error) => {
                self.node_metrics.deny_list_refused.add(1);
                tracing::error!(%error, "deny list not reloaded, the old one stays");
            }
        }
    }

    /// Workers compare the peers of their connections with it at their next look at the time.
    fn take_deny_list(&self, list: DenyList) {
        self.node_metrics.deny_list_entries.set(list.len() as u64);
        if list == *self.certificates.svid.deny_list() {
            return;
        }
        tracing::info!(entries = list.len(), "deny list reloaded");
        self.certificates.svid.replace_deny_list(list);
        self.shared.mesh.ring_all();
    }
}
