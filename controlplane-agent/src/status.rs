//! `zen-agent status`: what the state directory says, without a network.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zen_control_api::Outcome;

use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Health, Validity};
use crate::state::{AGENT, EVIDENCE_FILE, Identity, StateError, identity_in, read_json};

/// Below the state directory; written by a running agent.
pub(crate) const STATUS_FILE: &str = "status.json";
/// A running agent writes twice in this time.
const STALE_MS: u64 = 90_000;

/// What a running agent knows besides its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snapshot {
    /// When, Unix ms.
    pub(crate) at_ms: u64,
    /// The configuration that is published.
    pub(crate) configuration: u64,
    /// Why the last one that came was not taken.
    pub(crate) configuration_trouble: Option<String>,
    /// Why what was taken is not published.
    pub(crate) publication_trouble: Option<String>,
    /// Why link keys are not made, taken or told.
    pub(crate) link_trouble: Option<String>,
    /// None before the first exchange.
    pub(crate) control_plane: Option<ReachSnapshot>,
    /// How far our clock is ahead, ms.
    pub(crate) clock_skew_ms: Option<i64>,
    /// What the agent knows as a witness of the audit log, and of orders.
    #[serde(default)]
    pub(crate) witness: WitnessSnapshot,
    /// Why what a node keeps does not come through, by member.
    #[serde(default)]
    pub(crate) relay_trouble: BTreeMap<String, String>,
    /// Why the agent's own certificate is not renewed.
    pub(crate) renewal_trouble: Option<String>,
    /// How often the agent has recovered this identity after its certificate had ended.
    #[serde(default)]
    pub(crate) recoveries: u64,
    /// By name.
    pub(crate) members: BTreeMap<String, MemberSnapshot>,
}

/// Of the audit log and orders.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WitnessSnapshot {
    /// How many entries the log had when it was seen last, 0 before.
    pub(crate) size: u64,
    /// Why the log is not what it was.
    pub(crate) alarm: Option<String>,
    /// Why the exchange comes to nothing.
    pub(crate) trouble: Option<String>,
    /// The order that was begun last, 0 before.
    pub(crate) last_order: u64,
}

/// Whether the control plane can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReachSnapshot {
    pub(crate) is_reachable: bool,
    /// Unix ms.
    pub(crate) since_ms: u64,
    pub(crate) reason: Option<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberSnapshot {
    /// Whether the configuration names it.
    pub(crate) is_configured: bool,
    /// Of the managed directory.
    pub(crate) generation: Option<u64>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) renewal_trouble: Option<String>,
}

/// What `status` is to end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Good,
    /// Something needs a look.
    Trouble,
}

/// What there is to say, and whether all is well.
pub fn status(config: &Config) -> Result<(String, Exit), StateError> {
    let now_ms = Clock::start().now().wall_ms;
    let root = &config.state_dir;
    let mut lines = String::new();
    let Some(own) = identity_in(root, AGENT)? else {
        let begun = root.join("enrollment.json").exists();
        let what = if begun { "an enrollment was begun; run the same command again" } else { "not enrolled" };
        let _ = writeln!(lines, "agent: {what}: zen-agent enroll --bundle FILE --config FILE");
        return Ok((lines, Exit::Trouble));
    };
    let snapshot: Option<Snapshot> = read_json(&root.join(STATUS_FILE))?;
    let mut is_good = say_identity(&mut lines, AGENT, &own, now_ms);
    for member in &config.members {
        match identity_in(root, &member.name)? {
            Some(identity) => is_good &= say_identity(&mut lines, &member.name, &identity, now_ms),
            None => {
                let _ = writeln!(lines, "{}: no certificate yet", member.name);
                is_good = false;
            }
        }
    }
    is_good &= match snapshot {
        Some(snapshot) => say_snapshot(&mut lines, &snapshot, now_ms),
        None => {
            lines.push_str("running: never, or not yet\n");
            false
        }
    };
    Ok((lines, if is_good { Exit::Good } else { Exit::Trouble }))
}

