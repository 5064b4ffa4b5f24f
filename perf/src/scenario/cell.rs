//! One system under one load: CPU between the generator's phases `measure` and `drain`, and what the generator saw.
//!
//! An event that was accepted in the span may be delivered behind it, and the other way round. So each hop's process is divided
//! by the events that it handled, and what belongs to neither, the kernel's threads and interrupts, by the mean of both.

use super::placement::Placement;
use super::running::{Counts, Running};
use super::sender::{Order, Sender};
use crate::bench::{Calibration, CpuTimes};
use crate::error::LabError;
use crate::lab::quantile_of;
use crate::results::{CpuPerEvent, Load, Round};

/// One cell in one round.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// As results have it.
    pub(super) round: Round,
    /// Calls that wait for and submit work, for each event, of each hop; `None` of peers.
    pub(super) enters: Option<[f64; 2]>,
    /// Messages of the median batch in which sources' signatures were verified; `None` of peers.
    pub(super) batch: Option<f64>,
    /// Events per second that were both accepted and delivered.
    pub(super) carried_per_s: f64,
}

/// Runs one load through a system, and waits until all of it is delivered.
pub(super) async fn measure(
    running: &mut Running,
    order: &Order,
    placement: &Placement,
) -> Result<Measured, LabError> {
    let slowdown = Calibration::measure()?.slowdown();
    let mut sender = Sender::start(&running.lab, order, placement)?;
    sender.phase("measure").await?;
    let (counts, cpu) = (running.counts().await?, running.cpu(sender.id()));
    sender.phase("drain").await?;
    let used = running.cpu(sender.id());
    let counted = running.counts().await?;
    sender.phase("done").await?;
    let load = sender.finish().await?;
    running.settle().await?;
    let span = Span::new(running.is_mesh(), &load, &counts, &counted);
    let enters = (running.is_mesh() && span.is_measured()).then(|| {
        let calls = |hop: usize| (counted.enters[hop] - counts.enters[hop]) / span.handled();
        [calls(0), calls(1)]
    });
    let batch = median_batch(&counts.batches, &counted.batches);
    let cpu_us = span.is_measured().then(|| span.cpu(&used, &cpu));
    let carried_per_s = span.first.min(span.second) / load.seconds.max(f64::MIN_POSITIVE);
    let round = Round { load, cpu_us, idle_connection_bytes: None, slowdown: Some(slowdown) };
    Ok(Measured { round, enters, batch, carried_per_s })
}

/// The median of what came to cumulative buckets, which all nodes have alike.
fn median_batch(before: &[(f64, f64)], after: &[(f64, f64)]) -> Option<f64> {
    let came = before.iter().zip(after).map(|((bound, then), (_, now))| (*bound, now - then));
    quantile_of(&came.collect::<Vec<_>>(), 0.5)
}

/// Events that each hop handled in the span.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    first: f64,
    second: f64,
}

impl Span {
    fn new(is_mesh: bool, load: &Load, before: &Counts, after: &Counts) -> Self {
        if !is_mesh {
            // They answer behind the delivery.
            let answered = load.accepted_per_s * load.seconds;
            return Self { first: answered, second: answered };
        }
        let duplicates = (after.answered - after.accepted) - (before.answered - before.accepted);
        let first = after.answered - before.answered;
        // A duplicate is done with when it is answered.
        Self { first, second: after.delivered - before.delivered + duplicates }
    }

    fn is_measured(self) -> bool {
        self.first > 0.0 && self.second > 0.0
    }

    fn handled(self) -> f64 {
        f64::midpoint(self.first, self.second)
    }

    fn cpu(self, after: &CpuTimes, before: &CpuTimes) -> CpuPerEvent {
        let used = after.since(before);
        let (first, second) = (used.first / self.first, used.second / self.second);
        let rest = (used.machine() - used.first - used.second) / self.handled();
        let per = |us: f64| us / self.handled();
        CpuPerEvent {
            machine: first + second + rest,
            first,
            second,
            kernel: per(used.kernel),
            sink: per(used.sink),
            sender: per(used.sender),
            strangers: per(used.others),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(accepted: f64, answered: f64, delivered: f64) -> Counts {
        Counts { accepted, answered, delivered, enters: [0.0; 2], batches: Vec::new() }
    }

    #[test]
    fn only_batches_of_the_span_count() {
        let before = [(8.0, 100.0), (12.0, 100.0), (16.0, 100.0)];
        let after = [(8.0, 100.0), (12.0, 110.0), (16.0, 130.0)];
        assert_eq!(median_batch(&before, &after), Some(13.0));
        assert_eq!(median_batch(&before, &before), None);
        assert_eq!(median_batch(&[], &[]), None);
    }

    #[test]
    fn each_hop_is_divided_by_what_it_handled() {
        let load = Load { accepted: 95, accepted_per_s: 45.0, seconds: 2.0, ..Load::default() };
        let (before, after) = (counts(10.0, 10.0, 0.0), counts(110.0, 120.0, 70.0));
        let mesh = Span::new(true, &load, &before, &after);
        assert_eq!(mesh, Span { first: 110.0, second: 80.0 });
        assert_eq!(Span::new(false, &load, &before, &after), Span { first: 90.0, second: 90.0 });
        assert!(!Span::new(true, &load, &before, &before).is_measured());
    }
}
