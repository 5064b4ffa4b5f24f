//! The `[[ingester.flows]]` sections, sorted by endpoint and compiled.

use std::collections::{HashMap, HashSet};

use zen_core::envelope::TARGETS_MAX;
use zen_rules::{Matching, RawFlow};

use super::faults::Faults;
use crate::config::{Routing, raw};
use crate::egress::TARGET_NAMES_BYTES_MAX;

/// The flows of one endpoint that are enabled, and the egress of each.
#[derive(Default)]
pub(super) struct Written {
    flows: Vec<RawFlow>,
    egresses: Vec<String>,
}

/// Checks what leads where; sorts flows by their endpoint.
pub(super) fn flows<'a>(raw: &'a raw::Ingester, faults: &mut Faults) -> HashMap<&'a str, Written> {
    let known: HashSet<&str> = raw.egresses.iter().map(|peer| peer.name.as_str()).collect();
    let declared: HashSet<&str> = raw.endpoints.iter().map(|endpoint| endpoint.id.as_str()).collect();
    let mut flows: HashMap<&str, Written> = HashMap::new();
    for (index, flow) in raw.flows.iter().enumerate() {
        let key = format!("ingester.flows[{index}]");
        if !declared.contains(flow.endpoint.as_str()) {
            let problem = format_args!("no endpoint {}", flow.endpoint);
            faults.push(format_args!("{key}.endpoint"), problem, "declare it");
        }
        if !known.contains(flow.egress.as_str()) {
            let problem = format_args!("no egress \"{}\"", flow.egress);
            faults.push(format_args!("{key}.egress"), problem, "declare it");
        }
        for target in &flow.targets {
            faults.name(format_args!("{key}.targets"), target);
        }
        let written = flows.entry(&flow.endpoint).or_default();
        if flow.enabled {
            written.flows.push(RawFlow {
                name: flow.name.clone().unwrap_or_else(|| format!("flow-{}", index + 1)),
                priority: flow.priority,
                when: flow.when.clone(),
                on_error: flow.on_error,
                body_bytes_max: flow.body_bytes_max,
                json_depth_max: flow.json_depth_max,
                targets: flow.targets.clone(),
            });
            written.egresses.push(flow.egress.clone());
        }
    }
    flows
}

/// Compiles the flows of one endpoint; it needs one, even if that is not enabled.
pub(super) fn routing(
    key: &str,
    endpoint: &raw::Endpoint,
    written: Option<Written>,
    faults: &mut Faults,
) -> Option<Routing> {
    let Some(Written { flows, egresses }) = written else {
        faults.push(key, "no flow leads anywhere", "add a [[ingester.flows]] for it");
        return None;
    };
    let reached: HashSet<String> = egresses.iter().cloned().collect();
    let routing = Routing::compile(&flows, egresses, endpoint.r#match)
        .map_err(|error| faults.push(format_args!("ingester.flows of {key}"), error, "see docs/routing.md"))
        .ok()?;
    if routing.matching() == Matching::All {
        for egress in reached {
            check_fan_out(key, &egress, &routing.destinations(&egress), faults);
        }
    }
    Some(routing)
}

/// An event may take all flows at once; what it then brings to an egress is bounded there.
fn check_fan_out(key: &str, egress: &str, targets: &[&str], faults: &mut Faults) {
    let bytes: usize = targets.iter().map(|target| target.len() + 1).sum();
    if targets.len() > TARGETS_MAX || bytes > TARGET_NAMES_BYTES_MAX {
        faults.push(
            key,
            format_args!(
                "its flows lead to {} targets of \"{egress}\", {bytes} bytes of names; one event may go to {TARGETS_MAX} \
                 and {TARGET_NAMES_BYTES_MAX} bytes",
                targets.len()
            ),
            "set match = \"first\", use shorter names or a second endpoint",
        );
    }
}
