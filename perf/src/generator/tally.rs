//! What is counted, and what comes of it as [`Load`].
//!
//! In: each answer, failure and delay. A request belongs to the span by when it was due or sent; the throughput
//! is of the answers that came within the span. Out: the result, and where the client itself was the limit.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::connection::{Answer, Flight};
use super::draw::Sending;
use super::usage::Usage;
use super::wire::Resumed;
use crate::results::{FORMAT, Latency, Load};

/// Longest latency that is told apart, µs.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Steps for each halving of the distance to the largest.
const CURVE_STEPS: u32 = 10;
/// Those that are asked for, which the steps miss by a little.
const QUANTILES: [f64; 7] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999];
/// A client that is busy for more of the span than this has no time to spare.
const BUSY_MAX: f64 = 0.95;
/// Below this at the 99th percentile nobody minds that the client was late, µs.
const LAG_US_MAX: f64 = 1000.0;
/// Largest part of the latency that may be the client's lateness, both at the 99th percentile.
const LAG_SHARE_MAX: f64 = 0.25;
/// A busy client is the limit if it left more than one event in so many waiting.
const WAITED_ONE_IN: u64 = 100;

/// The counts of a run.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of the span; what is not counted here is filled in by [`Self::finish`].
    pub(super) load: Load,
    /// Answers that accepted, of the whole run.
    pub(super) accepted_ever: u64,
    /// Requests sent and failed, of the whole run.
    pub(super) sent_ever: u64,
    /// See [`Self::sent_ever`].
    pub(super) failed_ever: u64,
    /// Why the last connection failed.
    pub(super) last_failure: Option<String>,
    /// Latencies of the second that runs, of the span or not.
    pub(super) second_us: Histogram<u64>,
    /// Answers within the span, and of them those that accepted.
    answers_in_span: u64,
    accepted_in_span: u64,
    /// Events that were due while no connection was free.
    waited: u64,
    latency_us: Histogram<u64>,
    lag_us: Histogram<u64>,
}

/// What the verdict needs beside the counts.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// How long it was.
    pub(super) seconds: f64,
    /// The rate of an open loop.
    pub(super) rate_per_s: Option<f64>,
    /// Connections.
    pub(super) connections: u32,
    /// What the client's thread used in it.
    pub(super) usage: Usage,
    /// Its command line.
    pub(super) command: String,
}