fn say_identity(lines: &mut String, name: &str, identity: &Identity, now_ms: u64) -> bool {
    let Validity { not_after_ms, .. } = identity.certificate.validity;
    let health = identity.certificate.validity.health(now_ms);
    let left = not_after_ms.saturating_sub(now_ms) / 1000;
    let _ = writeln!(
        lines,
        "{name}: {} {}, {} h {} min left, certificate {}, key-{}",
        identity.certificate.spiffe_id,
        health.name(),
        left / 3600,
        left / 60 % 60,
        identity.record.generation,
        identity.record.key
    );
    health == Health::Good
}

fn say_snapshot(lines: &mut String, snapshot: &Snapshot, now_ms: u64) -> bool {
    let age = now_ms.saturating_sub(snapshot.at_ms);
    let is_running = age < STALE_MS;
    let state = if is_running { "yes" } else { "no" };
    let _ = writeln!(lines, "running: {state}, heard of {} s ago", age / 1000);
    let mut is_good = is_running;
    match &snapshot.control_plane {
        Some(ReachSnapshot { is_reachable: true, .. }) => lines.push_str("control plane: reachable\n"),
        Some(ReachSnapshot { since_ms, reason, .. }) => {
            let (since, reason) =
                (now_ms.saturating_sub(*since_ms) / 1000, reason.as_deref().unwrap_or_default());
            let _ = writeln!(lines, "control plane: not reachable for {since} s: {reason}");
        }
        None => lines.push_str("control plane: not asked yet\n"),
    }
    if let Some(skew_ms) = snapshot.clock_skew_ms {
        let _ = writeln!(lines, "clock: {skew_ms} ms ahead of the control plane's");
    }
    let _ = writeln!(lines, "configuration: version {}", snapshot.configuration);
    if snapshot.recoveries > 0 {
        let count = snapshot.recoveries;
        let _ =
            writeln!(lines, "recovered: {count} times, by the binding key, after the certificate had ended");
    }
    is_good &= say_witness(lines, &snapshot.witness);
    for (member, trouble) in &snapshot.relay_trouble {
        let _ = writeln!(lines, "{member}: what it keeps of deliveries does not come through: {trouble}");
        is_good = false;
    }
    for (what, trouble) in [
        ("a configuration was refused", &snapshot.configuration_trouble),
        ("publication fails", &snapshot.publication_trouble),
        ("link keys", &snapshot.link_trouble),
        ("agent: renewal fails", &snapshot.renewal_trouble),
    ] {
        if let Some(trouble) = trouble {
            let _ = writeln!(lines, "{what}: {trouble}");
            is_good = false;
        }
    }
    for (name, member) in &snapshot.members {
        is_good &= say_member(lines, name, member);
    }
    is_good
}

fn say_witness(lines: &mut String, witness: &WitnessSnapshot) -> bool {
    if witness.size > 0 {
        let _ = writeln!(lines, "audit log: {} entries seen", witness.size);
    }
    if let Some(trouble) = &witness.trouble {
        let _ = writeln!(lines, "audit log and orders: {trouble}");
    }
    if let Some(alarm) = &witness.alarm {
        let _ = writeln!(lines, "ALARM, the audit log: {alarm}; {EVIDENCE_FILE} shows it (docs/agent.md)");
    }
    witness.alarm.is_none() && witness.trouble.is_none()
}

fn say_member(lines: &mut String, name: &str, member: &MemberSnapshot) -> bool {
    let generation = member.generation.map_or("nothing".to_owned(), |number| format!("gen-{number}"));
    let (said, mut is_good) = match &member.outcome {
        Some(Outcome::Applied { version }) => (format!("applied version {version}"), true),
        Some(Outcome::Rejected { version, reason }) => {
            (format!("rejected version {version}: {reason}"), false)
        }
        Some(Outcome::Unreachable { reason }) => (format!("unreachable: {reason}"), false),
        None => ("not asked yet".to_owned(), false),
    };
    let _ = writeln!(lines, "{name}: {generation} published, {said}");
    if !member.is_configured {
        let _ = writeln!(lines, "{name}: the configuration does not name it; what it has stays");
        is_good = false;
    }
    if let Some(trouble) = &member.renewal_trouble {
        let _ = writeln!(lines, "{name}: renewal fails: {trouble}");
        is_good = false;
    }
    is_good
}

/// Where a running agent writes.
pub(crate) fn status_file(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join(STATUS_FILE)
}
