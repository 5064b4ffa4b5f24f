//! What commands print. What agents reported is escaped: a terminal must not obey it.

use std::path::Path;

use time::OffsetDateTime;
use zen_control::{BundleRow, ClusterOverview};
use zen_control_api::{MemberReport, Outcome};

/// Longest reason that is printed, characters.
const REASON_CHARACTERS_MAX: usize = 200;

/// After `init`.
pub(super) fn made(directory: &Path) {
    println!("A control plane is in {}.", directory.display());
    println!(
        "Move {} to a safe place: only a new issuing CA needs it.",
        directory.join("root.key").display()
    );
}

/// After `bundle list`.
pub(super) fn bundles(rows: &[BundleRow]) {
    for row in rows {
        let used_from = row.used_from.as_deref().map(|source| format!(", from {source}")).unwrap_or_default();
        println!("{} {} {}, ends {}{used_from}", row.id, row.cluster, row.state, time(row.expires_at_ms));
    }
}

/// After `status`.
pub(super) fn status(clusters: &[ClusterOverview]) {
    for cluster in clusters {
        let version =
            cluster.version.map_or("no configuration".to_owned(), |version| format!("version {version}"));
        let agent = match cluster.agent {
            Some((generation, not_after_ms)) => {
                format!("agent's certificate {generation} ends {}", time(not_after_ms))
            }
            None => "no agent".to_owned(),
        };
        let locked = if cluster.is_locked { ", LOCKED: used in two places" } else { "" };
        println!("{}: {version}, {agent}{locked}", cluster.cluster);
        let Some((at_ms, report)) = &cluster.report else { continue };
        println!(
            "  reported {}: agent {}, version {}",
            time(*at_ms),
            escaped(&report.agent_version),
            report.configuration
        );
        for (name, member) in &report.members {
            println!("  {}: {}", escaped(name), member_line(member));
        }
    }
}

fn member_line(member: &MemberReport) -> String {
    let outcome = match &member.outcome {
        Outcome::Applied { version } => format!("applied {version}"),
        Outcome::Rejected { version, reason } => format!("REJECTED {version}: {}", escaped(reason)),
        Outcome::Unreachable { reason } => format!("UNREACHABLE: {}", escaped(reason)),
    };
    let end = i64::try_from(member.certificate_not_after_ms).unwrap_or(i64::MAX);
    format!("{outcome}, certificate ends {}", time(end))
}

pub(super) fn escaped(text: &str) -> String {
    text.chars().take(REASON_CHARACTERS_MAX).flat_map(char::escape_debug).collect()
}

/// Of Unix ms, UTC, to the second.
pub(super) fn time_of(ms: u64) -> String {
    time(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// UTC, to the second.
pub(super) fn time(ms: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(ms / 1000) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => "never".to_owned(),
    }
}
