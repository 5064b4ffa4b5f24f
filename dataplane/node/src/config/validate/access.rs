//! Who may try, and how often: lists of networks, proxies, header rules, rates, certificates of sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use zen_core::access::{
    HEADER_RULES_MAX, HEADER_VALUE_BYTES_MAX, HEADER_VALUES_MAX, HeaderAction, HeaderRule, HeaderTest, Mode,
    Network, NetworkList, NetworkRules, NetworkSet, Rate,
};
use zen_core::verify::{HEADER_NAME_BYTES_MAX, is_header_name};
use zen_rules::Pattern;

use super::faults::Faults;
use crate::config::raw::{self, ListMode, ProxyProtocol};
use crate::config::settings::{ProxySettings, Rates, SourceCertificates};

/// Named lists of networks.
const LISTS_MAX: usize = 64;
/// Networks and names of lists in one rule of an endpoint.
const ENTRIES_MAX: usize = 64;
/// Proxies in a row.
const HOPS_MAX: u8 = 8;
/// Longest file with a list, bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// Names of certificates that one endpoint allows.
const NAMES_MAX: usize = 64;

/// The named lists, by name.
pub(super) type Lists = BTreeMap<String, NetworkList>;

pub(super) fn lists(raw: &raw::NetworkLists, faults: &mut Faults) -> Lists {
    faults.bound("ingester.networks (count)", raw.len(), 0, LISTS_MAX);
    let mut lists = Lists::new();
    for (name, section) in raw {
        let key = format!("ingester.networks.{name}");
        faults.name(&key, name);
        let mode = match section.mode {
            ListMode::Observe => Mode::Observe,
            ListMode::Enforce => Mode::Enforce,
        };
        let networks = match (&section.file, &section.cidrs[..]) {
            (Some(file), []) => read_list(&format!("{key}.file"), file, faults),
            (None, cidrs @ [_, ..]) => networks(&format!("{key}.cidrs"), cidrs, faults),
            _ => {
                faults.push(&key, "has both file and cidrs, or neither", "give one of them");
                continue;
            }
        };
        if let Some(set) = set(&key, &networks, faults) {
            lists.insert(name.clone(), NetworkList { set: Arc::new(set), mode });
        }
    }
    lists
}

pub(super) fn proxies(raw: Option<&raw::Proxies>, faults: &mut Faults) -> Option<ProxySettings> {
    let raw = raw?;
    let networks = networks("ingester.proxies.networks", &raw.networks, faults);
    if networks.is_empty() {
        faults.push("ingester.proxies.networks", "is empty, so no proxy is known", "name their networks");
    }
    faults.bound("ingester.proxies.hops", raw.hops, 1, HOPS_MAX);
    if raw.protocol == ProxyProtocol::ProxyV2 && raw.hops != 1 {
        faults.push(
            "ingester.proxies.hops",
            "is not for proxy-v2, whose header names one client",
            "remove it",
        );
    }
    let networks = set("ingester.proxies.networks", &networks, faults)?;
    Some(ProxySettings { networks, protocol: raw.protocol, hops: raw.hops })
}

/// An endpoint's rules; an entry is a network or the name of a list.
pub(super) fn rules(key: &str, raw: &raw::Networks, lists: &Lists, faults: &mut Faults) -> NetworkRules {
    let allow = rule(&format!("{key}.networks.allow"), &raw.allow, lists, faults);
    let deny = rule(&format!("{key}.networks.deny"), &raw.deny, lists, faults);
    let rules = NetworkRules { allow, deny };
    if let Some(address) = rules.contradiction() {
        let problem = format_args!("{address} is both allowed and denied");
        faults.push(format_args!("{key}.networks"), problem, "write the allowed networks without it");
    }
    rules
}

fn rule(key: &str, entries: &[String], lists: &Lists, faults: &mut Faults) -> Vec<NetworkList> {
    faults.bound(format_args!("{key} (count)"), entries.len(), 0, ENTRIES_MAX);
    let (named, plain): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| lists.contains_key(*entry));
    let mut rule: Vec<NetworkList> = named.into_iter().filter_map(|name| lists.get(name)).cloned().collect();
    if plain.is_empty() {
        return rule;
    }
    let remedy = "give 192.0.2.0/24, 2001:db8::/32 or the name of a list under ingester.networks";
    let networks: Vec<Network> =
        plain.into_iter().filter_map(|entry| faults.parse(key, entry, remedy)).collect();
    let set = set(key, &networks, faults);
    rule.extend(set.map(|set| NetworkList { set: Arc::new(set), mode: Mode::Enforce }));
    rule
}

pub(super) fn header_rules(
    key: &str,
    raw: &[raw::HeaderRule],
    faults: &mut Faults,
) -> Vec<HeaderRule<Pattern>> {
    faults.bound(format_args!("{key}.headers (count)"), raw.len(), 0, HEADER_RULES_MAX);
    let numbered = raw.iter().enumerate();
    numbered
        .filter_map(|(index, rule)| header_rule(&format!("{key}.headers[{index}]"), rule, faults))
        .collect()
}

