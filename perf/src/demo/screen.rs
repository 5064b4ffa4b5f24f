//! What the demo shows: a line per arrival, and a status line that a terminal keeps at the bottom.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::Arrival;
use crate::lab::Metrics;
use crate::load::unix_ms;

const ACCEPTED: &str = "zen_events_accepted_total";
const ACCEPT_TO_DURABLE: &str = "zen_accept_to_durable_seconds";
const ACCEPT_TO_DELIVERED: &str = "zen_accept_to_delivered_seconds";
/// How often a status line goes to something that is not a terminal.
const PLAIN_PERIOD: Duration = Duration::from_secs(5);

/// Standard output, as a terminal or as plain lines.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
    is_quiet: bool,
    status: String,
    status_at: Instant,
}

impl Screen {
    /// Finds out what standard output is.
    pub(super) fn new(is_quiet: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self { is_terminal, is_quiet, status: String::new(), status_at: Instant::now() }
    }

    /// Prints a line above the status line.
    pub(super) fn line(&self, text: &str) {
        // A closed pipe must not end the lab before it has drained.
        let written = if self.is_terminal {
            write!(io::stdout(), "\r\x1b[K{text}\n{}", self.status).and_then(|()| io::stdout().flush())
        } else {
            writeln!(io::stdout(), "{text}")
        };
        drop(written);
    }

    /// Leaves the last status line standing.
    pub(super) fn finish(&mut self) {
        let status = std::mem::take(&mut self.status);
        self.line(&status);
    }

    /// Prints an arrival: time, scheme, size, end of the event id, target.
    pub(super) fn arrival(&self, arrival: &Arrival, scheme: &str) {
        if self.is_quiet && arrival.fault.is_none() {
            return;
        }
        let id = arrival.event_id.get(24..).unwrap_or(&arrival.event_id);
        let verdict = arrival.fault.as_deref().unwrap_or("signature valid");
        self.line(&format!(
            "{}  {scheme:<17} {:>6} B  {id:<12}  -> {}  {verdict}",
            time_of_day(unix_ms()),
            arrival.bytes,
            arrival.target
        ));
    }

    /// Replaces the status line; where there is no terminal, prints one now and then.
    pub(super) fn status(&mut self, arrived: usize, accepting: &Metrics, delivering: &Metrics) {
        let accepted = accepting.sum(ACCEPTED, "");
        let durable = quantiles(accepting, ACCEPT_TO_DURABLE);
        let delivered = quantiles(delivering, ACCEPT_TO_DELIVERED);
        self.status = format!(
            "accepted {accepted}, at the target {arrived} | durable after {durable} | delivered after {delivered}"
        );
        if self.is_terminal {
            drop(write!(io::stdout(), "\r\x1b[K{}", self.status).and_then(|()| io::stdout().flush()));
        } else if self.status_at.elapsed() >= PLAIN_PERIOD {
            self.status_at = Instant::now();
            self.line(&self.status);
        }
    }
}

fn quantiles(metrics: &Metrics, name: &str) -> String {
    let quantile = |q| match metrics.quantile(name, q) {
        Some(seconds) => format!("{:.2} ms", seconds * 1000.0),
        None => "-".to_owned(),
    };
    format!("p50 {} p99 {}", quantile(0.5), quantile(0.99))
}

fn time_of_day(ms: u64) -> String {
    let seconds = ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_is_utc() {
        assert_eq!(time_of_day(1_700_000_000_123), "22:13:20.123");
    }
}
