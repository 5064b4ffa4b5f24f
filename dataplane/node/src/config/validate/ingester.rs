//! The `[ingester]` section: listeners, endpoints, flows, egresses.

use std::collections::HashMap;
use std::sync::Arc;

use zen_core::access::NetworkRules;
use zen_core::crypto::{HashAlgorithm, Mac as _};
use zen_core::dedupe::KeySource;
use zen_core::envelope::is_forwarded_name;
use zen_core::event::BODY_BYTES_MAX;
use zen_core::id::EndpointId;
use zen_core::verify::{
    self, Authentication, Authorization, AuthorizationKind, CertificateRule, HEADER_NAME_BYTES_MAX,
    HmacSettings, Scheme,
};
use zeroize::Zeroizing;

use super::access;
use super::faults::Faults;
use super::policies::PeerPolicy;
use super::{idempotency, link_client, link_listen, link_server, routing, share, unique};
use crate::config::raw::{self, Direction, IdempotencyKey, SchemeName};
use crate::config::settings::{
    ClientCertificates, EgressPeer, Endpoint, IngesterSettings, SourceCertificates,
};
use crate::config::{Certificates, Routing};
use crate::crypto::NodeCrypto;
use crate::tls::ServerTls;

/// Endpoints in one configuration.
const ENDPOINTS_MAX: usize = 10_000;
/// Most sources whose rates are remembered.
const RATE_SOURCES_MAX: u32 = 10_000_000;

pub(super) fn ingester(
    raw: &raw::Ingester,
    workers: u16,
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
    let mut policies = Vec::new();
    for (index, peer) in raw.egresses.iter().enumerate() {
        let key = format!("ingester.egresses[{index}]");
        let allowed = (&*peer.spiffe_ids, &*peer.deny_spiffe_ids);
        policies.push(PeerPolicy::read(&key, allowed, peer.dry_run.as_ref(), faults));
        let policy = &policies[index];
        egresses.extend(egress_peer(&key, (peer, policy), listen_link.is_some(), certificates, faults));
    }
    unique("ingester.egresses", "name", raw.egresses.iter().map(|peer| peer.name.as_str()), faults);
    faults.bound("ingester.rate_sources_max", raw.rate_sources_max, 1_000, RATE_SOURCES_MAX);
    let lists = access::lists(&raw.networks, faults);
    let proxies = access::proxies(raw.proxies.as_ref(), faults).map(Arc::new);
    let endpoints = endpoints(raw, &lists, faults);
    let idempotency = idempotency("ingester", raw.idempotency, faults);
    let link_tls = link_server(certificates, &policies, "ingester.egresses", faults)?;
    let Some(public) = certificates.public.as_ref() else {
        faults.push("ingester", "was not there when the node started", "restart the node");
        return None;
    };
    let public_tls = public_tls(raw, Arc::clone(public), faults)?;
    Some(IngesterSettings {
        listen,
        link_listen: listen_link,
        connections_max: raw.connections_max,
        idle_timeout_ms: raw.idle_timeout_ms,
        request_timeout_ms: raw.request_timeout_ms,
        body_memory_bytes_max: share(raw.body_memory_bytes_max, workers, 4 << 20),
        rate_sources_max: raw.rate_sources_max,
        network_bytes: network_bytes(&lists, &endpoints),
        client_certificates: match raw.client_ca_file {
            Some(_) => ClientCertificates::Asked,
            None => ClientCertificates::NotAsked,
        },
        proxies,
        idempotency,
        endpoints,
        egresses,
        public_tls,
        link_tls,
    })
}

