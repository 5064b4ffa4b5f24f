//! From what was written to a snapshot: every value checked, every fault collected with its remedy.

mod access;
mod ebpf;
mod egress;
mod faults;
mod ingester;
mod limits;
mod lockd;
mod policies;
mod reach;
mod routing;
mod targets;
mod tracing;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) use faults::Faults;
use tracing_subscriber::EnvFilter;
use zen_core::dedupe::{KeyHasher, WINDOW_MS_MAX};

use self::ebpf::ebpf;
use self::egress::egress;
use self::ingester::ingester;
use self::policies::PeerPolicy;
use self::reach::reach;
use self::tracing::tracing;
use super::memory::{MemoryBound, mib};
use super::raw::{self, Raw};
use super::settings::{IdempotencySettings, JournalSettings, NodeSettings, Settings};
use super::{Certificates, ConfigError, Located, Routing, Snapshot};
use crate::tls::{ClientTls, ServerTls};
use crate::trials::TrialPlace;

/// ALPN of the link protocol.
const LINK_ALPN: &[u8] = b"zen-link/1";

/// Most workers of a node.
const WORKERS_MAX: u16 = 64;
/// Links of a node that does not say how many, and most links of any.
const LINKS_MAX_LEAST: u32 = 8;
const LINKS_MAX: u32 = 4096;
/// Most segments of a journal.
const SEGMENTS_MAX: u64 = 1024;

/// Builds the snapshot or reports all faults.
pub(super) fn snapshot(
    located: &Located,
    mut raw: Raw,
    certificates: &Certificates,
    generation: u64,
) -> Result<Snapshot, ConfigError> {
    let mut faults = Faults::new(&located.file);
    faults.set_lockd(raw.lockd.as_ref());
    if located.managed.is_some() {
        outlives(&raw, &mut faults);
    }
    if let Some(socket) = &mut raw.admin.socket {
        *socket = faults.resolve(socket).display().to_string();
    }
    let node = node(&raw, located.managed, &mut faults);
    let journals =
        u64::from(node.workers) * (u64::from(raw.ingester.is_some()) + u64::from(raw.egress.is_some()));
    let journal = journal(&raw.journal, journals.max(1), &mut faults);
    if raw.ingester.is_none() && raw.egress.is_none() {
        faults.push("ingester, egress", "neither is there", "add [ingester], [egress] or both");
    }
    let tracing = tracing(&raw.tracing, &mut faults);
    let ingester =
        raw.ingester.as_ref().and_then(|section| ingester(section, node.workers, certificates, &mut faults));
    let egress = raw.egress.as_ref().and_then(|section| {
        egress(section, (node.workers, &node.data_dir), journal.segment_bytes, certificates, &mut faults)
    });
    let reach = reach(ingester.as_ref(), egress.as_ref(), &tracing, &mut faults);
    let ebpf = ebpf(&raw.ebpf, &reach, node.pin_workers, &mut faults);
    if faults.found.is_empty() {
        let settings = Settings {
            node: &node,
            journal,
            tracing: &tracing,
            ingester: ingester.as_ref(),
            egress: egress.as_ref(),
            reach: &reach,
        };
        memory(&settings, &mut faults);
    }
    if !faults.found.is_empty() {
        return Err(ConfigError::Faults(faults.found));
    }
    let (managed, svid) = (located.managed, Arc::clone(&certificates.svid));
    Ok(Snapshot { generation, managed, svid, raw, node, journal, tracing, ingester, egress, reach, ebpf })
}

/// The flows of one endpoint alone.
pub(super) fn routing_of(file: &Path, raw: &Raw, endpoint: &str) -> Result<Routing, ConfigError> {
    let mut faults = Faults::new(file);
    let section = raw.ingester.as_ref();
    let found = section
        .and_then(|section| section.endpoints.iter().enumerate().find(|(_, found)| found.id == endpoint));
    let routing = match (section, found) {
        (Some(section), Some((index, found))) => {
            let written = routing::flows(section, &mut faults).remove(endpoint);
            routing::routing(&format!("ingester.endpoints[{index}]"), found, written, &mut faults)
        }
        _ => {
            faults.push("ingester.endpoints", format_args!("no endpoint {endpoint}"), "give the id of one");
            None
        }
    };
    routing.filter(|_| faults.found.is_empty()).ok_or(ConfigError::Faults(faults.found))
}

