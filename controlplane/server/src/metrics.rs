//! What is counted, and the text that says it (Prometheus text format 0.0.4).
//!
//! Labels are words of this program: nothing that a client sends becomes one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// Counters since the start, by name and labels.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<(Counter, Labels), u64>>);

/// At most two words.
type Labels = [&'static str; 2];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    /// Handshakes by outcome.
    Handshakes,
    /// Connections that were closed for want of a place, by which.
    Shed,
    /// Requests by route and outcome.
    Requests,
    /// Lines of the log that begin with `ALARM`, by which.
    Alarms,
    /// Requests that the database failed.
    DatabaseErrors,
}

/// What is measured when somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// Connections that are through their handshake.
    pub(crate) connections: u64,
    /// Connections that wait for their handshake, or are in it.
    pub(crate) arrivals: u64,
    /// Questions for a configuration that wait.
    pub(crate) waiting: u64,
    /// Of what the database knows.
    pub(crate) kept: Kept,
    /// When the issuing CA ends, Unix ms.
    pub(crate) issuing_end_ms: u64,
}

/// What the database knows of clusters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// With a configuration.
    pub(crate) clusters: u64,
    /// Whose last report is about an older version than the newest, or there is none.
    pub(crate) behind: u64,
    /// Identities that are locked.
    pub(crate) locked: u64,
    /// Changes that agents wait for, ever.
    pub(crate) changes: u64,
    /// Entries of the audit log.
    pub(crate) entries: u64,
    /// How many of them the log itself has signed for.
    pub(crate) signed: u64,
    /// How many of them some witness has cosigned.
    pub(crate) cosigned: u64,
}

impl Counter {
    const ALL: [Self; 5] = [Self::Handshakes, Self::Shed, Self::Requests, Self::Alarms, Self::DatabaseErrors];

    fn name(self) -> &'static str {
        match self {
            Self::Handshakes => "zen_control_handshakes_total",
            Self::Shed => "zen_control_connections_shed_total",
            Self::Requests => "zen_control_requests_total",
            Self::Alarms => "zen_control_alarms_total",
            Self::DatabaseErrors => "zen_control_database_errors_total",
        }
    }

    fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Handshakes => &["outcome"],
            Self::Shed => &["place"],
            Self::Requests => &["route", "outcome"],
            Self::Alarms => &["alarm"],
            Self::DatabaseErrors => &[],
        }
    }
}

impl Metrics {
    /// Counts one without labels.
    pub(crate) fn count(&self, counter: Counter) {
        self.add(counter, ["", ""]);
    }

    /// Counts one with a label.
    pub(crate) fn count_as(&self, counter: Counter, label: &'static str) {
        self.add(counter, [label, ""]);
    }

    /// Counts a request.
    pub(crate) fn count_request(&self, route: &'static str, outcome: &'static str) {
        self.add(Counter::Requests, [route, outcome]);
    }

    /// All of it.
    pub(crate) fn text(&self, gauges: &Gauges) -> String {
        let mut text = String::new();
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for counter in Counter::ALL {
            let _ = writeln!(text, "# TYPE {} counter", counter.name());
            for ((_, labels), count) in counts.iter().filter(|((counted, _), _)| *counted == counter) {
                let pairs: Vec<String> = counter
                    .labels()
                    .iter()
                    .zip(labels)
                    .map(|(name, value)| format!("{name}=\"{value}\""))
                    .collect();
                let labels =
                    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
                let _ = writeln!(text, "{}{labels} {count}", counter.name());
            }
        }
        for (name, value) in gauges.rows() {
            let _ = writeln!(text, "# TYPE {name} gauge\n{name} {value}");
        }
        text
    }

    fn add(&self, counter: Counter, labels: Labels) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((counter, labels)).or_default() += 1;
    }
}

impl Gauges {
    fn rows(&self) -> [(&'static str, u64); 11] {
        [
            ("zen_control_connections", self.connections),
            ("zen_control_arrivals", self.arrivals),
            ("zen_control_waiting", self.waiting),
            ("zen_control_clusters", self.kept.clusters),
            ("zen_control_clusters_behind", self.kept.behind),
            ("zen_control_identities_locked", self.kept.locked),
            ("zen_control_changes", self.kept.changes),
            ("zen_control_audit_entries", self.kept.entries),
            ("zen_control_audit_signed", self.kept.signed),
            ("zen_control_audit_cosigned", self.kept.cosigned),
            ("zen_control_issuing_ca_not_after_seconds", self.issuing_end_ms / 1000),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_lines_with_their_labels() {
        let metrics = Metrics::default();
        metrics.count_request("configuration", "ok");
        metrics.count_request("configuration", "ok");
        metrics.count_as(Counter::Handshakes, "denied");
        metrics.count(Counter::DatabaseErrors);
        let kept = Kept { clusters: 3, behind: 1, locked: 0, changes: 9, entries: 7, signed: 6, cosigned: 5 };
        let text =
            metrics.text(&Gauges { connections: 2, arrivals: 0, waiting: 1, kept, issuing_end_ms: 5000 });
        for line in [
            "zen_control_requests_total{route=\"configuration\",outcome=\"ok\"} 2",
            "zen_control_handshakes_total{outcome=\"denied\"} 1",
            "zen_control_database_errors_total 1",
            "zen_control_clusters_behind 1",
            "zen_control_audit_cosigned 5",
            "zen_control_issuing_ca_not_after_seconds 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE")).count(), 16);
    }
}