impl Tally {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        Self {
            load: Load { format: FORMAT, ..Load::default() },
            accepted_ever: 0,
            sent_ever: 0,
            failed_ever: 0,
            last_failure: None,
            second_us: histogram(),
            answers_in_span: 0,
            accepted_in_span: 0,
            waited: 0,
            latency_us: histogram(),
            lag_us: histogram(),
        }
    }

    /// A request goes out, `lag_ns` later than it could have; `waited` if no connection was free when it was due.
    pub(super) fn sent(&mut self, flight: &Flight, lag_ns: Option<u64>, waited: Waited) {
        self.sent_ever += 1;
        if !flight.measured {
            return;
        }
        self.load.sent += 1;
        self.load.repeated += u64::from(flight.sending == Sending::Repeat);
        self.waited += u64::from(waited == Waited::ForConnection);
        if let Some(lag_ns) = lag_ns {
            self.lag_us.saturating_record(lag_ns / 1000);
        }
    }

    /// An answer came at `now_ns`; `in_span` says whether the span ran then. Whether it accepted an event.
    pub(super) fn answered(
        &mut self,
        flight: &Flight,
        answer: Answer,
        now_ns: u64,
        in_span: bool,
    ) -> Verdict {
        let is_junk = flight.sending == Sending::Junk;
        let verdict = match answer.status {
            // Nothing may accept what is no HTTP: the answer belongs to something else.
            200..=299 if is_junk => Verdict::Failed,
            _ if is_junk => Verdict::Junk,
            200 | 202 => Verdict::Accepted,
            _ => Verdict::Refused,
        };
        self.answers_in_span += u64::from(in_span);
        if verdict == Verdict::Accepted {
            let latency_us = now_ns.saturating_sub(flight.since_ns) / 1000;
            self.accepted_ever += 1;
            self.accepted_in_span += u64::from(in_span);
            self.second_us.saturating_record(latency_us);
            if flight.measured {
                self.latency_us.saturating_record(latency_us);
            }
        }
        self.failed_ever += u64::from(verdict == Verdict::Failed);
        if flight.measured {
            self.count(flight, answer, verdict);
        }
        verdict
    }

    fn count(&mut self, flight: &Flight, answer: Answer, verdict: Verdict) {
        let load = &mut self.load;
        let is_bad = u64::from(flight.sending == Sending::BadSignature);
        match verdict {
            Verdict::Accepted => {
                load.accepted += 1;
                load.duplicates += u64::from(answer.status == 200);
                load.wrongly_accepted += is_bad;
            }
            Verdict::Refused => {
                *load.refused.entry(answer.status).or_default() += 1;
                load.expected_refusals += is_bad * u64::from(matches!(answer.status, 401 | 403));
                load.retry_after_s_max = load.retry_after_s_max.max(answer.retry_after_s);
            }
            Verdict::Junk => load.junk += 1,
            Verdict::Failed => load.failed += 1,
        }
    }

    /// The connection of a request failed; that of junk is meant to.
    pub(super) fn failed(&mut self, flight: &Flight, reason: String) {
        let is_junk = flight.sending == Sending::Junk;
        if !is_junk {
            self.failed_ever += 1;
            self.last_failure = Some(reason);
        }
        if flight.measured {
            self.load.junk += u64::from(is_junk);
            self.load.failed += u64::from(!is_junk);
        }
    }

    /// A connection opened.
    pub(super) fn opened(&mut self, resumed: Resumed) {
        self.load.connects += 1;
        self.load.resumed += u64::from(resumed == Resumed::Yes);
    }

    /// The result, and what is to be said of it.
    pub(super) fn finish(mut self, span: &Span) -> (Load, Vec<String>) {
        let load = &mut self.load;
        let cpu_us = span.usage.cpu_s * 1e6;
        load.seconds = span.seconds;
        load.accepted_per_s = self.accepted_in_span as f64 / span.seconds;
        load.client_cpu_us = cpu_us / (self.answers_in_span.max(1)) as f64;
        load.client_busy = ((span.usage.cpu_s + span.usage.waited_s) / span.seconds).min(1.0);
        load.latency = latency(&self.latency_us);
        load.command.clone_from(&span.command);
        if span.rate_per_s.is_some() {
            load.offered = Some(load.sent + load.unsent);
            load.send_lag_p99_us = Some(self.lag_us.value_at_quantile(0.99) as f64);
        }
        let words = self.words(span);
        (self.load, words)
    }

    /// Decides who was the limit, and says so.
    fn words(&mut self, span: &Span) -> Vec<String> {
        let (load, waited) = (&mut self.load, self.waited);
        let mut words = Vec::new();
        if load.wrongly_accepted > 0 {
            words.push(format!("{} events with a wrong signature were ACCEPTED", load.wrongly_accepted));
        }
        let busy = load.client_busy;
        let Some(rate) = span.rate_per_s else {
            if busy > BUSY_MAX {
                words.push(format!(
                    "this client was busy, or waited for its core, for {:.0} % of the span: the server may be \
                     able to do more; give the client a core of its own with --core",
                    busy * 100.0
                ));
            }
            return words;
        };
        let lag_us = load.send_lag_p99_us.unwrap_or(0.0);
        let is_late = lag_us > LAG_US_MAX && lag_us > LAG_SHARE_MAX * load.latency.at(0.99);
        let is_full = busy > BUSY_MAX && (load.unsent > 0 || waited * WAITED_ONE_IN > load.sent);
        load.client_fell_behind = is_late || is_full;
        load.server_fell_behind = !load.client_fell_behind && (waited * 2 > load.sent || load.unsent > 0);
        if load.client_fell_behind {
            words.push(format!(
                "the client could not hold {rate}/s: it was busy, or waited for its core, for {:.0} % of the span \
                 and sent {lag_us:.0} µs late at the 99th percentile; {} events were never sent. Its latencies are \
                 its own: lower --rate, or give it a core of its own with --core",
                busy * 100.0,
                load.unsent
            ));
        } else if load.server_fell_behind {
            words.push(format!(
                "the server is slower than {rate}/s: {} of {} events waited for one of {} connections, {} were \
                 never sent. Their latencies count the wait: lower --rate, or raise --connections if it is they \
                 that are too few",
                waited, load.sent, span.connections, load.unsent
            ));
        }
        words
    }
}

/// What an answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The event is the server's now.
    Accepted,
    /// It is not.
    Refused,
    /// Junk was answered as such.
    Junk,
    /// The answer cannot be right.
    Failed,
}

