//! Configuration: a TOML file becomes a validated, immutable [`Snapshot`] with a generation.
//!
//! Workers swap snapshots between two ticks. A file with any fault changes nothing; each fault names
//! the file, the key, what is wrong and the remedy. Secrets are read from files or asked of lockd, never
//! in the configuration itself, and never printed.

mod certificates;
mod memory;
mod place;
mod raw;
mod routing;
mod settings;
mod validate;

use std::path::Path;
use std::sync::Arc;

pub use certificates::{Certificates, deny_list};
pub use memory::{MemoryBound, mib};
pub use place::{Located, Place, PlaceError};
pub use raw::{
    Admin as AdminSection, ClientCertificate, Direction, OnDamage, OnFull, ProxyProtocol, Raw, Seccomp,
};
pub use routing::Routing;
pub use settings::{
    Authorization, EbpfSettings, EgressPeer, EgressSettings, Endpoint, Format, GuardSettings, HostPort,
    IdempotencySettings, IngesterPeer, IngesterSettings, JournalSettings, NodeSettings, Output,
    ProxySettings, Settings, SourceCertificates, Target, TracingSettings, Transport,
};
use zen_core::access::ReachRules;
use zen_core::dedupe::KeyHasher;
use zen_identity::SvidStore;

/// One validated configuration; immutable.
pub struct Snapshot {
    /// Counts configurations accepted by this process, from 1.
    pub generation: u64,
    /// The number of the generation that an agent published, if this is one.
    pub managed: Option<u64>,
    /// Our identity, and who is denied.
    pub svid: Arc<SvidStore>,
    /// What was written, with defaults filled in: for printing.
    pub raw: Raw,
    /// Name, workers, directories, drain deadline.
    pub node: NodeSettings,
    /// Journal bounds.
    pub journal: JournalSettings,
    /// Which events get a trace, and where spans go.
    pub tracing: TracingSettings,
    /// Present when this node takes webhooks in.
    pub ingester: Option<IngesterSettings>,
    /// Present when this node delivers.
    pub egress: Option<EgressSettings>,
    /// Where this node may connect.
    pub reach: Arc<ReachRules>,
    /// Programs in the kernel.
    pub ebpf: EbpfSettings,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{file}: {key}: {problem}; {remedy}")]
pub struct Fault {
    /// The file in which the fault is.
    pub file: String,
    /// The key, dotted, with indices.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not where it should be.
    #[error("{0}")]
    Place(#[from] PlaceError),
    /// The file cannot be read.
    #[error("{file}: {source}; check the path and that this user may read it")]
    Read {
        /// The path as given.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{file}: {message}see docs/configuration.md for the keys")]
    Parse {
        /// The path as given.
        file: String,
        /// The parser's message with line and key.
        message: String,
    },
    /// One or more values are refused.
    #[error("{} fault(s):\n  {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Faults(Vec<Fault>),
}

/// Reads and types the file; no value is checked yet.
pub fn read(file: &Path) -> Result<Raw, ConfigError> {
    let name = file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: name.clone(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse { file: name, message: error.to_string() })
}

/// Checks every value and builds the snapshot; all faults are reported together.
pub fn validate(
    located: &Located,
    raw: Raw,
    certificates: &Certificates,
    generation: u64,
) -> Result<Snapshot, ConfigError> {
    validate::snapshot(located, raw, certificates, generation)
}

/// The flows of one endpoint alone; nothing else of the configuration is checked, and no secret is read.
pub fn routing_of(file: &Path, endpoint: &str) -> Result<Routing, ConfigError> {
    validate::routing_of(file, &read(file)?, endpoint)
}

impl Snapshot {
    /// Everything that was validated.
    pub fn settings(&self) -> Settings<'_> {
        Settings {
            node: &self.node,
            journal: self.journal,
            tracing: &self.tracing,
            ingester: self.ingester.as_ref(),
            egress: self.egress.as_ref(),
            reach: &self.reach,
        }
    }

    /// What cannot change without a restart, if `next` changes it: the key's name.
    pub fn needs_restart(&self, next: &Snapshot) -> Option<&'static str> {
        let listeners = |snapshot: &Snapshot| {
            let ingester =
                snapshot.ingester.as_ref().map(|settings| (settings.listen.clone(), settings.link_listen));
            (ingester, snapshot.egress.as_ref().map(|settings| settings.link_listen))
        };
        // A managed generation brings its certificates with it.
        let identity = |snapshot: &Snapshot| {
            let raw::Identity { certificate_file, private_key_file, trust_bundle_file, .. } =
                snapshot.raw.identity.clone();
            let public = snapshot.raw.ingester.as_ref();
            let public =
                public.map(|ingester| (ingester.certificate_file.clone(), ingester.private_key_file.clone()));
            let files = (certificate_file, private_key_file, trust_bundle_file, public);
            snapshot.managed.is_none().then_some(files)
        };
        let trust_domain = |snapshot: &Snapshot| snapshot.raw.identity.trust_domain.clone();
        let hash_key = |snapshot: &Snapshot| {
            let check = snapshot.node.hasher.as_ref().map(KeyHasher::check);
            (snapshot.raw.node.hash_key_file.clone(), check)
        };
        let receipts = |snapshot: &Snapshot| {
            let egress = snapshot.raw.egress.as_ref();
            egress.map(|egress| egress.receipts.clone())
        };
        let programs = |snapshot: &Snapshot| {
            let raw::Ebpf { guard, fence, steer, observe } = &snapshot.raw.ebpf;
            let guard = guard.as_ref().map(|guard| (guard.sources_max, guard.interfaces.clone(), guard.xdp));
            (guard, fence.is_some(), steer.is_some(), observe.is_some())
        };
        let journal = |snapshot: &Snapshot| {
            (snapshot.journal.segment_bytes, snapshot.journal.bytes_max, snapshot.journal.commit_bytes_max)
        };
        [
            (self.node.name != next.node.name, "node.name"),
            (self.node.workers != next.node.workers, "node.workers"),
            (self.node.data_dir != next.node.data_dir, "node.data_dir"),
            (self.node.drop_capabilities != next.node.drop_capabilities, "node.drop_capabilities"),
            (self.node.seccomp != next.node.seccomp, "node.seccomp"),
            (hash_key(self) != hash_key(next), "node.hash_key_file"),
            (self.raw.lockd != next.raw.lockd, "lockd"),
            (listeners(self) != listeners(next), "listen addresses"),
            (journal(self) != journal(next), "journal"),
            (identity(self) != identity(next), "certificate file paths"),
            (trust_domain(self) != trust_domain(next), "identity.trust_domain"),
            (self.raw.admin.listen != next.raw.admin.listen, "admin.listen"),
            (self.raw.admin.socket != next.raw.admin.socket, "admin.socket"),
            (programs(self) != programs(next), "ebpf"),
            (receipts(self) != receipts(next), "egress.receipts"),
            (self.raw.tracing.otlp_endpoint != next.raw.tracing.otlp_endpoint, "tracing.otlp_endpoint"),
            (self.raw.tracing.otlp_ca_file != next.raw.tracing.otlp_ca_file, "tracing.otlp_ca_file"),
        ]
        .into_iter()
        .find_map(|(changed, key)| changed.then_some(key))
    }
}
