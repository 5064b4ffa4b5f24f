//! Counts, as Prometheus text in a file that a textfile collector reads.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::receipts::Verdict;

const VERDICTS: [(Verdict, &str); 8] = [
    (Verdict::Opened, "opened"),
    (Verdict::Denied, "denied"),
    (Verdict::Missing, "missing"),
    (Verdict::Sealed, "sealed"),
    (Verdict::Malformed, "malformed"),
    (Verdict::Stolen, "stolen"),
    (Verdict::Changed, "changed"),
    (Verdict::Busy, "busy"),
];
/// Upper ends of the buckets, µs.
const BUCKETS_US: [u64; 8] = [100, 250, 500, 1_000, 2_500, 10_000, 100_000, 1_000_000];

/// What became of requests, and how long openings took.
#[derive(Debug, Default)]
pub struct Metrics {
    verdicts: [AtomicU64; VERDICTS.len()],
    buckets: [AtomicU64; BUCKETS_US.len()],
    took_us: AtomicU64,
    answered: AtomicU64,
    reloads: AtomicU64,
    reload_failures: AtomicU64,
}

impl Metrics {
    /// One more receipt.
    pub fn count(&self, verdict: Verdict) {
        for ((known, _), count) in VERDICTS.iter().zip(&self.verdicts) {
            count.fetch_add(u64::from(*known == verdict), Ordering::Relaxed);
        }
    }

    /// One more answer, from the request's last byte to the answer's first.
    pub fn answered(&self, took: Duration) {
        let took = took.as_micros() as u64;
        for (end, count) in BUCKETS_US.iter().zip(&self.buckets) {
            count.fetch_add(u64::from(took <= *end), Ordering::Relaxed);
        }
        self.took_us.fetch_add(took, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// One more reload.
    pub fn reloaded(&self, is_in_force: bool) {
        let counter = if is_in_force { &self.reloads } else { &self.reload_failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The text, with how many own keys there are.
    pub fn encode(&self, keys: usize) -> String {
        let mut text = String::new();
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments).expect("a String takes any text");
            text.push('\n');
        };
        line(format_args!("# TYPE zen_lockd_requests_total counter"));
        for ((_, label), count) in VERDICTS.iter().zip(&self.verdicts) {
            line(format_args!("zen_lockd_requests_total{{verdict=\"{label}\"}} {}", of(count)));
        }
        line(format_args!("# TYPE zen_lockd_answer_seconds histogram"));
        for (end, count) in BUCKETS_US.iter().zip(&self.buckets) {
            let end = *end as f64 / 1e6;
            line(format_args!("zen_lockd_answer_seconds_bucket{{le=\"{end}\"}} {}", of(count)));
        }
        line(format_args!("zen_lockd_answer_seconds_bucket{{le=\"+Inf\"}} {}", of(&self.answered)));
        line(format_args!("zen_lockd_answer_seconds_sum {}", of(&self.took_us) as f64 / 1e6));
        line(format_args!("zen_lockd_answer_seconds_count {}", of(&self.answered)));
        line(format_args!("# TYPE zen_lockd_reloads_total counter"));
        line(format_args!("zen_lockd_reloads_total{{result=\"in-force\"}} {}", of(&self.reloads)));
        line(format_args!("zen_lockd_reloads_total{{result=\"refused\"}} {}", of(&self.reload_failures)));
        line(format_args!("# TYPE zen_lockd_own_keys gauge"));
        line(format_args!("zen_lockd_own_keys {keys}"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told() {
        let metrics = Metrics::default();
        metrics.count(Verdict::Opened);
        metrics.count(Verdict::Stolen);
        metrics.answered(Duration::from_micros(300));
        metrics.reloaded(true);
        let text = metrics.encode(2);
        for line in [
            "zen_lockd_requests_total{verdict=\"opened\"} 1",
            "zen_lockd_requests_total{verdict=\"stolen\"} 1",
            "zen_lockd_requests_total{verdict=\"denied\"} 0",
            "zen_lockd_answer_seconds_bucket{le=\"0.00025\"} 0",
            "zen_lockd_answer_seconds_bucket{le=\"0.0005\"} 1",
            "zen_lockd_answer_seconds_count 1",
            "zen_lockd_reloads_total{result=\"in-force\"} 1",
            "zen_lockd_own_keys 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