fn header_rule(key: &str, raw: &raw::HeaderRule, faults: &mut Faults) -> Option<HeaderRule<Pattern>> {
    if !is_header_name(&raw.name) {
        let remedy = format_args!("give a header name of at most {HEADER_NAME_BYTES_MAX} bytes");
        faults.push(
            format_args!("{key}.name"),
            format_args!("\"{}\" is not a header name", raw.name),
            remedy,
        );
    }
    faults.bound(format_args!("{key}.one_of (count)"), raw.one_of.len(), 0, HEADER_VALUES_MAX);
    for value in raw.one_of.iter().chain(&raw.prefix) {
        if value.len() > HEADER_VALUE_BYTES_MAX
            || value.trim() != value
            || value.chars().any(char::is_control)
        {
            let remedy =
                format_args!("give text of at most {HEADER_VALUE_BYTES_MAX} bytes without space around");
            faults.push(key, format_args!("\"{value}\" is no value that a header can have"), remedy);
        }
    }
    let test = header_test(key, raw, faults)?;
    let action = match raw.action {
        raw::HeaderAction::Reject => HeaderAction::Reject,
        raw::HeaderAction::Quarantine => HeaderAction::Quarantine,
        raw::HeaderAction::Log => HeaderAction::Log,
    };
    Some(HeaderRule { name: raw.name.to_ascii_lowercase(), test, action })
}

fn header_test(key: &str, raw: &raw::HeaderRule, faults: &mut Faults) -> Option<HeaderTest<Pattern>> {
    match (&raw.prefix, &raw.regex, &raw.one_of[..]) {
        (None, None, []) => Some(HeaderTest::Present),
        (None, None, values) => Some(HeaderTest::OneOf(values.to_vec())),
        (Some(prefix), None, []) if !prefix.is_empty() => Some(HeaderTest::Prefix(prefix.clone())),
        (None, Some(regex), []) => {
            let remedy = "give a regular expression as the regex crate knows it";
            let made = Pattern::compile_small(regex).map(HeaderTest::Pattern);
            made.map_err(|error| faults.push(format_args!("{key}.regex"), error, remedy)).ok()
        }
        _ => {
            let problem = "has more than one of one_of, prefix and regex, or an empty prefix";
            faults.push(key, problem, "give one of them, or none");
            None
        }
    }
}

pub(super) fn rates(key: &str, raw: raw::Rates, faults: &mut Faults) -> Rates {
    let mut rate = |name: &str, raw: Option<raw::Rate>| {
        let raw = raw?;
        let key = format!("{key}.rates.{name}");
        let made = Rate::new(raw.per_minute, raw.burst);
        made.map_err(|error| faults.push(key, error, "give both, or leave the table out")).ok()
    };
    Rates {
        endpoint: rate("endpoint", raw.endpoint),
        source: rate("source", raw.source),
        unverified: rate("unverified", raw.unverified),
    }
}

pub(super) fn certificates(
    key: &str,
    raw: &raw::SourceCertificate,
    client_ca_file: Option<&String>,
    faults: &mut Faults,
) -> SourceCertificates {
    let key = format!("{key}.client_certificate");
    if client_ca_file.is_none() {
        faults.push(
            &key,
            "needs ingester.client_ca_file",
            "name the CA that issues the sources' certificates",
        );
    }
    faults.bound(format_args!("{key} (names)"), raw.spiffe_ids.len() + raw.dns_names.len(), 0, NAMES_MAX);
    let ids_key = format!("{key}.spiffe_ids");
    let remedy = "give spiffe://domain/path, or a path ending in /*";
    let spiffe_ids = raw.spiffe_ids.iter().filter_map(|id| faults.parse(&ids_key, id, remedy)).collect();
    for name in &raw.dns_names {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
            let problem = format_args!("\"{name}\" is not a DNS name");
            faults.push(format_args!("{key}.dns_names"), problem, "give the whole name, without wildcards");
        }
    }
    let dns_names = raw.dns_names.iter().map(|name| name.to_ascii_lowercase()).collect();
    SourceCertificates { spiffe_ids, dns_names }
}

/// One network a line; what follows a `#` is a remark.
fn read_list(key: &str, file: &str, faults: &mut Faults) -> Vec<Network> {
    let path = faults.resolve(file);
    let shown = path.display().to_string();
    let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if length > LIST_BYTES_MAX {
        faults.push(key, format_args!("{shown} is over {LIST_BYTES_MAX} bytes"), "is it the right file?");
        return Vec::new();
    }
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            faults.push(key, format_args!("{shown}: {error}"), "write one network a line to it");
            return Vec::new();
        }
    };
    let mut networks = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match entry.parse() {
            Ok(network) => networks.push(network),
            Err(error) => {
                faults.push(key, format_args!("{shown}:{number}: \"{entry}\": {error}"), "mend the line");
                return networks;
            }
        }
    }
    if networks.is_empty() {
        faults.push(key, format_args!("{shown} holds no network"), "write one network a line to it");
    }
    networks
}

/// Networks as they are written.
pub(super) fn networks(key: &str, cidrs: &[String], faults: &mut Faults) -> Vec<Network> {
    let remedy = "give networks such as 192.0.2.0/24 or 2001:db8::/32";
    cidrs.iter().filter_map(|cidr| faults.parse(key, cidr, remedy)).collect()
}

fn set(key: &str, networks: &[Network], faults: &mut Faults) -> Option<NetworkSet> {
    NetworkSet::new(networks)
        .map_err(|error| faults.push(key, error, "merge networks, or make two lists"))
        .ok()
}
