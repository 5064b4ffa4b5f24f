//! What is attached, since when, and what it counted, for who asks.

use serde_json::{Value, json};
use zen_ebpf::EbpfError;
use zen_ebpf::abi::{fence, guard};

use super::Programs;

/// A program as it is shown.
pub struct Shown(pub Value);

impl Programs {
    /// All programs: those in force, and those that are missing with the reason.
    pub fn status(&self) -> Result<Vec<Shown>, EbpfError> {
        let cgroup =
            self.cgroup.as_ref().map_or_else(String::new, |path| format!("cgroup {}", path.display()));
        let mut shown = Vec::new();
        let mut push = |name: &str, state: &str, place: &str, counts: Value| {
            let since_ms = self.since_ms;
            shown.push(Shown(json!({
                "program": name, "state": state, "place": place, "since_ms": since_ms, "counts": counts
            })));
        };
        if let Some(guard) = &self.guard {
            let place = match &self.interfaces[..] {
                [] => cgroup.clone(),
                names => format!("{cgroup}, interfaces {}", names.join(", ")),
            };
            push("guard", mode(self.guard_enforces), &place, guard_counts(&guard.counts()?));
        }
        if let Some(fence) = &self.fence {
            push("fence", mode(self.fence_enforces), &cgroup, fence_counts(&fence.counts()?));
        }
        for (address, steer) in &self.steer {
            let counts = steer.counts()?;
            let counts = json!({ "steered": counts.steered, "hashed": counts.hashed });
            push("steer", "on", &format!("listeners of {address}"), counts);
        }
        if let Some((observe, places)) = &self.observe {
            let counts = places.counts(observe).into_iter().map(|(name, counts)| {
                let opened = json!({
                    "opened": counts.opened, "closed": counts.closed, "reset": counts.reset, "failed": counts.failed,
                });
                (name, opened)
            });
            push("observe", "on", &cgroup, Value::Object(counts.collect()));
        }
        for missing in &self.missing {
            shown.push(Shown(json!({
                "program": missing.feature, "state": "missing", "reason": missing.reason, "counts": {}
            })));
        }
        Ok(shown)
    }
}

fn mode(enforces: bool) -> &'static str {
    if enforces { "enforce" } else { "observe" }
}

fn guard_counts(ports: &[(u16, guard::Counts)]) -> Value {
    let port = |(port, counts): &(u16, guard::Counts)| {
        let reasons = guard::Reason::ALL.map(guard::Reason::label);
        (port.to_string(), tally(counts.passed, &reasons, &counts.refused, &counts.observed))
    };
    Value::Object(ports.iter().map(port).collect())
}

fn fence_counts(counts: &fence::Counts) -> Value {
    let reasons = fence::Reason::ALL.map(fence::Reason::label);
    tally(counts.passed, &reasons, &counts.refused, &counts.observed)
}

/// What passed, and what was refused or only observed, without zeros.
fn tally(passed: u64, reasons: &[&str], refused: &[u64], observed: &[u64]) -> Value {
    let by_reason = |counts: &[u64]| {
        let counted = reasons.iter().zip(counts).filter(|(_, count)| **count > 0);
        Value::Object(counted.map(|(reason, count)| ((*reason).to_owned(), (*count).into())).collect())
    };
    json!({ "passed": passed, "refused": by_reason(refused), "observed": by_reason(observed) })
}
