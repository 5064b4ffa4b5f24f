//! From what was written to a snapshot: every value checked, every fault collected with its remedy.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use zen_core::crypto::{HashAlgorithm, Mac};
use zen_core::deliver::{SignerConfig, TargetLimits, TargetSigner, parse_secret};
use zen_core::envelope::is_forwarded_name;
use zen_core::event::BODY_BYTES_MAX;
use zen_core::id::{EndpointId, is_name};
use zen_core::verify::{self, HmacSettings, Scheme};
use zen_identity::{Policy, SharedPolicy, SpiffePattern, TargetRoots};
use zeroize::Zeroizing;

use super::raw::{self, ClientCertificate, Direction, Raw, SchemeName};
use super::settings::{
    EgressPeer, EgressSettings, Endpoint, HostPort, IngesterPeer, IngesterSettings, JournalSettings,
    NodeSettings, Route, Target,
};
use super::{Certificates, ConfigError, Fault, Snapshot};
use crate::crypto::NodeCrypto;
use crate::tls::{ClientTls, ServerTls};

/// ALPN of the link protocol.
const LINK_ALPN: &[u8] = b"zen-link/1";
/// Endpoints in one configuration.
const ENDPOINTS_MAX: usize = 10_000;
/// Targets of one flow, as in the fan-out bound.
const FLOW_TARGETS_MAX: usize = 10;
/// Longest secret file, bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// Collects faults; every reader returns an option so that the next key is still looked at.
pub(super) struct Faults {
    file: String,
    base: PathBuf,
    /// In the order of discovery.
    pub(super) found: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(file: &Path) -> Self {
        let base = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self { file: file.display().to_string(), base, found: Vec::new() }
    }

    /// Relative paths are relative to the configuration file.
    pub(super) fn resolve(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    pub(super) fn push(&mut self, key: impl Display, problem: impl Display, remedy: impl Display) {
        self.found.push(Fault {
            file: self.file.clone(),
            key: key.to_string(),
            problem: problem.to_string(),
            remedy: remedy.to_string(),
        });
    }

    fn bound<T: PartialOrd + Display>(&mut self, key: impl Display, value: T, low: T, high: T) {
        if value < low || value > high {
            self.push(key, format_args!("{value} is out of bounds"), format_args!("give {low} to {high}"));
        }
    }

    fn name(&mut self, key: impl Display, value: &str) {
        if !is_name(value) {
            self.push(key, format_args!("\"{value}\" is not a name"), "use 1 to 64 of A-Z a-z 0-9 . _ -");
        }
    }

    fn parse<T: FromStr<Err: Display>>(&mut self, key: impl Display, value: &str, remedy: &str) -> Option<T> {
        value.parse().map_err(|error| self.push(key, format_args!("\"{value}\": {error}"), remedy)).ok()
    }

    fn secret(&mut self, key: impl Display + Copy, name: &str) -> Option<Zeroizing<String>> {
        let path = self.resolve(name);
        let shown = path.display().to_string();
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.push(key, format_args!("{shown}: {error}"), "write the secret to this file, mode 0600");
                return None;
            }
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            self.push(key, format_args!("{shown} is readable by others"), format_args!("chmod 0600 {shown}"));
            return None;
        }
        if metadata.len() > SECRET_BYTES_MAX {
            self.push(key, format_args!("{shown} is over {SECRET_BYTES_MAX} bytes"), "put one secret in it");
            return None;
        }
        match std::fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) if !text.trim().is_empty() => Some(Zeroizing::new(text.trim().to_owned())),
            Ok(_) => {
                self.push(key, format_args!("{shown} is empty"), "write the secret to it");
                None
            }
            Err(error) => {
                self.push(key, format_args!("{shown}: {error}"), "the secret must be text");
                None
            }
        }
    }

    /// A `whsec_` secret as a prepared key.
    fn key(&mut self, key: impl Display + Copy, name: &str) -> Option<zen_hmac::PreparedKey> {
        self.whsec(key, name).map(|secret| NodeCrypto.prepare(&secret))
    }

    /// A `whsec_` secret.
    fn whsec(&mut self, key: impl Display + Copy, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.secret(key, name)?;
        match parse_secret(&text) {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.push(key, error, "write whsec_ and the base64 of 24 to 64 random bytes");
                None
            }
        }
    }

    fn policy(&mut self, key: impl Display + Copy, ids: &[String]) -> Policy {
        if ids.is_empty() {
            self.push(key, "is empty, so nobody is allowed", "name the peer's SPIFFE id");
        }
        let patterns = ids
            .iter()
            .filter_map(|id| {
                self.parse::<SpiffePattern>(key, id, "give spiffe://domain/path, or a path ending in /*")
            })
            .collect();
        Policy::new(patterns, Vec::new())
    }

    fn host_port(&mut self, key: impl Display + Copy, value: &str) -> Option<HostPort> {
        let parsed = value.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some(HostPort { host: host.to_owned(), port: port.parse().ok()? })
        });
        match parsed {
            Some(address) if !address.host.is_empty() && address.port != 0 => Some(address),
            _ => {
                self.push(
                    key,
                    format_args!("\"{value}\" is not host:port"),
                    "give a name or address and a port",
                );
                None
            }
        }
    }

    fn dial_address(
        &mut self,
        key: &str,
        dials: bool,
        listens: bool,
        address: Option<&String>,
    ) -> Option<HostPort> {
        let address_key = format!("{key}.address");
        match (dials, address) {
            (true, Some(address)) => self.host_port(&address_key, address),
            (true, None) => {
                self.push(&address_key, "is missing", "this side dials: say where");
                None
            }
            (false, Some(_)) => {
                self.push(&address_key, "is given, but the peer dials", "remove it or change the direction");
                None
            }
            (false, None) if !listens => {
                self.push(key, "the peer dials, but link_listen is not set", "set link_listen");
                None
            }
            (false, None) => None,
        }
    }
}