fn public_tls(
    raw: &raw::Ingester,
    certificate: Arc<zen_identity::ReloadingCertificate>,
    faults: &mut Faults,
) -> Option<ServerTls> {
    let key = "ingester.client_ca_file";
    let roots = raw.client_ca_file.as_ref().map(|file| {
        let path = faults.resolve(file);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    });
    let made = match roots.transpose() {
        Ok(roots) => zen_identity::public_server_config(certificate, roots.as_deref())
            .map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    made.map_err(|error| faults.push(key, error, "give a PEM file of the sources' CAs")).ok()
}

/// What named lists and the endpoints' own networks hold; a named list counts once.
fn network_bytes(lists: &access::Lists, endpoints: &HashMap<EndpointId, Arc<Endpoint>>) -> usize {
    let named: usize = lists.values().map(|list| list.set.memory_bytes()).sum();
    let own =
        endpoints.values().flat_map(|endpoint| endpoint.networks.allow.iter().chain(&endpoint.networks.deny));
    let own = own.filter(|list| Arc::strong_count(&list.set) == 1);
    named + own.map(|list| list.set.memory_bytes()).sum::<usize>()
}

fn egress_peer(
    key: &str,
    (raw, policy): (&raw::EgressPeer, &PeerPolicy),
    listens: bool,
    certificates: &Certificates,
    faults: &mut Faults,
) -> Option<EgressPeer> {
    faults.name(format_args!("{key}.name"), &raw.name);
    faults.name(format_args!("{key}.key_id"), &raw.key_id);
    let dials = raw.direction == Direction::IngesterDials;
    let address = faults.dial_address(key, dials, listens, raw.address.as_ref());
    let prepared = faults.key(format_args!("{key}.key_file"), &raw.key_file)?;
    let tls = link_client(certificates, (policy, &raw.name), key, faults)?;
    Some(EgressPeer {
        name: raw.name.clone(),
        direction: raw.direction,
        address,
        policy: Arc::new(policy.in_force.clone()),
        key_id: raw.key_id.clone(),
        key: prepared,
        tls,
    })
}

fn endpoints(
    raw: &raw::Ingester,
    lists: &access::Lists,
    faults: &mut Faults,
) -> HashMap<EndpointId, Arc<Endpoint>> {
    let mut flows = routing::flows(raw, faults);
    faults.bound("ingester.endpoints (count)", raw.endpoints.len(), 0, ENDPOINTS_MAX);
    unique("ingester.endpoints", "id", raw.endpoints.iter().map(|endpoint| endpoint.id.as_str()), faults);
    let mut endpoints = HashMap::new();
    for (index, section) in raw.endpoints.iter().enumerate() {
        let key = format!("ingester.endpoints[{index}]");
        let routing = routing::routing(&key, section, flows.remove(section.id.as_str()), faults);
        let rules = access::rules(&key, &section.networks, lists, faults);
        let certificates = section.client_certificate.as_ref();
        let certificates = certificates
            .map(|section| access::certificates(&key, section, raw.client_ca_file.as_ref(), faults));
        if let Some(endpoint) = endpoint(&key, section, (routing, rules, certificates), faults) {
            endpoints.insert(endpoint.id, Arc::new(endpoint));
        }
    }
    endpoints
}

fn endpoint(
    key: &str,
    raw: &raw::Endpoint,
    (routing, networks, certificates): (Option<Routing>, NetworkRules, Option<SourceCertificates>),
    faults: &mut Faults,
) -> Option<Endpoint> {
    faults.name(format_args!("{key}.tenant"), &raw.tenant);
    faults.bound(format_args!("{key}.body_bytes_max"), raw.body_bytes_max, 1, BODY_BYTES_MAX as u64);
    faults.bound(format_args!("{key}.hops_max"), raw.hops_max, 0, u8::MAX - 1);
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
    let authentication = authentication(key, raw, faults);
    let header_rules = access::header_rules(key, &raw.headers, faults);
    let rates = access::rates(key, raw.rates, faults);
    let key_source = key_source(&format!("{key}.idempotency"), raw, faults);
    let id = faults.parse(
        format_args!("{key}.id"),
        &raw.id,
        "give 32 lower-case hex digits, e.g. of openssl rand -hex 16",
    )?;
    let authentication = authentication?;
    Some(Endpoint {
        id,
        name: raw.id.clone(),
        tenant: raw.tenant.clone(),
        held_keys: authentication.held_secrets().map(|secret| NodeCrypto.prepare(secret)).collect(),
        authentication,
        certificates,
        networks,
        header_rules,
        rates,
        key_source,
        content_types: raw.content_types.iter().map(|media| media.to_ascii_lowercase()).collect(),
        body_bytes_max: raw.body_bytes_max as usize,
        hops_max: raw.hops_max,
        forward_headers,
        routing: routing?,
    })
}

/// What was written, whole or not at all: a proof that is left out for a fault must not leave the others.
fn authentication(key: &str, raw: &raw::Endpoint, faults: &mut Faults) -> Option<Authentication> {
    let signature = match raw.scheme {
        SchemeName::None => no_scheme(key, raw, faults).map(|()| None),
        _ => scheme(key, raw, faults).map(Some),
    };
    let authorization = match &raw.authorization {
        Some(section) => authorization(key, section, faults).map(Some),
        None => Some(None),
    };
    let certificate = match raw.client_certificate {
        Some(_) => CertificateRule::Required,
        None => CertificateRule::NotAsked,
    };
    let remedy = "name a scheme, an authorization or a client_certificate";
    Authentication::new(certificate, authorization?, signature?)
        .map_err(|error| faults.push(key, error, remedy))
        .ok()
}

fn no_scheme(key: &str, raw: &raw::Endpoint, faults: &mut Faults) -> Option<()> {
    if raw.secret_files.is_empty() && raw.hmac.is_none() {
        return Some(());
    }
    faults.push(format_args!("{key}.scheme"), "none has no secret_files and no hmac", "remove them");
    None
}

fn authorization(key: &str, raw: &raw::Authorization, faults: &mut Faults) -> Option<Authorization> {
    let key = format!("{key}.authorization.secret_files");
    let secrets = secrets(&key, &raw.secret_files, faults)?;
    let kind = match raw.kind {
        raw::AuthorizationKind::Bearer => AuthorizationKind::Bearer,
        raw::AuthorizationKind::Basic => AuthorizationKind::Basic,
    };
    let bytes: Vec<Vec<u8>> = secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect();
    let made = Authorization::new(kind, &bytes);
    made.map_err(|error| faults.push(&key, error, "write a token, or user:password, to each file")).ok()
}

/// All of them or none.
fn secrets(key: &str, files: &[String], faults: &mut Faults) -> Option<Vec<Zeroizing<String>>> {
    let secrets: Vec<_> = files.iter().filter_map(|file| faults.secret(key, file)).collect();
    (secrets.len() == files.len()).then_some(secrets)
}

fn scheme(key: &str, raw: &raw::Endpoint, faults: &mut Faults) -> Option<Scheme> {
    let secret_key = format!("{key}.secret_files");
    let secrets = secrets(&secret_key, &raw.secret_files, faults)?;
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
        (SchemeName::None, _) => return None,
        (_, Some(_)) => {
            faults.push(format_args!("{key}.hmac"), "does not belong to this scheme", "remove it");
            return None;
        }
    };
    built.map_err(|error| faults.push(&secret_key, error, "see docs/configuration.md, endpoints")).ok()
}

