//! From what was written to a snapshot: every value checked, every fault collected with its remedy.

mod egress;
mod faults;
mod ingester;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

pub(super) use faults::Faults;
use tracing_subscriber::EnvFilter;
use zen_identity::{Policy, SharedPolicy};

use self::egress::egress;
use self::ingester::ingester;
use super::raw::{self, Raw};
use super::settings::{JournalSettings, NodeSettings};
use super::{Certificates, ConfigError, Snapshot};
use crate::tls::{ClientTls, ServerTls};

/// ALPN of the link protocol.
const LINK_ALPN: &[u8] = b"zen-link/1";

/// Builds the snapshot or reports all faults.
pub(super) fn snapshot(
    file: &Path,
    mut raw: Raw,
    certificates: &Certificates,
    generation: u64,
) -> Result<Snapshot, ConfigError> {
    let mut faults = Faults::new(file);
    if let Some(socket) = &mut raw.admin.socket {
        *socket = faults.resolve(socket).display().to_string();
    }
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
    let log = &raw.node.log;
    let _ = faults.parse::<EnvFilter>("node.log", log, "give error, warn, info, debug or trace");
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