/// Builds the snapshot or reports all faults.
pub(super) fn snapshot(
    file: &Path,
    raw: Raw,
    certificates: &Certificates,
    generation: u64,
) -> Result<Snapshot, ConfigError> {
    let mut faults = Faults::new(file);
    let node = node(&raw, &mut faults);
    let journal = journal(&raw.journal, &mut faults);
    if raw.ingester.is_none() && raw.egress.is_none() {
        faults.push("ingester, egress", "neither is there", "add [ingester], [egress] or both");
    }
    let ingester = raw.ingester.as_ref().and_then(|section| ingester(section, certificates, &mut faults));
    let egress = raw.egress.as_ref().and_then(|section| egress(section, certificates, &mut faults));
    if !faults.found.is_empty() {
        return Err(ConfigError::Faults(faults.found));
    }
    Ok(Snapshot { generation, raw, node, journal, ingester, egress })
}

fn node(raw: &Raw, faults: &mut Faults) -> NodeSettings {
    faults.name("node.name", &raw.node.name);
    faults.bound("node.workers", raw.node.workers, 0, 64);
    faults.bound("node.drain_timeout_ms", raw.node.drain_timeout_ms, 100, 600_000);
    faults.bound("node.reload_poll_ms", raw.node.reload_poll_ms, 100, 3_600_000);
    if let Some(listen) = &raw.admin.listen {
        let address = faults.parse::<SocketAddr>("admin.listen", listen, "give an address and a port");
        if address.is_some_and(|address| !address.ip().is_loopback()) {
            faults.push("admin.listen", format_args!("{listen} is not loopback"), "use 127.0.0.1 or [::1]");
        }
    }
    let cores = zen_uring::online_cores().len().max(1) as u16;
    NodeSettings {
        name: raw.node.name.clone(),
        workers: if raw.node.workers == 0 { cores } else { raw.node.workers },
        pin_workers: raw.node.pin_workers,
        data_dir: faults.resolve(&raw.node.data_dir),
        drain_timeout_ms: raw.node.drain_timeout_ms,
        reload_poll_ms: raw.node.reload_poll_ms,
    }
}

