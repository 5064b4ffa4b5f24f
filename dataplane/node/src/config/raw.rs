//! The configuration file as written: TOML to structs, unknown keys refused, defaults filled in.
//!
//! Nothing is checked here beyond types; [`super::validate()`] turns this into a snapshot.

mod access;
mod ebpf;
mod limits;
mod targets;
mod tracing;

pub use access::{
    Authorization, AuthorizationKind, HeaderAction, HeaderRule, ListMode, NetworkLists, Networks, Proxies,
    ProxyProtocol, Rate, Rates, SourceCertificate,
};
pub use ebpf::{Ebpf, Fence, FilterMode, Guard, Xdp};
pub use limits::{AttemptRate, Backoff, Breaker, OrderBy, Status, Throttle};
use serde::{Deserialize, Serialize};
pub use targets::{CredentialsKind, TargetAuthorization, TargetBatch, TargetFormat};
pub use tracing::Tracing;

/// The whole file. Every key is described in `docs/configuration.md`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub node: Node,
    #[serde(default)]
    pub admin: Admin,
    #[serde(default)]
    pub journal: Journal,
    #[serde(default)]
    pub tracing: Tracing,
    #[serde(default)]
    pub ebpf: Ebpf,
    pub lockd: Option<Lockd>,
    pub identity: Identity,
    pub ingester: Option<Ingester>,
    pub egress: Option<Egress>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: String,
    pub data_dir: String,
    #[serde(default)]
    pub workers: u16,
    #[serde(default = "yes")]
    pub pin_workers: bool,
    #[serde(default = "drain_timeout_ms")]
    pub drain_timeout_ms: u64,
    #[serde(default = "reload_poll_ms")]
    pub reload_poll_ms: u64,
    #[serde(default = "log")]
    pub log: String,
    #[serde(default = "memory_bytes_max")]
    pub memory_bytes_max: u64,
    pub links_max: Option<u32>,
    #[serde(default = "link_pause_ms_max")]
    pub link_pause_ms_max: u64,
    #[serde(default = "yes")]
    pub drop_capabilities: bool,
    #[serde(default)]
    pub seccomp: Seccomp,
    pub hash_key_file: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    #[default]
    Enforce,
    Log,
    Off,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: Option<String>,
    pub socket: Option<String>,
    #[serde(default)]
    pub bodies: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    pub segment_bytes: u64,
    pub bytes_max: u64,
    pub commit_bytes_max: u64,
    pub recent_bytes_max: u64,
    pub on_damage: OnDamage,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum OnDamage {
    Refuse,
    Skip,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
            commit_bytes_max: 2 << 20,
            recent_bytes_max: 16 << 20,
            on_damage: OnDamage::Refuse,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Lockd {
    pub socket: String,
    pub user: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub certificate_file: String,
    pub private_key_file: String,
    pub trust_bundle_file: String,
    pub trust_domain: String,
    pub deny_list_file: Option<String>,
    pub deny_list_age_ms_max: Option<u64>,
    #[serde(default)]
    pub deny_list_fail_closed: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ingester {
    pub listen: Vec<String>,
    pub certificate_file: String,
    pub private_key_file: String,
    pub link_listen: Option<String>,
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    #[serde(default = "idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    #[serde(default = "request_timeout_ms")]
    pub request_timeout_ms: u64,
    #[serde(default = "body_memory_bytes_max")]
    pub body_memory_bytes_max: u64,
    pub client_ca_file: Option<String>,
    #[serde(default = "rate_sources_max")]
    pub rate_sources_max: u32,
    pub proxies: Option<Proxies>,
    #[serde(default)]
    pub networks: NetworkLists,
    #[serde(default)]
    pub idempotency: IdempotencyTable,
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    #[serde(default)]
    pub flows: Vec<Flow>,
    #[serde(default)]
    pub egresses: Vec<EgressPeer>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub id: String,
    pub tenant: String,
    pub scheme: SchemeName,
    #[serde(default)]
    pub secret_files: Vec<String>,
    pub hmac: Option<Hmac>,
    pub authorization: Option<Authorization>,
    pub client_certificate: Option<SourceCertificate>,
    #[serde(default)]
    pub networks: Networks,
    #[serde(default)]
    pub headers: Vec<HeaderRule>,
    #[serde(default)]
    pub rates: Rates,
    #[serde(default)]
    pub idempotency: Idempotency,
    #[serde(default)]
    pub forward_headers: Vec<String>,
    #[serde(default)]
    pub content_types: Vec<String>,
    #[serde(default = "body_bytes_max")]
    pub body_bytes_max: u64,
    #[serde(default = "hops_max")]
    pub hops_max: u8,
    #[serde(default)]
    pub r#match: zen_rules::Matching,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum SchemeName {
    Github,
    StandardWebhooks,
    Hmac,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    #[serde(default)]
    pub algorithm: HmacAlgorithm,
    pub header: String,
    #[serde(default)]
    pub encoding: Encoding,
    #[serde(default)]
    pub prefix: String,
    pub source_id_header: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum HmacAlgorithm {
    #[default]
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

/// The table of keys of a node, at its ingester or its egress.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencyTable {
    pub keys_max: u32,
    pub window_ms: u64,
}

impl Default for IdempotencyTable {
    fn default() -> Self {
        // 12 MB: two tables leave a node with both roles below its 512 MiB.
        Self { keys_max: 300_000, window_ms: zen_core::dedupe::Limits::default().window_ms }
    }
}

/// Events kept after they are done, for replay.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    pub bytes_max: u64,
    pub age_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { bytes_max: 1 << 30, age_ms: 7 * 24 * 3_600_000 }
    }
}

/// Evidence of what became of deliveries.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Receipts {
    pub bytes_max: u64,
    pub on_full: OnFull,
    pub digest_interval_s: u64,
    pub digest_receipts_max: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            bytes_max: 0,
            on_full: OnFull::Wait,
            digest_interval_s: 3_600,
            digest_receipts_max: 100_000,
            key_file: None,
        }
    }
}

