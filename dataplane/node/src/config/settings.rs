//! What validated configuration looks like: typed, resolved, with keys prepared and TLS built.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use zen_core::access::{DestinationPolicy, HeaderRule, NetworkRules, NetworkSet, Rate, ReachRules};
use zen_core::dedupe::{KeyHasher, KeySource};
use zen_core::deliver::cloudevents::CloudEvents;
use zen_core::deliver::{BatchLimits, Credentials, OrderBy, TargetLimits, TargetSigner};
use zen_core::id::EndpointId;
use zen_core::verify::Authentication;
use zen_ebpf::{FenceRules, GuardRules, XdpMode};
use zen_hmac::PreparedKey;
use zen_identity::{Policy, SpiffePattern};
use zen_rules::Pattern;

use super::Routing;
use super::raw::{ClientCertificate, Direction, OnDamage, ProxyProtocol, Seccomp};
use crate::ebpf::Need;
use crate::journal::RetentionLimits;
use crate::oauth::TokenSource;
use crate::receipts::Receipts;
use crate::spans::Export;
use crate::tls::{ClientTls, ServerTls};

/// All of it but what was written.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// Name, workers, directories, deadlines.
    pub node: &'a NodeSettings,
    /// Journal bounds.
    pub journal: JournalSettings,
    /// Traces and spans.
    pub tracing: &'a TracingSettings,
    /// The ingester's part.
    pub ingester: Option<&'a IngesterSettings>,
    /// The egress's part.
    pub egress: Option<&'a EgressSettings>,
    /// Where the node may connect.
    pub reach: &'a ReachRules,
}

/// Name, workers, directories, deadlines.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Name in hellos and metrics.
    pub name: String,
    /// Worker threads, resolved from `0`.
    pub workers: u16,
    /// Pin each worker to a core.
    pub pin_workers: bool,
    /// Where the journals are.
    pub data_dir: PathBuf,
    /// How long a drain may take.
    pub drain_timeout_ms: u64,
    /// How often certificate files are looked at.
    pub reload_poll_ms: u64,
    /// Who is denied, if anybody is.
    pub deny_list_file: Option<PathBuf>,
    /// How long ago that list may have been confirmed, if that counts.
    pub deny_list_age_max: Option<Duration>,
    /// Whether nobody is taken once it is longer ago.
    pub deny_list_fail_closed: bool,
    /// Links that carry events, over all workers.
    pub links_max: u32,
    /// Longest pause between two attempts to dial a link.
    pub link_pause_ms_max: u64,
    /// What the node may use; its bound is compared with this.
    pub memory_bytes_max: u64,
    /// Whether capabilities go before workers start.
    pub drop_capabilities: bool,
    /// What becomes of system calls that a running node does not need.
    pub seccomp: Seccomp,
    /// Makes the keys of events; without it the data directory has one.
    pub hasher: Option<KeyHasher>,
}

/// Journal bounds, per worker and role.
#[derive(Clone, Copy, Debug)]
pub struct JournalSettings {
    /// One segment file.
    pub segment_bytes: u64,
    /// All live segments of one journal.
    pub bytes_max: u64,
    /// One commit.
    pub commit_bytes_max: usize,
    /// Recent commits kept in memory for the links: the share of one journal.
    pub recent_bytes_max: usize,
    /// What recovery does with damage in the middle.
    pub on_damage: OnDamage,
}

/// Which events get a trace, and where spans go.
#[derive(Clone)]
pub struct TracingSettings {
    /// An event that comes without a trace gets one if a random 32-bit number is below this.
    pub sample_below: u64,
    /// The collector; one for the life of the process.
    pub export: Option<Arc<Export>>,
}

/// Programs in the kernel; those that are not there are not loaded.
#[derive(Clone, Debug)]
pub struct EbpfSettings {
    /// Packets to the listeners.
    pub guard: Option<GuardSettings>,
    /// Outgoing connections.
    pub fence: Option<(FenceRules, Need)>,
    /// Which worker gets a connection.
    pub steer: Option<Need>,
    /// What connections are like.
    pub observe: Option<Need>,
}

/// The guard's rules, and where it stands.
#[derive(Clone, Debug)]
pub struct GuardSettings {
    /// What it refuses.
    pub rules: GuardRules,
    /// Sources with a budget of their own at a time.
    pub sources_max: u32,
    /// Interfaces where frames are judged already.
    pub interfaces: Vec<String>,
    /// Who judges there.
    pub xdp: XdpMode,
    /// What its absence means.
    pub need: Need,
}

/// A node's table of keys: how many, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// Seen keys.
    pub keys_max: u32,
    /// How long a seen key is remembered.
    pub window_ms: u64,
}