fn journal(raw: &raw::Journal, faults: &mut Faults) -> JournalSettings {
    faults.bound("journal.commit_bytes_max", raw.commit_bytes_max, 2 << 20, 16 << 20);
    faults.bound("journal.segment_bytes", raw.segment_bytes, 4 << 20, 1 << 30);
    faults.bound("journal.bytes_max", raw.bytes_max, 4 * raw.segment_bytes, 1 << 44);
    faults.bound("journal.recent_bytes_max", raw.recent_bytes_max, 1 << 20, 1 << 30);
    for (key, value) in [("segment_bytes", raw.segment_bytes), ("commit_bytes_max", raw.commit_bytes_max)] {
        if value % 4096 != 0 {
            faults.push(format_args!("journal.{key}"), "is not a multiple of 4096", "round it up");
        }
    }
    if raw.segment_bytes < raw.commit_bytes_max + 4096 {
        faults.push(
            "journal.segment_bytes",
            "does not hold one commit",
            "give commit_bytes_max and 4096 more",
        );
    }
    JournalSettings {
        segment_bytes: raw.segment_bytes,
        bytes_max: raw.bytes_max,
        commit_bytes_max: raw.commit_bytes_max as usize,
        recent_bytes_max: raw.recent_bytes_max as usize,
        on_damage: raw.on_damage,
    }
}

fn link_server(
    certificates: &Certificates,
    policy: Policy,
    key: &str,
    faults: &mut Faults,
) -> Option<ServerTls> {
    certificates
        .svid
        .server_config(SharedPolicy::new(policy), &[LINK_ALPN])
        .map_err(|error| faults.push(key, error, "check the files under [identity]"))
        .ok()
}

fn link_client(
    certificates: &Certificates,
    policy: &Policy,
    key: &str,
    faults: &mut Faults,
) -> Option<ClientTls> {
    certificates
        .svid
        .client_config(SharedPolicy::new(policy.clone()), &[LINK_ALPN])
        .map_err(|error| faults.push(key, error, "check the files under [identity]"))
        .ok()
}

fn link_listen(section: &str, listen: Option<&String>, faults: &mut Faults) -> Option<SocketAddr> {
    let key = format!("{section}.link_listen");
    listen.and_then(|listen| faults.parse(&key, listen, "give an address and a port"))
}