/// What becomes of a receipt that the disk does not take.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    #[default]
    Wait,
    Drop,
}

/// What an endpoint's events are known by.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idempotency {
    pub key: IdempotencyKey,
    pub header: String,
    pub json_path: Option<String>,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { key: IdempotencyKey::Scheme, header: "idempotency-key".to_owned(), json_path: None }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum IdempotencyKey {
    Scheme,
    Header,
    Json,
    Body,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    pub name: Option<String>,
    pub endpoint: String,
    pub egress: String,
    pub targets: Vec<String>,
    #[serde(default = "yes")]
    pub enabled: bool,
    #[serde(default = "zen_rules::RawFlow::default_priority")]
    pub priority: u16,
    pub when: Option<zen_rules::RawCondition>,
    #[serde(default)]
    pub on_error: zen_rules::OnError,
    #[serde(default = "zen_rules::RawFlow::default_body_bytes_max")]
    pub body_bytes_max: u32,
    #[serde(default = "zen_rules::RawFlow::default_json_depth_max")]
    pub json_depth_max: u32,
}

/// A policy that is only tried.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    pub spiffe_ids: Vec<String>,
    #[serde(default)]
    pub deny_spiffe_ids: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    EgressDials,
    IngesterDials,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EgressPeer {
    pub name: String,
    pub direction: Direction,
    pub address: Option<String>,
    pub spiffe_ids: Vec<String>,
    #[serde(default)]
    pub deny_spiffe_ids: Vec<String>,
    pub dry_run: Option<DryRun>,
    pub key_id: String,
    pub key_file: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    pub link_listen: Option<String>,
    #[serde(default = "events_max")]
    pub events_max: u32,
    #[serde(default = "dead_letters_max")]
    pub dead_letters_max: u32,
    #[serde(default = "cached_bytes_max")]
    pub cached_bytes_max: u64,
    #[serde(default = "attempt_memory_bytes_max")]
    pub attempt_memory_bytes_max: u64,
    #[serde(default)]
    pub idempotency: IdempotencyTable,
    #[serde(default)]
    pub retention: Retention,
    #[serde(default = "replay_per_second")]
    pub replay_per_second: u32,
    #[serde(default)]
    pub receipts: Receipts,
    #[serde(default)]
    pub ingesters: Vec<IngesterPeer>,
    #[serde(default)]
    pub target_networks: Vec<String>,
    #[serde(default)]
    pub targets: Vec<Target>,
    #[serde(default)]
    pub outputs: Vec<zen_rules::RawOutput>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IngesterPeer {
    pub name: String,
    pub direction: Direction,
    pub address: Option<String>,
    pub spiffe_ids: Vec<String>,
    #[serde(default)]
    pub deny_spiffe_ids: Vec<String>,
    pub dry_run: Option<DryRun>,
    pub keys: Vec<Key>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    pub id: String,
    pub file: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub name: String,
    pub url: String,
    pub unix_socket: Option<String>,
    pub peer_uid: Option<u32>,
    pub key_id: String,
    pub secret_file: String,
    pub previous_secret_file: Option<String>,
    #[serde(default)]
    pub spiffe_ids: Vec<String>,
    #[serde(default)]
    pub deny_spiffe_ids: Vec<String>,
    pub dry_run: Option<DryRun>,
    pub ca_file: Option<String>,
    #[serde(default)]
    pub client_certificate: ClientCertificate,
    pub authorization: Option<TargetAuthorization>,
    #[serde(default)]
    pub format: TargetFormat,
    pub cloudevents_type: Option<String>,
    pub cloudevents_source: Option<String>,
    pub batch: Option<TargetBatch>,
    #[serde(default = "in_flight_max")]
    pub in_flight_max: u32,
    #[serde(default = "queue_max")]
    pub queue_max: u32,
    #[serde(default = "attempt_timeout_ms")]
    pub attempt_timeout_ms: u64,
    #[serde(default = "retry_schedule_ms")]
    pub retry_schedule_ms: Vec<u64>,
    pub retry: Option<Backoff>,
    #[serde(default = "retry_jitter_percent")]
    pub retry_jitter_percent: u8,
    pub deadline_ms: Option<u64>,
    #[serde(default = "limits::permanent_statuses")]
    pub permanent_statuses: Vec<Status>,
    pub answer_ms_max: Option<u64>,
    #[serde(default)]
    pub throttle: Throttle,
    #[serde(default)]
    pub breaker: Breaker,
    pub rate: Option<AttemptRate>,
    pub order_by: Option<OrderBy>,
    #[serde(default)]
    pub answer_excerpt_bytes_max: u32,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificate {
    #[default]
    Present,
    None,
}

fn yes() -> bool {
    true
}

fn drain_timeout_ms() -> u64 {
    10_000
}

fn link_pause_ms_max() -> u64 {
    5_000
}

fn reload_poll_ms() -> u64 {
    10_000
}

fn log() -> String {
    "info".to_owned()
}

fn memory_bytes_max() -> u64 {
    512 << 20
}

fn connections_max() -> u32 {
    4096
}

fn idle_timeout_ms() -> u64 {
    75_000
}

fn request_timeout_ms() -> u64 {
    30_000
}

fn body_memory_bytes_max() -> u64 {
    32 << 20
}

fn rate_sources_max() -> u32 {
    65_536
}

fn body_bytes_max() -> u64 {
    zen_core::event::BODY_BYTES_MAX as u64
}

fn hops_max() -> u8 {
    8
}

fn events_max() -> u32 {
    100_000
}

/// All that `events_max` allows: nothing that was accepted is thrown away before links stop asking.
fn dead_letters_max() -> u32 {
    events_max()
}

fn replay_per_second() -> u32 {
    250
}

fn cached_bytes_max() -> u64 {
    16 << 20
}

fn attempt_memory_bytes_max() -> u64 {
    16 << 20
}

fn in_flight_max() -> u32 {
    32
}

/// Half of `events_max`, so that one dead target leaves room for the others.
fn queue_max() -> u32 {
    events_max() / 2
}

fn attempt_timeout_ms() -> u64 {
    30_000
}

/// The schedule where none is written.
pub fn retry_schedule_ms() -> Vec<u64> {
    vec![1_000, 5_000, 30_000, 120_000, 600_000, 3_600_000, 21_600_000]
}

fn retry_jitter_percent() -> u8 {
    20
}
