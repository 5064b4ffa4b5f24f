//! Metrics as Prometheus text for a textfile collector. Labels are names of the configuration and of enums.

use std::fmt::Write;

use zen_control_api::Outcome;

use crate::core::{Health, Renewal};
use crate::status::Snapshot;

const OUTCOMES: [&str; 4] = ["applied", "rejected", "unreachable", "unasked"];
const HEALTHS: [Health; 3] = [Health::Good, Health::Degraded, Health::Failing];

/// The text of the file; identities by name, the agent's own among them.
pub(crate) fn text<'a>(
    snapshot: &Snapshot,
    identities: impl Iterator<Item = (&'a str, &'a Renewal, Health)> + Clone,
) -> String {
    let mut text = String::with_capacity(2048);
    head(
        &mut text,
        "zen_agent_certificate_not_after_seconds",
        "Unix time at which the certificate ends, 0 without one",
    );
    for (name, renewal, _) in identities.clone() {
        let seconds = renewal.validity().map_or(0, |validity| validity.not_after_ms / 1000);
        let _ = writeln!(text, "zen_agent_certificate_not_after_seconds{{identity=\"{name}\"}} {seconds}");
    }
    head(&mut text, "zen_agent_health", "1 for what the certificate is");
    for (name, _, is) in identities.clone() {
        for health in HEALTHS {
            let (value, health) = (u8::from(is == health), health.name());
            let _ = writeln!(text, "zen_agent_health{{identity=\"{name}\",health=\"{health}\"}} {value}");
        }
    }
    head(&mut text, "zen_agent_renewal_failures", "Attempts to renew that failed in a row");
    for (name, renewal, _) in identities {
        let _ = writeln!(text, "zen_agent_renewal_failures{{identity=\"{name}\"}} {}", renewal.failures());
    }
    head(
        &mut text,
        "zen_agent_recoveries",
        "Recoveries of the agent's identity after its certificate had ended",
    );
    let _ = writeln!(text, "zen_agent_recoveries {}", snapshot.recoveries);
    head(&mut text, "zen_agent_configuration_version", "Version of the configuration that was taken last");
    let _ = writeln!(text, "zen_agent_configuration_version {}", snapshot.configuration);
    head(&mut text, "zen_agent_configuration_refused", "1 while the last one that came was not taken");
    let refused = u8::from(snapshot.configuration_trouble.is_some());
    let _ = writeln!(text, "zen_agent_configuration_refused {refused}");
    head(&mut text, "zen_agent_control_plane_reachable", "1 if the last exchange came to an answer");
    let reachable = snapshot.control_plane.as_ref().is_some_and(|reach| reach.is_reachable);
    let _ = writeln!(text, "zen_agent_control_plane_reachable {}", u8::from(reachable));
    head(&mut text, "zen_agent_audit_entries", "Entries of the audit log as it was seen last");
    let _ = writeln!(text, "zen_agent_audit_entries {}", snapshot.witness.size);
    head(
        &mut text,
        "zen_agent_audit_alarm",
        "1 while there is evidence that the audit log is not what it was",
    );
    let _ = writeln!(text, "zen_agent_audit_alarm {}", u8::from(snapshot.witness.alarm.is_some()));
    head(&mut text, "zen_agent_relay_failing", "Nodes whose receipts do not come through");
    let _ = writeln!(text, "zen_agent_relay_failing {}", snapshot.relay_trouble.len());
    head(&mut text, "zen_agent_member_outcome", "1 for what the node said last");
    for (name, member) in &snapshot.members {
        let is = outcome_name(member.outcome.as_ref());
        for outcome in OUTCOMES {
            let value = u8::from(is == outcome);
            let _ =
                writeln!(text, "zen_agent_member_outcome{{member=\"{name}\",outcome=\"{outcome}\"}} {value}");
        }
    }
    text
}

fn head(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn outcome_name(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Applied { .. }) => OUTCOMES[0],
        Some(Outcome::Rejected { .. }) => OUTCOMES[1],
        Some(Outcome::Unreachable { .. }) => OUTCOMES[2],
        None => OUTCOMES[3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_sample_or_its_description() {
        let member = crate::status::MemberSnapshot {
            is_configured: true,
            generation: Some(1),
            outcome: Some(Outcome::Rejected { version: 1, reason: "a \"reason\"\n".to_owned() }),
            renewal_trouble: None,
        };
        let members = [("edge-1".to_owned(), member)].into();
        let snapshot = Snapshot { configuration: 7, members, ..Snapshot::default() };
        let renewal = Renewal::absent();
        let text = text(&snapshot, [("agent", &renewal, Health::Failing)].into_iter());
        for line in text.lines() {
            let is_sample =
                line.starts_with("zen_agent_") && line.rsplit(' ').next().unwrap().parse::<u64>().is_ok();
            assert!(is_sample || line.starts_with("# "), "{line}");
        }
        for expected in [
            "zen_agent_health{identity=\"agent\",health=\"failing\"} 1\n",
            "zen_agent_configuration_version 7\n",
            "zen_agent_recoveries 0\n",
            "zen_agent_audit_alarm 0\n",
            "zen_agent_member_outcome{member=\"edge-1\",outcome=\"rejected\"} 1\n",
            "zen_agent_control_plane_reachable 0\n",
        ] {
            assert!(text.contains(expected), "{expected}");
        }
    }
}