fn ingester(
    raw: &raw::Ingester,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<IngesterSettings> {
    if raw.listen.is_empty() {
        faults.push("ingester.listen", "is empty", "give at least one address and port");
    }
    faults.bound("ingester.connections_max", raw.connections_max, 1, 100_000);
    faults.bound("ingester.idle_timeout_ms", raw.idle_timeout_ms, 1_000, 3_600_000);
    faults.bound("ingester.request_timeout_ms", raw.request_timeout_ms, 1_000, 600_000);
    faults.bound("ingester.body_memory_bytes_max", raw.body_memory_bytes_max, 4 << 20, 16 << 30);
    let listen = raw
        .listen
        .iter()
        .filter_map(|listen| faults.parse("ingester.listen", listen, "give an address and a port"))
        .collect();
    let listen_link = link_listen("ingester", raw.link_listen.as_ref(), faults);
    let mut egresses = Vec::new();
    let mut patterns = Vec::new();
    for (index, peer) in raw.egresses.iter().enumerate() {
        let key = format!("ingester.egresses[{index}]");
        egresses.extend(egress_peer(&key, peer, listen_link.is_some(), certificates, faults));
        patterns.extend(peer.spiffe_ids.iter().filter_map(|id| id.parse::<SpiffePattern>().ok()));
    }
    unique("ingester.egresses", "name", raw.egresses.iter().map(|peer| peer.name.as_str()), faults);
    let endpoints = endpoints(raw, faults);
    let link_tls = link_server(certificates, Policy::new(patterns, Vec::new()), "ingester.egresses", faults)?;
    let Some(public) = certificates.public.as_ref() else {
        faults.push("ingester", "was not there when the node started", "restart the node");
        return None;
    };
    Some(IngesterSettings {
        listen,
        link_listen: listen_link,
        connections_max: raw.connections_max,
        idle_timeout_ms: raw.idle_timeout_ms,
        request_timeout_ms: raw.request_timeout_ms,
        body_memory_bytes_max: raw.body_memory_bytes_max as usize,
        endpoints,
        egresses,
        public_tls: zen_identity::public_server_config(Arc::clone(public)),
        link_tls,
    })
}

fn egress_peer(
    key: &str,
    raw: &raw::EgressPeer,
    listens: bool,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<EgressPeer> {
    faults.name(format_args!("{key}.name"), &raw.name);
    faults.name(format_args!("{key}.key_id"), &raw.key_id);
    let policy = faults.policy(format_args!("{key}.spiffe_ids"), &raw.spiffe_ids);
    let dials = raw.direction == Direction::IngesterDials;
    let address = faults.dial_address(key, dials, listens, raw.address.as_ref());
    let prepared = faults.key(format_args!("{key}.key_file"), &raw.key_file)?;
    let tls = link_client(certificates, &policy, key, faults)?;
    Some(EgressPeer {
        name: raw.name.clone(),
        direction: raw.direction,
        address,
        policy: Arc::new(policy),
        key_id: raw.key_id.clone(),
        key: prepared,
        tls,
    })
}

fn unique<'a>(list: &str, field: &str, values: impl Iterator<Item = &'a str>, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (index, value) in values.enumerate() {
        if !seen.insert(value) {
            faults.push(
                format_args!("{list}[{index}].{field}"),
                format_args!("\"{value}\" is there twice"),
                "rename one",
            );
        }
    }
}

fn endpoints(raw: &raw::Ingester, faults: &mut Faults) -> HashMap<EndpointId, Arc<Endpoint>> {
    let known: HashSet<&str> = raw.egresses.iter().map(|peer| peer.name.as_str()).collect();
    let declared: HashSet<&str> = raw.endpoints.iter().map(|endpoint| endpoint.id.as_str()).collect();
    let mut routes: HashMap<&str, Vec<Route>> = HashMap::new();
    for (index, flow) in raw.flows.iter().enumerate() {
        let key = format!("ingester.flows[{index}]");
        if !declared.contains(flow.endpoint.as_str()) {
            faults.push(
                format_args!("{key}.endpoint"),
                format_args!("no endpoint {}", flow.endpoint),
                "declare it",
            );
        }
        if !known.contains(flow.egress.as_str()) {
            faults.push(
                format_args!("{key}.egress"),
                format_args!("no egress \"{}\"", flow.egress),
                "declare it",
            );
        }
        faults.bound(format_args!("{key}.targets (count)"), flow.targets.len(), 1, FLOW_TARGETS_MAX);
        for target in &flow.targets {
            faults.name(format_args!("{key}.targets"), target);
        }
        let routes = routes.entry(&flow.endpoint).or_default();
        if routes.iter().any(|route| route.egress == flow.egress) {
            faults.push(
                &key,
                "a second flow of this endpoint to this egress",
                "put all its targets in one flow",
            );
        }
        routes.push(Route { egress: flow.egress.clone(), targets: flow.targets.clone() });
    }
    faults.bound("ingester.endpoints (count)", raw.endpoints.len(), 0, ENDPOINTS_MAX);
    unique("ingester.endpoints", "id", raw.endpoints.iter().map(|endpoint| endpoint.id.as_str()), faults);
    let mut endpoints = HashMap::new();
    for (index, section) in raw.endpoints.iter().enumerate() {
        let key = format!("ingester.endpoints[{index}]");
        let routes = routes.remove(section.id.as_str()).unwrap_or_default();
        if routes.is_empty() {
            faults.push(&key, "no flow leads anywhere", "add a [[ingester.flows]] for it");
        }
        if let Some(endpoint) = endpoint(&key, section, routes, faults) {
            endpoints.insert(endpoint.id, Arc::new(endpoint));
        }
    }
    endpoints
}

fn endpoint(key: &str, raw: &raw::Endpoint, routes: Vec<Route>, faults: &mut Faults) -> Option<Endpoint> {
    faults.name(format_args!("{key}.tenant"), &raw.tenant);
    faults.bound(format_args!("{key}.body_bytes_max"), raw.body_bytes_max, 1, BODY_BYTES_MAX as u64);
    let mut forward_headers: Vec<String> =
        raw.forward_headers.iter().map(|name| name.to_ascii_lowercase()).collect();
    forward_headers.sort_unstable();
    forward_headers.dedup();
    for name in &forward_headers {
        if !is_forwarded_name(name) {
            faults.push(
                format_args!("{key}.forward_headers"),
                format_args!("\"{name}\" belongs to the connection, a proxy or the delivery"),
                "remove it",
            );
        }
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !plain || !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            faults.push(
                format_args!("{key}.forward_headers"),
                format_args!("\"{name}\" is not a header name"),
                "use letters, digits, - and _",
            );
        }
    }
    let scheme = scheme(key, raw, faults);
    let id = faults.parse(
        format_args!("{key}.id"),
        &raw.id,
        "give 32 lower-case hex digits, e.g. of openssl rand -hex 16",
    )?;
    Some(Endpoint {
        id,
        tenant: raw.tenant.clone(),
        scheme: scheme?,
        content_types: raw.content_types.iter().map(|media| media.to_ascii_lowercase()).collect(),
        body_bytes_max: raw.body_bytes_max as usize,
        forward_headers,
        routes,
    })
}

