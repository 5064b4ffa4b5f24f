//! Whether the rest went on: the longest time without an acceptance, and without a delivery per target.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::load::LoadState;
use crate::sink::SinkState;

const SAMPLE: Duration = Duration::from_millis(100);
/// Under a steady load of many events a second, a pause as long as this is a stop and not the machine's noise.
const GAP_MAX: Duration = Duration::from_secs(5);

/// A count that should keep rising.
#[derive(Clone, Copy, Debug)]
struct Rising {
    count: u64,
    since: Instant,
    gap: Duration,
}

impl Rising {
    fn new(count: u64, now: Instant) -> Self {
        Self { count, since: now, gap: Duration::ZERO }
    }

    fn handle_sample(&mut self, count: u64, now: Instant) {
        self.gap = self.gap.max(now - self.since);
        if count != self.count {
            (self.count, self.since) = (count, now);
        }
    }
}

/// The longest pauses of a time.
#[derive(Clone, Debug)]
pub(crate) struct Gaps {
    accepted: Duration,
    delivered: BTreeMap<String, Duration>,
}

impl Gaps {
    /// What stood still though it should not: acceptance, if it is `accepts`, and the `healthy` targets.
    pub(crate) fn complaints(&self, accepts: bool, healthy: &[&str]) -> Vec<String> {
        let mut complaints = Vec::new();
        if accepts && self.accepted > GAP_MAX {
            complaints.push(format!("nothing was accepted for {:.1} s", self.accepted.as_secs_f64()));
        }
        for (target, gap) in &self.delivered {
            if healthy.contains(&target.as_str()) && *gap > GAP_MAX {
                complaints.push(format!("nothing was delivered to {target} for {:.1} s", gap.as_secs_f64()));
            }
        }
        complaints
    }
}

/// Watches while a fault lasts.
#[derive(Debug)]
pub(crate) struct FlowWatch {
    task: JoinHandle<()>,
    seen: Arc<std::sync::Mutex<Gaps>>,
}

impl FlowWatch {
    /// Begins now.
    pub(crate) fn start(load: Arc<LoadState>, sink: Arc<SinkState>, targets: Vec<String>) -> Self {
        let gaps = Gaps { accepted: Duration::ZERO, delivered: BTreeMap::new() };
        let seen = Arc::new(std::sync::Mutex::new(gaps));
        let task = tokio::spawn(watch(load, sink, targets, Arc::clone(&seen)));
        Self { task, seen }
    }

    /// Ends; the longest pauses until now.
    pub(crate) fn stop(self) -> Gaps {
        self.task.abort();
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

async fn watch(
    load: Arc<LoadState>,
    sink: Arc<SinkState>,
    targets: Vec<String>,
    seen: Arc<std::sync::Mutex<Gaps>>,
) {
    let begun = Instant::now();
    let mut accepted = Rising::new(load.accepted.load(Ordering::Relaxed), begun);
    let mut delivered: Vec<(String, Rising)> =
        targets.into_iter().map(|name| (name.clone(), Rising::new(sink.count_of(&name), begun))).collect();
    loop {
        tokio::time::sleep(SAMPLE).await;
        let now = Instant::now();
        accepted.handle_sample(load.accepted.load(Ordering::Relaxed), now);
        for (name, rising) in &mut delivered {
            rising.handle_sample(sink.count_of(name), now);
        }
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.accepted = accepted.gap;
        seen.delivered = delivered.iter().map(|(name, rising)| (name.clone(), rising.gap)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_is_told_apart_from_a_pause() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut steady = Rising::new(0, begun);
        let mut stuck = steady;
        for second in 1..=20 {
            steady.handle_sample(second / 4, at(second));
            stuck.handle_sample(u64::from(second >= 10), at(second));
        }
        let gaps = Gaps {
            accepted: stuck.gap,
            delivered: [("alerts".to_owned(), steady.gap), ("billing".to_owned(), stuck.gap)].into(),
        };
        assert_eq!(gaps.complaints(false, &["alerts"]), Vec::<String>::new());
        let complaints = gaps.complaints(true, &["alerts", "billing"]);
        assert_eq!(
            complaints,
            ["nothing was accepted for 10.0 s", "nothing was delivered to billing for 10.0 s"]
        );
    }
}