/// A host name or address, with a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address literal, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The ingester's part.
pub struct IngesterSettings {
    /// Where sources connect.
    pub listen: Vec<SocketAddr>,
    /// Where egresses that dial connect.
    pub link_listen: Option<SocketAddr>,
    /// Source connections, over all workers.
    pub connections_max: u32,
    /// A connection without a request is closed after this.
    pub idle_timeout_ms: u64,
    /// A request must be complete within this.
    pub request_timeout_ms: u64,
    /// Requests held in memory: the share of one worker.
    pub body_memory_bytes_max: usize,
    /// Sources whose rates are remembered, of each kind.
    pub rate_sources_max: u32,
    /// Whose word about the client's address counts.
    pub proxies: Option<Arc<ProxySettings>>,
    /// Memory of all lists of networks, bytes.
    pub network_bytes: usize,
    /// Whether sources are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// Keys of accepted events.
    pub idempotency: IdempotencySettings,
    /// By id.
    pub endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    /// Peers, in file order.
    pub egresses: Vec<EgressPeer>,
    /// TLS 1.3 for sources.
    pub public_tls: ServerTls,
    /// mTLS for egresses that dial.
    pub link_tls: ServerTls,
}

/// One place where webhooks come in.
pub struct Endpoint {
    /// In the URL `/hooks/<id>`.
    pub id: EndpointId,
    /// The id as written, which conditions know it by.
    pub name: String,
    /// Whose events these are.
    pub tenant: String,
    /// How sources prove themselves.
    pub authentication: Authentication,
    /// The keys of its held requests, prepared, in the order of its secrets.
    pub held_keys: Vec<PreparedKey>,
    /// Which certificates it allows, if it wants one.
    pub certificates: Option<SourceCertificates>,
    /// From where requests may come.
    pub networks: NetworkRules,
    /// What the headers of a verified request must be.
    pub header_rules: Vec<HeaderRule<Pattern>>,
    /// How often requests may come.
    pub rates: Rates,
    /// What its events are known by; none where each is an event of its own.
    pub key_source: Option<KeySource>,
    /// Accepted media types; empty accepts all.
    pub content_types: Vec<String>,
    /// Longest body.
    pub body_bytes_max: usize,
    /// Nodes that an event may have passed.
    pub hops_max: u8,
    /// Lower-case names, sorted.
    pub forward_headers: Vec<String>,
    /// Where its events go.
    pub routing: Routing,
}

/// Proxies in front of the ingester.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// From where they connect.
    pub networks: NetworkSet,
    /// How they say who the client is.
    pub protocol: ProxyProtocol,
    /// Most of them in a row.
    pub hops: u8,
}

/// Whether sources are asked for a certificate in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are; without one they are taken all the same, up to the endpoint.
    Asked,
    /// They are not.
    NotAsked,
}

/// Which certificates under `ingester.client_ca_file` an endpoint allows; any one, if both lists are empty.
#[derive(Clone, Debug)]
pub struct SourceCertificates {
    /// SPIFFE ids.
    pub spiffe_ids: Vec<SpiffePattern>,
    /// DNS names in lower case.
    pub dns_names: Vec<String>,
}

/// Rates of an endpoint; what is not there is not limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Verified requests.
    pub endpoint: Option<Rate>,
    /// Verified requests of one source network.
    pub source: Option<Rate>,
    /// Requests of one source network that were not verified.
    pub unverified: Option<Rate>,
}

/// An egress as the ingester knows it.
pub struct EgressPeer {
    /// Its node name.
    pub name: String,
    /// Who dials.
    pub direction: Direction,
    /// Where to dial.
    pub address: Option<HostPort>,
    /// Who it may be.
    pub policy: Arc<Policy>,
    /// Names the link key.
    pub key_id: String,
    /// Signs each event on the link.
    pub key: PreparedKey,
    /// mTLS for dialling.
    pub tls: ClientTls,
}

