//! How many messages the batches have whose HMACs are computed side by side, by what they are for.

use std::fmt::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper bounds, messages: what kernels take at once, and three quarters of the widest.
const BOUNDS: [u16; 8] = [1, 2, 4, 8, 12, 16, 32, 64];

/// Sizes of the batches of one use; one worker changes them, and a scrape reads them.
#[derive(Debug, Default)]
pub struct BatchSizes {
    counts: [AtomicU64; BOUNDS.len() + 1],
    messages: AtomicU64,
}

impl BatchSizes {
    /// Records a batch; one of no messages is none.
    pub fn record(&self, messages: usize) {
        if messages == 0 {
            return;
        }
        let bucket = BOUNDS.partition_point(|bound| usize::from(*bound) < messages);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
    }
}

/// Batches by use.
#[derive(Debug, Default)]
pub struct HmacBatches {
    /// Signatures of sources.
    pub source: BatchSizes,
    /// Events that leave over links.
    pub link_send: BatchSizes,
    /// Events that come over links.
    pub link_receive: BatchSizes,
    /// Deliveries to targets.
    pub delivery: BatchSizes,
}

impl HmacBatches {
    /// Writes the histograms of all workers' sums.
    pub fn encode_sums<'a>(
        workers: impl Iterator<Item = &'a Self> + Clone,
        mut metric: MetricEncoder<'_>,
    ) -> Result<(), Error> {
        for (at, (purpose, _)) in Self::default().by_use().into_iter().enumerate() {
            let sum = |of: &dyn Fn(&BatchSizes) -> u64| -> u64 {
                workers.clone().map(|worker| of(worker.by_use()[at].1)).sum()
            };
            let bounds = BOUNDS.iter().map(|bound| f64::from(*bound)).chain([f64::INFINITY]);
            let count = |at: usize| sum(&|sizes| sizes.counts[at].load(Ordering::Relaxed));
            let buckets: Vec<(f64, u64)> = bounds.enumerate().map(|(at, bound)| (bound, count(at))).collect();
            let messages: u64 = sum(&|sizes| sizes.messages.load(Ordering::Relaxed));
            let batches = buckets.iter().map(|bucket| bucket.1).sum();
            let labels = [("use", purpose)];
            let mut family = metric.encode_family(&labels)?;
            family.encode_histogram::<NoLabelSet>(messages as f64, batches, &buckets, None)?;
        }
        Ok(())
    }

    fn by_use(&self) -> [(&'static str, &BatchSizes); 4] {
        let Self { source, link_send, link_receive, delivery } = self;
        [("source", source), ("link_send", link_send), ("link_receive", link_receive), ("delivery", delivery)]
    }
}