fn scheme(key: &str, raw: &raw::Endpoint, faults: &mut Faults) -> Option<Scheme> {
    let secret_key = format!("{key}.secret_files");
    let secrets: Vec<_> =
        raw.secret_files.iter().filter_map(|file| faults.secret(&secret_key, file)).collect();
    if secrets.len() < raw.secret_files.len() {
        return None;
    }
    let bytes: Vec<Vec<u8>> = secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect();
    let built = match (raw.scheme, &raw.hmac) {
        (SchemeName::Github, None) => Scheme::github(&bytes),
        (SchemeName::StandardWebhooks, None) => {
            Scheme::standard_webhooks(&secrets.iter().map(|secret| secret.to_string()).collect::<Vec<_>>())
        }
        (SchemeName::Hmac, Some(hmac)) => Scheme::hmac(hmac_settings(hmac), &bytes),
        (SchemeName::Hmac, None) => {
            faults.push(
                format_args!("{key}.hmac"),
                "is missing",
                "the scheme hmac needs at least its header",
            );
            return None;
        }
        (_, Some(_)) => {
            faults.push(format_args!("{key}.hmac"), "does not belong to this scheme", "remove it");
            return None;
        }
    };
    built.map_err(|error| faults.push(&secret_key, error, "see docs/configuration.md, endpoints")).ok()
}

fn hmac_settings(raw: &raw::Hmac) -> HmacSettings {
    HmacSettings {
        algorithm: match raw.algorithm {
            raw::HmacAlgorithm::Sha256 => HashAlgorithm::Sha256,
            raw::HmacAlgorithm::Sha512 => HashAlgorithm::Sha512,
        },
        header: raw.header.to_ascii_lowercase(),
        encoding: match raw.encoding {
            raw::Encoding::Hex => verify::Encoding::Hex,
            raw::Encoding::Base64 => verify::Encoding::Base64,
        },
        prefix: raw.prefix.clone(),
        source_id_header: raw.source_id_header.as_ref().map(|name| name.to_ascii_lowercase()),
        timestamp: None,
    }
}

