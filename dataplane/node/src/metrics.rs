//! What each worker counts, and how a scrape sums it up (Prometheus text format).
//!
//! Counters are relaxed atomics of one worker, so the hot path shares no cache line. Labels are
//! `&'static str` from enums, never from the wire.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::hmac::HmacBatches;
use crate::trials::Trials;

/// Upper bounds of latency buckets, microseconds: 10 µs to about 170 s in steps of the square root of 2.
const BUCKETS: usize = 49;

/// A number that one worker changes and a scrape reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to a counter.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The current value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by a static label.
#[derive(Debug, Default)]
pub struct Labeled(Mutex<BTreeMap<&'static str, u64>>);

impl Labeled {
    /// Counts one.
    pub fn add(&self, label: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(label).or_default() += 1;
    }

    fn sum_into(&self, sums: &mut BTreeMap<&'static str, u64>) {
        for (label, count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *sums.entry(label).or_default() += count;
        }
    }
}

/// A latency histogram.
#[derive(Debug)]
pub struct Latency {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Latency {
    /// Records one duration.
    pub fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX >> 8);
        self.counts[bucket_of(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// Index of the first bucket whose bound is at least `us`; the last one takes the rest.
fn bucket_of(us: u64) -> usize {
    let square = u128::from(us) * u128::from(us);
    // bound(i)^2 = 100 * 2^i, so i = ceil(log2(us^2 / 100)).
    let ratio = square.div_ceil(100).max(1);
    let ceiling = if ratio.is_power_of_two() { ratio.ilog2() } else { ratio.ilog2() + 1 };
    (ceiling as usize).min(BUCKETS - 1)
}

fn bound_seconds(index: usize) -> f64 {
    10e-6 * 2f64.powf(index as f64 / 2.0)
}

macro_rules! worker_metrics {
    ($($kind:ident $name:ident $help:literal;)*) => {
        /// Everything one worker counts.
        #[derive(Debug, Default)]
        pub struct WorkerMetrics {
            $(#[doc = $help] pub $name: worker_metrics!(@type $kind),)*
        }

        impl Collector for Metrics {
            fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
                $(worker_metrics!(@encode $kind, $name, $help, self, encoder);)*
                self.encode_node(&mut encoder)
            }
        }
    };
    (@type counter) => { Count };
    (@type gauge) => { Count };
    (@type reasons) => { Labeled };
    (@type outcomes) => { Labeled };
    (@type latency) => { Latency };
    (@type batches) => { HmacBatches };
    (@encode counter, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        let counter = ConstCounter::new($self.workers.iter().map(|worker| worker.$name.value()).sum::<u64>());
        let metric = $encoder.encode_descriptor(concat!("zen_", stringify!($name)), $help, None, MetricType::Counter)?;
        counter.encode(metric)?;
    };
    (@encode gauge, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        let gauge = ConstGauge::new($self.workers.iter().map(|worker| worker.$name.value()).sum::<u64>());
        let metric = $encoder.encode_descriptor(concat!("zen_", stringify!($name)), $help, None, MetricType::Gauge)?;
        gauge.encode(metric)?;
    };
    (@encode reasons, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        worker_metrics!(@labeled "reason", $name, $help, $self, $encoder);
    };
    (@encode outcomes, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        worker_metrics!(@labeled "outcome", $name, $help, $self, $encoder);
    };
    (@labeled $label:literal, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        let mut sums = BTreeMap::new();
        for worker in &$self.workers {
            worker.$name.sum_into(&mut sums);
        }
        let mut metric =
            $encoder.encode_descriptor(concat!("zen_", stringify!($name)), $help, None, MetricType::Counter)?;
        for (value, count) in sums {
            ConstCounter::new(count).encode(metric.encode_family(&[($label, value)])?)?;
        }
    };
    (@encode latency, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        let unit = Unit::Seconds;
        let mut metric = $encoder.encode_descriptor(concat!("zen_", stringify!($name)), $help, Some(&unit), MetricType::Histogram)?;
        let (sum, total, buckets) = $self.histogram(|worker| &worker.$name);
        metric.encode_histogram::<prometheus_client::encoding::NoLabelSet>(sum, total, &buckets, None)?;
    };
    (@encode batches, $name:ident, $help:literal, $self:ident, $encoder:ident) => {
        let metric =
            $encoder.encode_descriptor(concat!("zen_", stringify!($name)), $help, None, MetricType::Histogram)?;
        HmacBatches::encode_sums($self.workers.iter().map(|worker| &worker.$name), metric)?;
    };
}

worker_metrics! {
    counter events_accepted "Events answered with 202: durable at this ingester";
    reasons requests_refused "Requests refused, by reason";
    reasons requests_observed "Requests that a rule would have refused which only observes or logs, by reason";
    counter rate_sources_evicted "Rates of sources forgotten early, because their table is full";
    counter events_quarantined "Accepted events that a header rule holds back";
    counter events_unrouted "Accepted events that no flow takes";
    reasons flows_undecided "Accepted events with a flow whose condition could not be decided, by reason";
    counter bytes_accepted "Body bytes of accepted events";
    counter idempotency_duplicates "Requests whose event was accepted before, answered 200 with its id";
    counter idempotency_waits "Requests that waited for the write of the same event";
    counter idempotency_keys_missing "Events without the id that their endpoint's key is made of, accepted as new";
    gauge idempotency_keys "Keys of accepted events held now";
    counter idempotency_evicted_early "Keys that left before their window was over, because the table is full";
    counter idempotency_doubles "Events that became durable although another event had their key by then";
    counter duplicates "Events that came over a link again and were not taken again";
    counter duplicate_event_ids "Events whose id was taken before, acknowledged and not delivered again";
    gauge event_ids "Ids of taken events held now";
    counter event_ids_evicted_early "Ids that left before their window was over, because the table is full";
    latency accept_to_durable "From the whole request to its durable record";
    latency accept_to_delivered "From acceptance at the ingester to the target's 2xx";
    latency journal_commit "From submitting a journal commit to its completion";
    counter journal_commits "Journal commits made durable";
    counter journal_records "Journal records made durable";
    counter journal_bytes "Journal bytes made durable, with padding";
    counter journal_write_errors "Journal writes that failed and were tried again";
    counter journal_read_errors "Reads of a journal that failed and are tried again";
    gauge journal_live_bytes "Bytes in live journal segments";
    gauge retained_segments "Segments kept for replay beyond what is live";
    counter retained_shed "Segments kept for replay that a full disk took";
    gauge journal_full "Journals without room: sources get 503";
    counter link_events_sent "Events sent over links";
    counter link_events_received "Events taken from links";
    counter link_connects "Links made ready";
    reasons link_errors "Links closed for an error, by reason";
    reasons peers_denied "Handshakes refused and connections ended because the deny list names the peer, by what it names";
    gauge link_lag_events "Events in the journal that their egress has not acknowledged, upper bound";
    outcomes deliveries "Delivery attempts, by outcome";
    reasons destinations_refused "Addresses of destinations that are not dialled, by reason";
    counter batches "Requests to targets that take several events in one";
    counter retries "Deliveries put off for another attempt";
    counter dead_letters "Deliveries given up and kept as dead letters";
    counter dead_letters_dropped "Dead letters dropped because there were more than the bound";
    gauge dead_letters_kept "Dead letters kept now";
    counter events_lost "Events at the egress given up, because their record is damaged";
    counter dead_letters_discarded "Dead letters that operators threw away";
    counter replays "Dead letters and events that operators sent again";
    gauge replay_pending "Dead letters and events that orders have still to look at, at most";
    counter notes_dropped "Outcomes and retries that did not get into a full journal";
    reasons transform_failures "Deliveries given up because the target's body could not be made, by reason";
    reasons failovers "Outputs that went over to another target, by reason";
    gauge outputs_on_standby "Outputs that use a standby now";
    outcomes probes "Probes of targets that their output does not use, by outcome";
    counter order_keys_missing "Deliveries that are not ordered, because their event lacks the header or member";
    gauge targets_disabled "Targets disabled by a 410";
    gauge targets_paused "Targets that operators paused";
    gauge targets_throttled "Targets held back by a 429 or 503";
    gauge targets_breaker_open "Targets whose circuit breaker is open or half-open";
    gauge targets_rate_limited "Targets with deliveries that wait for the rate";
    gauge attempts_cap "Delivery attempts that may be in flight, over all targets";
    gauge targets_without_token "Targets whose deliveries wait for an access token";
    counter deliveries_without_client_certificate "Deliveries to targets that opted out of mutual TLS";
    counter receipts_written "Receipts of outcomes written and synced";
    gauge receipts_waiting "Receipts that wait for their journal, or for the disk";
    reasons receipts_dropped "Receipts of outcomes that were not written, by reason";
    counter spans_exported "Spans that the collector took";
    reasons spans_dropped "Spans that were not exported, by reason";
    gauge events_live "Events at the egress that are not done";
    gauge queue_depth "Deliveries waiting for an attempt";
    gauge attempts_in_flight "Delivery attempts in flight";
    gauge source_connections "Open connections of sources";
    gauge link_connections "Open links";
    gauge target_connections "Open connections to targets";
    batches hmac_batch_messages "Messages whose HMAC was computed side by side, a batch at a time, by use";
    counter ring_enters "Calls of `io_uring_enter` or `epoll_wait` by workers";
    counter ring_completions "Completions handled";
    gauge drain "1 while draining";
}

/// What the node counts beside its workers.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// What the configuration in force can use.
    pub memory_bound_bytes: Count,
    /// Admin connections closed at once.
    pub admin_refused: Count,
    /// Requests for access tokens that brought none.
    pub tokens_refused: Count,
    /// Reloads that changed nothing, because something is wrong with what they read.
    pub reloads_refused: Count,
    /// Deny lists that could not be read.
    pub deny_list_refused: Count,
    /// Entries of the deny list in force.
    pub deny_list_entries: Count,
    /// How long ago the deny list was confirmed.
    pub deny_list_age_seconds: Count,
    /// 1 while that is too long ago.
    pub deny_list_stale: Count,
    /// The number of the managed generation in force.
    pub managed_generation: Count,
    /// What policies that are only tried come to.
    pub trials: Arc<Trials>,
    /// What the control thread counts that workers count, too.
    pub beside: Arc<WorkerMetrics>,
}

/// Resident memory of this process (`proc_pid_status(5)`), 0 where there is none to read.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// All workers' metrics.
#[derive(Debug)]
pub struct Metrics {
    workers: Vec<Arc<WorkerMetrics>>,
    node: Arc<NodeMetrics>,
}

impl Metrics {
    /// Sums over `workers` and what is beside them at each scrape.
    pub fn new(mut workers: Vec<Arc<WorkerMetrics>>, node: Arc<NodeMetrics>) -> Self {
        workers.push(Arc::clone(&node.beside));
        Self { workers, node }
    }

    fn encode_node(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.encode_trials(encoder)?;
        for (name, help, value) in [
            (
                "zen_memory_bound_bytes",
                "Memory that the configuration can use",
                self.node.memory_bound_bytes.value(),
            ),
            ("zen_memory_resident_bytes", "Memory that the process uses", resident_bytes()),
            (
                "zen_admin_refused",
                "Admin connections closed, since there were as many as may be",
                self.node.admin_refused.value(),
            ),
            (
                "zen_tokens_refused",
                "Requests for access tokens that brought none",
                self.node.tokens_refused.value(),
            ),
            (
                "zen_reloads_refused",
                "Reloads that changed nothing, because something is wrong with what they read",
                self.node.reloads_refused.value(),
            ),
            (
                "zen_deny_list_refused",
                "Deny lists that could not be read; the one before stays in force",
                self.node.deny_list_refused.value(),
            ),
            (
                "zen_deny_list_entries",
                "Entries of the deny list in force",
                self.node.deny_list_entries.value(),
            ),
            (
                "zen_deny_list_age_seconds",
                "How long ago the deny list was confirmed, 0 where nobody asks",
                self.node.deny_list_age_seconds.value(),
            ),
            (
                "zen_deny_list_stale",
                "1 while the deny list has not been confirmed for too long",
                self.node.deny_list_stale.value(),
            ),
            (
                "zen_managed_generation",
                "The number of the managed generation in force, 0 without one",
                self.node.managed_generation.value(),
            ),
        ] {
            let kind = if name.ends_with("_refused") { MetricType::Counter } else { MetricType::Gauge };
            let metric = encoder.encode_descriptor(name, help, None, kind)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(metric)?,
                _ => ConstGauge::new(value).encode(metric)?,
            }
        }
        Ok(())
    }

    fn encode_trials(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Handshakes that a policy was asked about which is only tried, by what it would have said";
        let mut metric = encoder.encode_descriptor("zen_policy_trials", help, None, MetricType::Counter)?;
        for (at, verdict, count) in self.node.trials.counts() {
            ConstCounter::new(count).encode(metric.encode_family(&[("at", at), ("verdict", verdict)])?)?;
        }
        Ok(())
    }

    fn histogram(&self, pick: impl Fn(&WorkerMetrics) -> &Latency) -> (f64, u64, Vec<(f64, u64)>) {
        let mut buckets: Vec<(f64, u64)> = (0..BUCKETS - 1).map(|index| (bound_seconds(index), 0)).collect();
        buckets.push((f64::INFINITY, 0));
        let (mut sum, mut total) = (0.0, 0);
        for latency in self.workers.iter().map(|worker| pick(worker)) {
            for (bucket, count) in buckets.iter_mut().zip(&latency.counts) {
                bucket.1 += count.load(Ordering::Relaxed);
            }
            sum += latency.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        }
        total += buckets.iter().map(|bucket| bucket.1).sum::<u64>();
        (sum, total, buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_its_bucket() {
        for us in [0, 1, 9, 10, 11, 14, 15, 20, 21, 100, 999, 1_000, 123_456, 10_000_000] {
            let index = bucket_of(us);
            let seconds = us as f64 / 1e6;
            assert!(seconds <= bound_seconds(index) * 1.000_001, "{us}");
            assert!(index == 0 || seconds > bound_seconds(index - 1) * 0.999_999, "{us}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_scrape_sums_over_workers() {
        let workers = vec![Arc::new(WorkerMetrics::default()), Arc::new(WorkerMetrics::default())];
        for worker in &workers {
            worker.events_accepted.add(2);
            worker.requests_refused.add("signature");
            worker.accept_to_durable.record(Duration::from_micros(100));
            for size in [0, 1, 12, 13, 100] {
                worker.hmac_batch_messages.source.record(size);
            }
        }
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Metrics::new(workers, Arc::default())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("zen_events_accepted_total 4"), "{text}");
        assert!(text.contains("zen_requests_refused_total{reason=\"signature\"} 2"), "{text}");
        assert!(text.contains("zen_accept_to_durable_seconds_count 2"), "{text}");
        for (series, count) in [
            ("count{use=\"source\"}", 8),
            ("count{use=\"delivery\"}", 0),
            ("bucket{le=\"8.0\",use=\"source\"}", 2),
            ("bucket{le=\"12.0\",use=\"source\"}", 4),
            ("bucket{le=\"64.0\",use=\"source\"}", 6),
            ("bucket{le=\"+Inf\",use=\"source\"}", 8),
        ] {
            let line = format!("zen_hmac_batch_messages_{series} {count}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
        assert!(text.contains("zen_hmac_batch_messages_sum{use=\"source\"} 252.0\n"), "{text}");
    }
}
