//! The `[egress]` section: ingesters and targets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use zen_core::access::DestinationPolicy;
use zen_core::deliver::{OrderBy, SignerConfig, TargetSigner};
use zen_identity::TargetRoots;

use super::access::networks;
use super::faults::Faults;
use super::policies::PeerPolicy;
use super::reach::check_literal;
use super::{idempotency, limits, link_client, link_listen, link_server, share, targets, unique};
use crate::config::Certificates;
use crate::config::raw::{self, ClientCertificate, Direction};
use crate::config::settings::{
    Authorization, EgressSettings, HostPort, IngesterPeer, Output, Target, Transport,
};
use crate::crypto::NodeCrypto;
use crate::egress::EXCERPT_BYTES_MAX;
use crate::journal::RetentionLimits;
use crate::receipts::{Receipts, ReceiptsSettings};
use crate::tls::ClientTls;
use crate::trials::TrialPlace;

/// Deliveries that each worker may hold, however many workers share `events_max`.
const EVENTS_OF_WORKER_MIN: u32 = 1000;
/// Outputs in one configuration.
const OUTPUTS_MAX: usize = 1000;

pub(super) fn egress(
    raw: &raw::Egress,
    (workers, data_dir): (u16, &Path),
    segment_bytes: u64,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<EgressSettings> {
    faults.bound("egress.events_max", raw.events_max, 1_000, 100_000_000);
    faults.bound("egress.dead_letters_max", raw.dead_letters_max, 0, 10_000_000);
    faults.bound("egress.cached_bytes_max", raw.cached_bytes_max, 2 << 20, 64 << 30);
    faults.bound("egress.attempt_memory_bytes_max", raw.attempt_memory_bytes_max, 4 << 20, 64 << 30);
    faults.bound("egress.replay_per_second", raw.replay_per_second, 1, 1_000_000);
    let listen = link_listen("egress", raw.link_listen.as_ref(), faults);
    let mut ingesters = Vec::new();
    let mut policies = Vec::new();
    for (index, peer) in raw.ingesters.iter().enumerate() {
        let key = format!("egress.ingesters[{index}]");
        let allowed = (&*peer.spiffe_ids, &*peer.deny_spiffe_ids);
        policies.push(PeerPolicy::read(&key, allowed, peer.dry_run.as_ref(), faults));
        let policy = &policies[index];
        ingesters.extend(ingester_peer(&key, (peer, policy), listen.is_some(), certificates, faults));
    }
    unique("egress.ingesters", "name", raw.ingesters.iter().map(|peer| peer.name.as_str()), faults);
    unique("egress.targets", "name", raw.targets.iter().map(|target| target.name.as_str()), faults);
    let destinations = destinations(&raw.target_networks, faults);
    let mut targets = BTreeMap::new();
    for (index, section) in raw.targets.iter().enumerate() {
        let key = format!("egress.targets[{index}]");
        if let Some(target) = target(&key, section, certificates, faults) {
            check_literals(&key, &target, &destinations, faults);
            targets.insert(target.name.clone(), Arc::new(target));
        }
    }
    let outputs = outputs(raw, &targets, faults);
    let ordering = ordering(&targets, &outputs);
    let link_tls = link_server(certificates, &policies, "egress.ingesters", faults)?;
    Some(EgressSettings {
        link_listen: listen,
        events_max: (raw.events_max / u32::from(workers)).max(EVENTS_OF_WORKER_MIN),
        dead_letters_max: raw.dead_letters_max.div_ceil(u32::from(workers)),
        cached_bytes_max: share(raw.cached_bytes_max, workers, 2 << 20),
        attempt_memory_bytes_max: share(raw.attempt_memory_bytes_max, workers, 4 << 20),
        idempotency: idempotency("egress", raw.idempotency, faults),
        retention: retention(raw.retention, workers, segment_bytes, faults),
        replay_per_second: raw.replay_per_second.div_ceil(u32::from(workers)),
        receipts: receipts(&raw.receipts, data_dir, faults),
        ingesters,
        destinations,
        targets,
        outputs,
        ordering,
        link_tls,
    })
}

/// Where targets may be.
fn destinations(raw: &[String], faults: &mut Faults) -> DestinationPolicy {
    let key = "egress.target_networks";
    let networks = networks(key, raw, faults);
    DestinationPolicy::new(&networks).unwrap_or_else(|error| {
        faults.push(key, error, "merge networks");
        DestinationPolicy::new(&[]).expect("no networks are not too many")
    })
}

/// Where a target and its token server are, if they are addresses.
fn check_literals(key: &str, target: &Target, policy: &DestinationPolicy, faults: &mut Faults) {
    let remedy = "add its network to egress.target_networks, or name another host";
    check_literal(&format!("{key}.url"), policy, &target.address, remedy, faults);
    if let Some(Authorization::Tokens(source)) = &target.authorization {
        let key = format!("{key}.authorization.token_url");
        check_literal(&key, policy, &source.request.address, remedy, faults);
    }
}

/// An output's deliveries are ordered as its primary says.
fn ordering(
    targets: &BTreeMap<String, Arc<Target>>,
    outputs: &BTreeMap<String, Arc<Output>>,
) -> BTreeMap<String, OrderBy> {
    let of_targets = targets.iter().map(|(name, target)| (name, Some(target)));
    let of_outputs = outputs.iter().map(|(name, output)| (name, output.targets.first()));
    let queues = of_targets.chain(of_outputs);
    queues.filter_map(|(name, target)| Some((name.clone(), target?.order_by.clone()?))).collect()
}

/// Outputs over targets that are declared, under names that no target has.
fn outputs(
    raw: &raw::Egress,
    targets: &BTreeMap<String, Arc<Target>>,
    faults: &mut Faults,
) -> BTreeMap<String, Arc<Output>> {
    faults.bound("egress.outputs (count)", raw.outputs.len(), 0, OUTPUTS_MAX);
    unique("egress.outputs", "name", raw.outputs.iter().map(|output| output.name.as_str()), faults);
    // One with a fault of its own is declared all the same.
    let declared: BTreeSet<&str> = raw.targets.iter().map(|target| target.name.as_str()).collect();
    let mut outputs = BTreeMap::new();
    for (index, section) in raw.outputs.iter().enumerate() {
        let key = format!("egress.outputs[{index}]");
        faults.name(format_args!("{key}.name"), &section.name);
        if declared.contains(&*section.name) {
            faults.push(format_args!("{key}.name"), "a target has this name, too", "rename one");
        }
        let rules = match zen_rules::Output::compile(section) {
            Ok(rules) => rules,
            Err(error) => {
                faults.push(&key, error, "see docs/routing.md, outputs");
                continue;
            }
        };
        let known: Vec<Arc<Target>> = rules.targets().filter_map(|name| targets.get(name).cloned()).collect();
        for name in rules.targets().filter(|name| !declared.contains(name)) {
            faults.push(&key, format_args!("no target \"{name}\""), "declare it");
        }
        outputs.insert(section.name.clone(), Arc::new(Output { rules, targets: known }));
    }
    outputs
}

/// A line is never longer than the least of the segments.
fn receipts(raw: &raw::Receipts, data_dir: &Path, faults: &mut Faults) -> Option<Arc<Receipts>> {
    if raw.bytes_max == 0 {
        return None;
    }
    let raw::Receipts { bytes_max, on_full, digest_interval_s, digest_receipts_max, .. } = *raw;
    faults.bound("egress.receipts.bytes_max", bytes_max, 1 << 20, 1 << 40);
    faults.bound("egress.receipts.digest_interval_s", digest_interval_s, 10, 86_400);
    faults.bound("egress.receipts.digest_receipts_max", digest_receipts_max, 1, 100_000_000);
    let key = raw.key_file.as_ref().map(|place| faults.key("egress.receipts.key_file", place));
    let key = key.map_or(Some(None), |key| key.map(Some))?;
    let settings = ReceiptsSettings { bytes_max, on_full, digest_interval_s, digest_receipts_max };
    Some(Arc::new(Receipts::new(data_dir, settings, key)))
}

/// A worker keeps whole segments; a bound that is not 0 keeps one at least.
fn retention(raw: raw::Retention, workers: u16, segment_bytes: u64, faults: &mut Faults) -> RetentionLimits {
    faults.bound("egress.retention.bytes_max", raw.bytes_max, 0, 1 << 50);
    faults.bound("egress.retention.age_ms", raw.age_ms, 60_000, 10 * 365 * 86_400_000);
    let each = raw.bytes_max / u64::from(workers);
    let segments_max = each.div_ceil(segment_bytes.max(1)) as usize;
    RetentionLimits { segments_max, age_ms_max: raw.age_ms }
}

fn ingester_peer(
    key: &str,
    (raw, policy): (&raw::IngesterPeer, &PeerPolicy),
    listens: bool,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<IngesterPeer> {
    faults.name(format_args!("{key}.name"), &raw.name);
    let dials = raw.direction == Direction::EgressDials;
    let address = faults.dial_address(key, dials, listens, raw.address.as_ref());
    faults.bound(format_args!("{key}.keys (count)"), raw.keys.len(), 1, 4);
    let mut keys = Vec::new();
    for (index, entry) in raw.keys.iter().enumerate() {
        faults.name(format_args!("{key}.keys[{index}].id"), &entry.id);
        let prepared = faults.key(format_args!("{key}.keys[{index}].file"), &entry.file);
        keys.extend(prepared.map(|prepared| (entry.id.clone(), prepared)));
    }
    let tls = link_client(certificates, (policy, &raw.name), key, faults)?;
    Some(IngesterPeer {
        name: raw.name.clone(),
        direction: raw.direction,
        address,
        policy: Arc::new(policy.in_force.clone()),
        keys,
        tls,
    })
}

fn target(key: &str, raw: &raw::Target, certificates: &Certificates, faults: &mut Faults) -> Option<Target> {
    faults.name(format_args!("{key}.name"), &raw.name);
    faults.name(format_args!("{key}.key_id"), &raw.key_id);
    let limits = limits::limits(key, raw, faults);
    let key_of_excerpt = format!("{key}.answer_excerpt_bytes_max");
    faults.bound(key_of_excerpt, raw.answer_excerpt_bytes_max as usize, 0, EXCERPT_BYTES_MAX);
    let place = match &raw.unix_socket {
        Some(socket) => targets::unix(key, raw, socket, faults),
        None => https(key, raw, certificates, faults),
    };
    let TargetPlace { address, host, path, transport } = place?;
    let mut secrets = vec![faults.whsec(format_args!("{key}.secret_file"), &raw.secret_file)?];
    if let Some(previous) = &raw.previous_secret_file {
        secrets.push(faults.whsec(format_args!("{key}.previous_secret_file"), previous)?);
    }
    let config =
        SignerConfig { target: &raw.name, host: &host, path: &path, key_id: &raw.key_id, secrets: &secrets };
    let signer = TargetSigner::new(&NodeCrypto, &config)
        .map_err(|error| faults.push(key, error, "see docs/configuration.md, targets"))
        .ok();
    let section = raw.authorization.as_ref();
    let authorization = section.map(|section| targets::authorization(key, section, faults));
    let format = targets::format(key, raw, faults);
    let batch = targets::batch(key, raw, faults);
    Some(Target {
        name: raw.name.clone(),
        address,
        transport,
        signer: signer?,
        limits,
        deadline_ms: raw.deadline_ms,
        answer_excerpt_bytes_max: raw.answer_excerpt_bytes_max as usize,
        order_by: raw.order_by.as_ref().and_then(|order_by| limits::order_by(key, order_by, faults)),
        client_certificate: raw.client_certificate,
        format: format?,
        batch,
        authorization: match authorization {
            Some(authorization) => Some(authorization?),
            None => None,
        },
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
            let allowed = (&*raw.spiffe_ids, &*raw.deny_spiffe_ids);
            let policy = PeerPolicy::read(key, allowed, raw.dry_run.as_ref(), faults);
            let place = (TrialPlace::Target, &*raw.name);
            let policy = PeerPolicy::share(&[policy], place, &certificates.trials);
            TargetRoots::Spiffe { store: Arc::clone(&certificates.svid), policy }
        }
        (_, true) if !raw.deny_spiffe_ids.is_empty() || raw.dry_run.is_some() => {
            let remedy = "give spiffe_ids, or remove both: a name says who the target is";
            faults.push(key, "has deny_spiffe_ids or dry_run, and no spiffe_ids", remedy);
            return None;
        }
        (file, true) => TargetRoots::NotDenied {
            roots: Box::new(named_roots(key, file.as_deref(), faults)?),
            store: Arc::clone(&certificates.svid),
        },
    };
    let client =
        (raw.client_certificate == ClientCertificate::Present).then(|| Arc::clone(&certificates.svid));
    zen_identity::target_client_config(roots, client)
        .map_err(|error| faults.push(key, error, "check ca_file, or the system's CA store"))
        .ok()
}

/// CAs under which a name counts: those of a file, else the system's.
pub(super) fn named_roots(key: &str, ca_file: Option<&str>, faults: &mut Faults) -> Option<TargetRoots> {
    let Some(file) = ca_file else { return Some(TargetRoots::System) };
    match std::fs::read(faults.resolve(file)) {
        Ok(pem) => Some(TargetRoots::Pem(pem)),
        Err(error) => {
            let problem = format_args!("{file}: {error}");
            faults.push(format_args!("{key}.ca_file"), problem, "give a PEM file");
            None
        }
    }
}

/// Where requests go and how, with the `Host` that they name.
pub(super) struct TargetPlace {
    pub(super) address: HostPort,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) transport: Transport,
}

fn https(
    key: &str,
    raw: &raw::Target,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<TargetPlace> {
    let tls = target_tls(key, raw, certificates, faults);
    if raw.peer_uid.is_some() {
        faults.push(format_args!("{key}.peer_uid"), "does not belong to https", "remove it");
    }
    let url_key = format!("{key}.url");
    let Some(rest) = raw.url.strip_prefix("https://") else {
        faults.push(
            &url_key,
            format_args!("\"{}\" is not https", raw.url),
            "targets are reached over TLS: give https://host[:port]/path, or http:// with a unix_socket",
        );
        return None;
    };
    let (address, path) = target_url(&url_key, &raw.url, rest, 443, faults)?;
    let server_name = server_name_of(&url_key, &address.host, faults)?;
    let host = host_header(&address, 443);
    Some(TargetPlace { address, host, path, transport: Transport::Tls { tls: tls?, server_name } })
}

/// Host and path of `url`, whose scheme is not in `rest` any more.
pub(super) fn target_url(
    key: &str,
    url: &str,
    rest: &str,
    port: u16,
    faults: &mut Faults,
) -> Option<(HostPort, String)> {
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
    let address = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    Some((faults.host_port(key, &address)?, path.to_owned()))
}

pub(super) fn server_name_of(key: &str, host: &str, faults: &mut Faults) -> Option<ServerName<'static>> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Some(name),
        Err(error) => {
            faults.push(key, format_args!("\"{host}\": {error}"), "give a DNS name or an IP address");
            None
        }
    }
}

pub(super) fn host_header(address: &HostPort, default_port: u16) -> String {
    let host = match address.host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => address.host.clone(),
    };
    if address.port == default_port { host } else { format!("{host}:{}", address.port) }
}