/// The egress's part.
pub struct EgressSettings {
    /// Where ingesters that dial connect.
    pub link_listen: Option<SocketAddr>,
    /// Deliveries that are not done: the share of one worker.
    pub events_max: u32,
    /// Dead letters kept: the share of one worker.
    pub dead_letters_max: u32,
    /// Events held in memory: the share of one worker. Others are read back from the journal.
    pub cached_bytes_max: usize,
    /// Events being sent to targets: the share of one worker.
    pub attempt_memory_bytes_max: usize,
    /// Ids of events taken.
    pub idempotency: IdempotencySettings,
    /// Segments kept for replay: the share of one worker.
    pub retention: RetentionLimits,
    /// Deliveries that operators' orders start a second: the share of one worker.
    pub replay_per_second: u32,
    /// Evidence of outcomes; one for the life of the process.
    pub receipts: Option<Arc<Receipts>>,
    /// Peers, in file order.
    pub ingesters: Vec<IngesterPeer>,
    /// Where targets may be.
    pub destinations: DestinationPolicy,
    /// By name.
    pub targets: BTreeMap<String, Arc<Target>>,
    /// By name; no target has the same.
    pub outputs: BTreeMap<String, Arc<Output>>,
    /// By the name of a target or an output, those whose deliveries go out in order.
    pub ordering: BTreeMap<String, OrderBy>,
    /// mTLS for ingesters that dial.
    pub link_tls: ServerTls,
}

impl EgressSettings {
    /// The bounds of the queue of a target or an output.
    pub fn queue(&self, name: &str) -> Option<&TargetLimits> {
        let output = || self.outputs.get(name).map(|output| &output.targets[0]);
        self.targets.get(name).or_else(output).map(|target| &target.limits)
    }

    /// What deliveries may be for: targets and outputs.
    pub fn destinations(&self) -> impl Iterator<Item = &str> {
        self.targets.keys().chain(self.outputs.keys()).map(String::as_str)
    }

    /// The bounds of each queue: one for a target, and one for an output.
    pub fn queues(&self) -> impl Iterator<Item = &TargetLimits> {
        let primaries = self.outputs.values().map(|output| &output.targets[0].limits);
        self.targets.values().map(|target| &target.limits).chain(primaries)
    }
}

/// What flows may name like a target: one with standbys, or with a body of its own.
pub struct Output {
    /// Its name, when to switch, the transform.
    pub rules: zen_rules::Output,
    /// The primary first, then the standbys.
    pub targets: Vec<Arc<Target>>,
}

/// An ingester as the egress knows it.
pub struct IngesterPeer {
    /// Its node name.
    pub name: String,
    /// Who dials.
    pub direction: Direction,
    /// Where to dial.
    pub address: Option<HostPort>,
    /// Who it may be.
    pub policy: Arc<Policy>,
    /// Accepted link keys.
    pub keys: Vec<(String, PreparedKey)>,
    /// mTLS for dialling.
    pub tls: ClientTls,
}

/// A private service.
pub struct Target {
    /// Audience of its signatures.
    pub name: String,
    /// Where it is; nowhere, if it is behind a unix socket.
    pub address: HostPort,
    /// How it is spoken to.
    pub transport: Transport,
    /// Signs deliveries and writes request heads.
    pub signer: TargetSigner<PreparedKey>,
    /// Queue, in-flight cap, schedule.
    pub limits: TargetLimits,
    /// How long after its acceptance a delivery is given up, ms.
    pub deadline_ms: Option<u64>,
    /// What deliveries share that go out in order.
    pub order_by: Option<OrderBy>,
    /// How much of a failed answer's body is kept to be shown, bytes.
    pub answer_excerpt_bytes_max: usize,
    /// Whether we show our certificate.
    pub client_certificate: ClientCertificate,
    /// What its `Authorization` header is, if it wants one.
    pub authorization: Option<Authorization>,
    /// What it is sent.
    pub format: Format,
    /// How many events in one request, if it takes more than one.
    pub batch: Option<BatchLimits>,
}

/// Where a target's `Authorization` header comes from.
pub enum Authorization {
    /// From the configuration.
    Fixed(Credentials),
    /// From a token server.
    Tokens(Arc<TokenSource>),
}

impl Target {
    /// Whether deliveries to it have to wait for an access token.
    pub fn lacks_token(&self, steady_ms: u64) -> bool {
        match &self.authorization {
            Some(Authorization::Tokens(source)) => source.token(steady_ms).is_none(),
            Some(Authorization::Fixed(_)) | None => false,
        }
    }
}

/// How a target is spoken to.
pub enum Transport {
    /// TLS over TCP.
    Tls {
        /// mTLS to it.
        tls: ClientTls,
        /// For SNI and, without SPIFFE ids, for the name check.
        server_name: ServerName<'static>,
    },
    /// Plain HTTP over a unix socket of this host.
    Unix {
        /// Its file.
        path: PathBuf,
        /// Who must listen on it.
        peer_uid: Option<u32>,
    },
}

/// What a target is sent of an event.
#[derive(Clone, Debug)]
pub enum Format {
    /// The body as it came, or as an output makes it.
    Original,
    /// That, with the attributes of a CloudEvent in headers.
    Binary(CloudEvents),
    /// A CloudEvent in JSON, with that in it.
    Structured(CloudEvents),
}