/// What the endpoint's events are known by; a scheme without an id has none.
fn key_source(key: &str, raw: &raw::Endpoint, faults: &mut Faults) -> Option<KeySource> {
    let section = &raw.idempotency;
    if section.json_path.is_some() && section.key != IdempotencyKey::Json {
        faults.push(format_args!("{key}.json_path"), "is given, but key is not json", "remove one");
    }
    match section.key {
        IdempotencyKey::Scheme => {
            let has_id = raw.hmac.as_ref().is_none_or(|hmac| hmac.source_id_header.is_some());
            (has_id && raw.scheme != SchemeName::None).then_some(KeySource::Scheme)
        }
        IdempotencyKey::Header => {
            let name = section.header.to_ascii_lowercase();
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !plain || !(1..=HEADER_NAME_BYTES_MAX).contains(&name.len()) {
                let remedy = format_args!("use 1 to {HEADER_NAME_BYTES_MAX} letters, digits, - and _");
                faults.push(
                    format_args!("{key}.header"),
                    format_args!("\"{name}\" is not a header name"),
                    remedy,
                );
            }
            Some(KeySource::Header(name))
        }
        IdempotencyKey::Json => {
            let path = section.json_path.as_deref().unwrap_or_default();
            let path =
                faults.parse(format_args!("{key}.json_path"), path, "name the member, such as data.id")?;
            Some(KeySource::Json(path))
        }
        IdempotencyKey::Body => Some(KeySource::Body),
        IdempotencyKey::None => None,
    }
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