/// What stays when a generation goes is not in its directory.
fn outlives(raw: &Raw, faults: &mut Faults) {
    let lockd = raw.lockd.as_ref().map(|lockd| &lockd.socket);
    for (key, place) in [
        ("node.data_dir", Some(&raw.node.data_dir)),
        ("admin.socket", raw.admin.socket.as_ref()),
        ("lockd.socket", lockd),
    ] {
        if let Some(place) = place.filter(|place| Path::new(place).is_relative()) {
            let problem = format_args!("{place} would be in the directory of a generation, which goes");
            faults.push(key, problem, "give an absolute path");
        }
    }
}

/// Refuses what could use more memory than it may, with the largest items.
fn memory(settings: &Settings<'_>, faults: &mut Faults) {
    let bound = MemoryBound::of(settings);
    let max = settings.node.memory_bytes_max;
    if bound.total() <= max {
        return;
    }
    let largest: Vec<String> = bound.largest().take(3).map(ToString::to_string).collect();
    faults.push(
        "node.memory_bytes_max",
        format_args!("{} MiB may be used, {} MiB are allowed", mib(bound.total()), max >> 20),
        format_args!("lower what takes most ({}), node.workers, or raise it", largest.join("; ")),
    );
}

/// One worker's share of a bound of the node.
fn share(total: u64, workers: u16, least: u64) -> usize {
    (total / u64::from(workers)).max(least) as usize
}

fn node(raw: &Raw, managed: Option<u64>, faults: &mut Faults) -> NodeSettings {
    faults.name("node.name", &raw.node.name);
    faults.bound("node.workers", raw.node.workers, 0, WORKERS_MAX);
    faults.bound("node.drain_timeout_ms", raw.node.drain_timeout_ms, 100, 600_000);
    faults.bound("node.reload_poll_ms", raw.node.reload_poll_ms, 100, 3_600_000);
    faults.bound("node.link_pause_ms_max", raw.node.link_pause_ms_max, 100, 600_000);
    faults.bound("node.memory_bytes_max", raw.node.memory_bytes_max, 64 << 20, 1 << 40);
    let log = &raw.node.log;
    let _ = faults.parse::<EnvFilter>("node.log", log, "give error, warn, info, debug or trace");
    if let Some(listen) = &raw.admin.listen {
        let address = faults.parse::<SocketAddr>("admin.listen", listen, "give an address and a port");
        if address.is_some_and(|address| !address.ip().is_loopback()) {
            faults.push("admin.listen", format_args!("{listen} is not loopback"), "use 127.0.0.1 or [::1]");
        }
    }
    let cores = zen_uring::online_cores().len().max(1) as u16;
    let workers = if raw.node.workers == 0 { cores.min(WORKERS_MAX) } else { raw.node.workers };
    NodeSettings {
        name: raw.node.name.clone(),
        workers,
        pin_workers: raw.node.pin_workers,
        data_dir: faults.resolve(&raw.node.data_dir),
        drain_timeout_ms: raw.node.drain_timeout_ms,
        reload_poll_ms: raw.node.reload_poll_ms,
        deny_list_file: raw.identity.deny_list_file.as_ref().map(|file| faults.resolve(file)),
        deny_list_age_max: deny_list_age_max(&raw.identity, managed, faults),
        deny_list_fail_closed: raw.identity.deny_list_fail_closed,
        links_max: links_max(raw, workers, faults),
        link_pause_ms_max: raw.node.link_pause_ms_max,
        memory_bytes_max: raw.node.memory_bytes_max,
        drop_capabilities: raw.node.drop_capabilities,
        seccomp: raw.node.seccomp,
        hasher: raw.node.hash_key_file.as_ref().and_then(|place| hasher(place, faults)),
    }
}

/// An agent confirms the list of a managed node; elsewhere somebody has to say that it is confirmed at all.
const DENY_LIST_AGE_MAX: Duration = Duration::from_mins(15);

fn deny_list_age_max(raw: &raw::Identity, managed: Option<u64>, faults: &mut Faults) -> Option<Duration> {
    if let Some(age_ms) = raw.deny_list_age_ms_max {
        faults.bound("identity.deny_list_age_ms_max", age_ms, 60_000, 7 * 86_400_000);
    }
    let age_max = raw.deny_list_age_ms_max.map(Duration::from_millis);
    let age_max = age_max.or(managed.map(|_| DENY_LIST_AGE_MAX));
    if raw.deny_list_fail_closed && (raw.deny_list_file.is_none() || age_max.is_none()) {
        let remedy = "give deny_list_file, and deny_list_age_ms_max where no agent manages the node";
        faults.push("identity.deny_list_fail_closed", "has no list whose age counts", remedy);
    }
    age_max.filter(|_| raw.deny_list_file.is_some())
}