/// Whether an event found a free connection when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It did, or the loop is closed.
    No,
    /// All were busy.
    ForConnection,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds are in order")
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let (count, max_us) = (histogram.len(), histogram.max() as f64);
    if count == 0 {
        return Latency::default();
    }
    let asked = QUANTILES.map(|at| (at, histogram.value_at_quantile(at) as f64));
    let steps = histogram.iter_quantiles(CURVE_STEPS);
    let steps = steps.map(|value| (value.quantile_iterated_to(), value.value_iterated_to() as f64));
    let mut curve: Vec<(f64, f64)> = steps.chain(asked).collect();
    curve.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.total_cmp(&right.1)));
    curve.dedup();
    Latency { count, mean_us: histogram.mean(), max_us, curve }
}

/// A second's latencies, as few numbers: value and count.
pub(super) fn sparse(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
}

/// The histogram of what [`sparse`] made.
pub(super) fn dense(values: &[(u64, u64)]) -> Histogram<u64> {
    let mut whole = histogram();
    for (value, count) in values {
        whole.saturating_record_n(*value, *count);
    }
    whole
}

/// Refusals as `status times count`.
pub(super) fn refusals(refused: &BTreeMap<u16, u64>) -> String {
    let all: Vec<String> = refused.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(sending: Sending, measured: bool) -> Flight {
        Flight { sending, number: 0, since_ns: 0, sent_ns: 0, measured }
    }

    fn span(rate_per_s: Option<f64>, busy: f64) -> Span {
        let usage = Usage { cpu_s: busy, waited_s: 0.0 };
        Span { seconds: 1.0, rate_per_s, connections: 4, usage, command: "c".to_owned() }
    }

    #[test]
    fn every_request_is_counted_once() {
        let mut tally = Tally::new();
        for (sending, status) in [
            (Sending::New, Some(202)),
            (Sending::Repeat, Some(200)),
            (Sending::New, Some(429)),
            (Sending::BadSignature, Some(401)),
            (Sending::BadSignature, Some(202)),
            (Sending::Junk, Some(400)),
            (Sending::Junk, None),
            (Sending::Junk, Some(200)),
            (Sending::New, None),
        ] {
            for measured in [true, false] {
                let flight = flight(sending, measured);
                tally.sent(&flight, None, Waited::No);
                match status {
                    Some(status) => {
                        let answer = Answer { status, retry_after_s: (status == 429).then_some(7) };
                        tally.answered(&flight, answer, 5000, measured);
                    }
                    None => tally.failed(&flight, "reset".to_owned()),
                }
            }
        }
        let (load, words) = tally.finish(&span(None, 0.5));
        assert_eq!((load.sent, load.accepted, load.duplicates, load.repeated), (9, 3, 1, 1));
        assert_eq!((load.failed, load.junk, load.expected_refusals, load.wrongly_accepted), (2, 2, 1, 1));
        assert_eq!(load.refused, BTreeMap::from([(401, 1), (429, 1)]));
        assert_eq!(load.sent, load.accepted + load.refused.values().sum::<u64>() + load.failed + load.junk);
        assert_eq!((load.retry_after_s_max, load.latency.count, load.offered), (Some(7), 3, None));
        assert!((load.accepted_per_s - 3.0).abs() < 1e-9, "{}", load.accepted_per_s);
        assert_eq!(words.len(), 1, "{words:?}");
    }

    #[test]
    fn who_was_the_limit_is_told_apart() {
        let verdict = |lag_us: u64, waited, busy: f64| {
            let mut tally = Tally::new();
            for _ in 0..1000 {
                let flight = flight(Sending::New, true);
                tally.sent(&flight, Some(lag_us * 1000), waited);
                tally.answered(&flight, Answer { status: 202, retry_after_s: None }, 10_000_000, true);
            }
            let (load, words) = tally.finish(&span(Some(1000.0), busy));
            (load.client_fell_behind, load.server_fell_behind, words.len())
        };
        assert_eq!(verdict(10, Waited::No, 0.5), (false, false, 0));
        assert_eq!(verdict(10, Waited::No, 0.99), (false, false, 0));
        assert_eq!(verdict(10, Waited::ForConnection, 0.5), (false, true, 1));
        assert_eq!(verdict(10, Waited::ForConnection, 0.99), (true, false, 1));
        assert_eq!(verdict(5000, Waited::No, 0.5), (true, false, 1));
    }

    #[test]
    fn curves_rise_to_the_largest_and_logs_lose_nothing() {
        let mut all = histogram();
        (1..=10_000).for_each(|us| all.saturating_record(us));
        let curve = latency(&all).curve;
        assert!(curve.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].1 <= two[1].1));
        assert!((curve.last().expect("steps").0 - 1.0).abs() < 1e-9);
        let median = latency(&all).at(0.5);
        assert!((4995.0..=5005.0).contains(&median), "{median}");
        assert_eq!(dense(&sparse(&all)), all);
        assert!(latency(&histogram()).curve.is_empty());
    }
}
