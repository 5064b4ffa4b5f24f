//! Where the node may connect, by all that the configuration names and the system's name servers.

use std::sync::Arc;

use zen_core::access::{DestinationPolicy, Grant, Purpose, ReachError, ReachRules, name_servers};

use super::faults::Faults;
use crate::config::settings::{
    Authorization, EgressSettings, HostPort, IngesterSettings, Target, TracingSettings, Transport,
};
use crate::reach::{COLLECTOR, LINK_PEERS};

/// What the system's resolver reads as well.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The rules for all destinations, which are none if there are faults.
pub(super) fn reach(
    ingester: Option<&IngesterSettings>,
    egress: Option<&EgressSettings>,
    tracing: &TracingSettings,
    faults: &mut Faults,
) -> Arc<ReachRules> {
    let dialled = ingester.iter().flat_map(|settings| &settings.egresses).map(|peer| &peer.address);
    let dialled =
        dialled.chain(egress.iter().flat_map(|settings| &settings.ingesters).map(|peer| &peer.address));
    let mut grants: Vec<Grant> =
        dialled.flatten().map(|address| grant(&LINK_PEERS, Purpose::LinkPeer, address)).collect();
    if let Some(settings) = egress {
        grants.extend(settings.targets.values().flat_map(|target| of_target(&settings.destinations, target)));
    }
    let collector = tracing.export.as_ref().map(|export| export.address());
    grants.extend(collector.map(|address| grant(&COLLECTOR, Purpose::Telemetry, address)));
    // Without the file the resolver asks this machine.
    let resolv_conf = std::fs::read(RESOLV_CONF).unwrap_or_default();
    let servers = name_servers(&String::from_utf8_lossy(&resolv_conf));
    grants.extend(servers.into_iter().flat_map(Grant::name_server));
    let rules = ReachRules::new(&grants).unwrap_or_else(|error| {
        let ReachError::TooMany { purpose, .. } = error;
        faults.push(key_of(purpose), error, "give wider networks, or have destinations share ports");
        ReachRules::default()
    });
    Arc::new(rules)
}

/// A name is checked whenever it is resolved, an address now.
pub(super) fn check_literal(
    key: &str,
    policy: &DestinationPolicy,
    address: &HostPort,
    remedy: &str,
    faults: &mut Faults,
) {
    let host = &address.host;
    if let Some(Err(refused)) = host.parse().ok().map(|address| policy.check(host, address)) {
        faults.push(key, format_args!("{host}: {refused}"), remedy);
    }
}

fn of_target(policy: &DestinationPolicy, target: &Target) -> impl Iterator<Item = Grant> {
    let over_tcp = matches!(target.transport, Transport::Tls { .. });
    let server = match &target.authorization {
        Some(Authorization::Tokens(source)) => Some(&source.request.address),
        Some(Authorization::Fixed(_)) | None => None,
    };
    let place = over_tcp.then(|| grant(policy, Purpose::Target, &target.address));
    place.into_iter().chain(server.map(|address| grant(policy, Purpose::TokenServer, address)))
}

fn grant(policy: &DestinationPolicy, purpose: Purpose, address: &HostPort) -> Grant {
    policy.grant(purpose, &address.host, address.port)
}

/// The key that has the networks of such a port.
fn key_of(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Target | Purpose::TokenServer => "egress.target_networks",
        Purpose::LinkPeer => "egress.ingesters, ingester.egresses",
        Purpose::Telemetry => "tracing.otlp_endpoint",
        Purpose::NameServer => RESOLV_CONF,
    }
}