fn egress(raw: &raw::Egress, certificates: &Certificates, faults: &mut Faults) -> Option<EgressSettings> {
    faults.bound("egress.events_max", raw.events_max, 1_000, 100_000_000);
    faults.bound("egress.dead_letters_max", raw.dead_letters_max, 0, 10_000_000);
    faults.bound("egress.cached_bytes_max", raw.cached_bytes_max, 2 << 20, 64 << 30);
    let listen = link_listen("egress", raw.link_listen.as_ref(), faults);
    let mut ingesters = Vec::new();
    let mut patterns = Vec::new();
    for (index, peer) in raw.ingesters.iter().enumerate() {
        let key = format!("egress.ingesters[{index}]");
        ingesters.extend(ingester_peer(&key, peer, listen.is_some(), certificates, faults));
        patterns.extend(peer.spiffe_ids.iter().filter_map(|id| id.parse::<SpiffePattern>().ok()));
    }
    unique("egress.ingesters", "name", raw.ingesters.iter().map(|peer| peer.name.as_str()), faults);
    unique("egress.targets", "name", raw.targets.iter().map(|target| target.name.as_str()), faults);
    let mut targets = BTreeMap::new();
    for (index, section) in raw.targets.iter().enumerate() {
        let key = format!("egress.targets[{index}]");
        if let Some(target) = target(&key, section, certificates, faults) {
            targets.insert(target.name.clone(), Arc::new(target));
        }
    }
    let link_tls = link_server(certificates, Policy::new(patterns, Vec::new()), "egress.ingesters", faults)?;
    Some(EgressSettings {
        link_listen: listen,
        events_max: raw.events_max,
        dead_letters_max: raw.dead_letters_max,
        cached_bytes_max: raw.cached_bytes_max as usize,
        ingesters,
        targets,
        link_tls,
    })
}

