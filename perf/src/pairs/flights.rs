//! How long events take from when they are due to their delivery.
//!
//! An event carries its number, and the numbers of a load are due at fixed times: a source that falls behind does not
//! hide what an event waited for it. In: bodies as they arrive. Out: a histogram of the events in the window.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const LATENCY_US_MAX: u64 = 120_000_000;
/// `{"lab_event":"`, which every sample begins with.
const ID_AT: usize = 14;
const ID_BYTES: usize = 36;

/// Which events count.
#[derive(Debug)]
pub(super) struct Window {
    /// Of this run.
    pub(super) run: u64,
    /// When event 0 was due.
    pub(super) begun: Instant,
    /// Events per second.
    pub(super) rate: u32,
    /// Numbers.
    pub(super) numbers: Range<u64>,
}

impl Window {
    fn due(&self, number: u64) -> Instant {
        self.begun + Duration::from_secs_f64(number as f64 / f64::from(self.rate))
    }
}

/// Takes in arrivals at the healthy targets.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Option<(Window, Histogram<u64>)>>);

impl Flights {
    /// Begins with none.
    pub(super) fn open(&self, window: Window) {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds are in order");
        *self.locked() = Some((window, latency_us));
    }

    /// A body arrived.
    pub(super) fn handle_arrival(&self, body: &[u8], now: Instant) {
        let Some((run, number)) = parse_id(body) else { return };
        if let Some((window, latency_us)) = &mut *self.locked()
            && window.run == run
            && window.numbers.contains(&number)
        {
            let waited = now.saturating_duration_since(window.due(number));
            latency_us.saturating_record(waited.as_micros() as u64);
        }
    }

    /// Arrivals of the window so far.
    pub(super) fn count(&self) -> u64 {
        self.locked().as_ref().map_or(0, |(_, latency_us)| latency_us.len())
    }

    /// Ends; microseconds of each arrival.
    pub(super) fn close(&self) -> Option<Histogram<u64>> {
        self.locked().take().map(|(_, latency_us)| latency_us)
    }

    fn locked(&self) -> MutexGuard<'_, Option<(Window, Histogram<u64>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Run and number of [`crate::samples::source_id`], at the start of a body.
fn parse_id(body: &[u8]) -> Option<(u64, u64)> {
    let id = std::str::from_utf8(body.get(ID_AT..ID_AT + ID_BYTES)?).ok()?;
    let both = u128::from_str_radix(&id.replace('-', ""), 16).ok()?;
    Some(((both >> 64) as u64, both as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::source_id;

    fn body(run: u64, number: u64) -> Vec<u8> {
        format!("{{\"lab_event\":\"{}\",\"a\":1}}", source_id(run, number)).into_bytes()
    }

    #[test]
    fn an_arrival_is_as_late_as_it_is_behind_its_due_time() {
        let begun = Instant::now();
        let flights = Flights::default();
        flights.handle_arrival(&body(7, 100), begun);
        flights.open(Window { run: 7, begun, rate: 100, numbers: 100..200 });
        let at = |ms| begun + Duration::from_millis(ms);
        for (run, number, ms) in [(7, 100, 1_005), (7, 199, 2_000), (7, 200, 2_001), (8, 150, 1_600)] {
            flights.handle_arrival(&body(run, number), at(ms));
        }
        assert_eq!(flights.count(), 2);
        let latency_us = flights.close().unwrap();
        assert!((5_000..5_010).contains(&latency_us.min()), "{}", latency_us.min());
        assert!((10_000..10_020).contains(&latency_us.max()), "{}", latency_us.max());
        assert_eq!(flights.count(), 0);
    }

    #[test]
    fn other_bodies_do_not_count() {
        assert_eq!(parse_id(b"{}"), None);
        assert_eq!(parse_id(&[0xff; 64]), None);
        assert_eq!(parse_id(&body(u64::MAX, 3)), Some((u64::MAX, 3)));
    }
}