/// Of 16 bytes in hex, as they are written to be read by people.
fn hasher(place: &str, faults: &mut Faults) -> Option<KeyHasher> {
    let (key, remedy) = ("node.hash_key_file", "write 32 hex digits, e.g. of openssl rand -hex 16");
    let text = faults.secret(key, place)?;
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hash_key = u128::from_str_radix(&text, 16).ok().filter(|_| is_hex);
    if hash_key.is_none() {
        faults.push(key, format_args!("{place} does not hold 16 bytes in hex"), remedy);
    }
    hash_key.map(|hash_key| KeyHasher::new(hash_key.to_be_bytes()))
}

/// Each of our workers sends to each egress; an ingester has a worker at least, which sends to us.
fn links_max(raw: &Raw, workers: u16, faults: &mut Faults) -> u32 {
    let egresses = raw.ingester.as_ref().map_or(0, |section| section.egresses.len());
    let ingesters = raw.egress.as_ref().map_or(0, |section| section.ingesters.len());
    let needed = (egresses * usize::from(workers) + ingesters) as u32;
    let Some(links_max) = raw.node.links_max else {
        return LINKS_MAX_LEAST.max((egresses + ingesters) as u32 * u32::from(workers));
    };
    faults.bound("node.links_max", links_max, 1, LINKS_MAX);
    if links_max < needed {
        faults.push(
            "node.links_max",
            format_args!(
                "{links_max} is not enough for {egresses} egresses, {workers} workers, {ingesters} ingesters"
            ),
            format_args!("give {needed} at least, or leave it out"),
        );
    }
    links_max
}

fn journal(raw: &raw::Journal, journals: u64, faults: &mut Faults) -> JournalSettings {
    faults.bound("journal.commit_bytes_max", raw.commit_bytes_max, 2 << 20, 16 << 20);
    faults.bound("journal.segment_bytes", raw.segment_bytes, 4 << 20, 1 << 30);
    faults.bound("journal.bytes_max", raw.bytes_max, 4 * raw.segment_bytes, SEGMENTS_MAX * raw.segment_bytes);
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
        recent_bytes_max: (raw.recent_bytes_max / journals).max(1 << 20) as usize,
        on_damage: raw.on_damage,
    }
}

/// Most keys of a node: 39 GB.
const KEYS_MAX: u32 = 1_000_000_000;

fn idempotency(section: &str, raw: raw::IdempotencyTable, faults: &mut Faults) -> IdempotencySettings {
    faults.bound(format_args!("{section}.idempotency.keys_max"), raw.keys_max, 1_000, KEYS_MAX);
    faults.bound(format_args!("{section}.idempotency.window_ms"), raw.window_ms, 1_000, WINDOW_MS_MAX);
    IdempotencySettings { keys_max: raw.keys_max, window_ms: raw.window_ms }
}

fn link_server(
    certificates: &Certificates,
    peers: &[PeerPolicy],
    key: &str,
    faults: &mut Faults,
) -> Option<ServerTls> {
    let policy = PeerPolicy::share(peers, (TrialPlace::Listener, key), &certificates.trials);
    certificates
        .svid
        .server_config(policy, &[LINK_ALPN])
        .map_err(|error| faults.push(key, error, "check the files under [identity]"))
        .ok()
}

fn link_client(
    certificates: &Certificates,
    (policy, name): (&PeerPolicy, &str),
    key: &str,
    faults: &mut Faults,
) -> Option<ClientTls> {
    let policy =
        PeerPolicy::share(std::slice::from_ref(policy), (TrialPlace::Link, name), &certificates.trials);
    certificates
        .svid
        .client_config(policy, &[LINK_ALPN])
        .map_err(|error| faults.push(key, error, "check the files under [identity]"))
        .ok()
}

fn link_listen(section: &str, listen: Option<&String>, faults: &mut Faults) -> Option<SocketAddr> {
    let key = format!("{section}.link_listen");
    listen.and_then(|listen| faults.parse(&key, listen, "give an address and a port"))
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