fn ingester_peer(
    key: &str,
    raw: &raw::IngesterPeer,
    listens: bool,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<IngesterPeer> {
    faults.name(format_args!("{key}.name"), &raw.name);
    let policy = faults.policy(format_args!("{key}.spiffe_ids"), &raw.spiffe_ids);
    let dials = raw.direction == Direction::EgressDials;
    let address = faults.dial_address(key, dials, listens, raw.address.as_ref());
    faults.bound(format_args!("{key}.keys (count)"), raw.keys.len(), 1, 4);
    let mut keys = Vec::new();
    for (index, entry) in raw.keys.iter().enumerate() {
        faults.name(format_args!("{key}.keys[{index}].id"), &entry.id);
        let prepared = faults.key(format_args!("{key}.keys[{index}].file"), &entry.file);
        keys.extend(prepared.map(|prepared| (entry.id.clone(), prepared)));
    }
    let tls = link_client(certificates, &policy, key, faults)?;
    Some(IngesterPeer {
        name: raw.name.clone(),
        direction: raw.direction,
        address,
        policy: Arc::new(policy),
        keys,
        tls,
    })
}

fn target(key: &str, raw: &raw::Target, certificates: &Certificates, faults: &mut Faults) -> Option<Target> {
    faults.name(format_args!("{key}.name"), &raw.name);
    faults.name(format_args!("{key}.key_id"), &raw.key_id);
    faults.bound(format_args!("{key}.in_flight_max"), raw.in_flight_max, 1, 10_000);
    faults.bound(format_args!("{key}.queue_max"), raw.queue_max, 1, 10_000_000);
    faults.bound(format_args!("{key}.attempt_timeout_ms"), raw.attempt_timeout_ms, 100, 600_000);
    faults.bound(format_args!("{key}.retry_schedule_ms (count)"), raw.retry_schedule_ms.len(), 0, 32);
    faults.bound(format_args!("{key}.retry_jitter_percent"), raw.retry_jitter_percent, 0, 100);
    let tls = target_tls(key, raw, certificates, faults);
    let (address, path) = target_url(&format!("{key}.url"), &raw.url, faults)?;
    let server_name = server_name_of(&format!("{key}.url"), &address.host, faults);
    let mut secrets = vec![faults.whsec(format_args!("{key}.secret_file"), &raw.secret_file)?];
    if let Some(previous) = &raw.previous_secret_file {
        secrets.push(faults.whsec(format_args!("{key}.previous_secret_file"), previous)?);
    }
    let config = SignerConfig {
        target: &raw.name,
        host: &host_header(&address),
        path: &path,
        key_id: &raw.key_id,
        secrets: &secrets,
    };
    let signer = TargetSigner::new(&NodeCrypto, &config)
        .map_err(|error| faults.push(key, error, "see docs/configuration.md, targets"))
        .ok();
    let limits = TargetLimits {
        in_flight_max: raw.in_flight_max,
        queue_max: raw.queue_max,
        retry_schedule_ms: raw.retry_schedule_ms.clone(),
        retry_jitter_percent: raw.retry_jitter_percent,
        attempt_timeout_ms: raw.attempt_timeout_ms,
        ..TargetLimits::default()
    };
    Some(Target {
        name: raw.name.clone(),
        address,
        server_name: server_name?,
        signer: signer?,
        limits,
        tls: tls?,
        client_certificate: raw.client_certificate,
    })
}

fn target_tls(
    key: &str,
    raw: &raw::Target,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<ClientTls> {
    let roots = match (&raw.ca_file, raw.spiffe_ids.is_empty()) {
        (Some(_), false) => {
            faults.push(
                key,
                "has both ca_file and spiffe_ids",
                "keep one: they are two ways to know the target",
            );
            return None;
        }
        (None, false) => {
            let policy = faults.policy(format_args!("{key}.spiffe_ids"), &raw.spiffe_ids);
            TargetRoots::Spiffe { store: Arc::clone(&certificates.svid), policy: SharedPolicy::new(policy) }
        }
        (None, true) => TargetRoots::System,
        (Some(file), true) => match std::fs::read(faults.resolve(file)) {
            Ok(pem) => TargetRoots::Pem(pem),
            Err(error) => {
                faults.push(
                    format_args!("{key}.ca_file"),
                    format_args!("{file}: {error}"),
                    "give a PEM file",
                );
                return None;
            }
        },
    };
    let client =
        (raw.client_certificate == ClientCertificate::Present).then(|| Arc::clone(&certificates.svid));
    zen_identity::target_client_config(roots, client)
        .map_err(|error| faults.push(key, error, "check ca_file, or the system's CA store"))
        .ok()
}

fn target_url(key: &str, url: &str, faults: &mut Faults) -> Option<(HostPort, String)> {
    let Some(rest) = url.strip_prefix("https://") else {
        faults.push(
            key,
            format_args!("\"{url}\" is not https"),
            "targets are reached over TLS: give https://host[:port]/path",
        );
        return None;
    };
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let path = if path.is_empty() { "/" } else { path };
    if path.bytes().any(|byte| !byte.is_ascii_graphic()) || path.contains('#') || authority.contains('@') {
        faults.push(
            key,
            format_args!("\"{url}\" holds what a request target may not"),
            "escape it, drop #fragment and user@",
        );
        return None;
    }
    let has_port = authority.rfind(':').is_some_and(|colon| !authority[colon..].contains(']'));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:443") };
    Some((faults.host_port(key, &address)?, path.to_owned()))
}

fn server_name_of(key: &str, host: &str, faults: &mut Faults) -> Option<ServerName<'static>> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Some(name),
        Err(error) => {
            faults.push(key, format_args!("\"{host}\": {error}"), "give a DNS name or an IP address");
            None
        }
    }
}

fn host_header(address: &HostPort) -> String {
    let host = match address.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => address.host.clone(),
    };
    if address.port == 443 { host } else { format!("{host}:{}", address.port) }
}
