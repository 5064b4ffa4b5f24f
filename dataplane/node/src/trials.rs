//! Policies that are only tried: verdicts in, counts and a line now and then out. Nothing is refused by them.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use zen_identity::{Decision, SpiffeId, TrialObserver};

use crate::control::lock;
use crate::metrics::Count;

/// Between two lines, whatever the number of peers.
const LINE_PAUSE: Duration = Duration::from_secs(10);

/// Where a policy is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialPlace {
    /// Peers of links that dial us.
    Listener,
    /// A peer of a link that we dial.
    Link,
    /// A target.
    Target,
}

impl TrialPlace {
    const ALL: [Self; 3] = [Self::Listener, Self::Link, Self::Target];

    fn label(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Link => "link",
            Self::Target => "target",
        }
    }
}

/// What all trials of a node came to; for the life of the process.
#[derive(Debug, Default)]
pub struct Trials {
    counts: [[Count; Decision::ALL.len()]; TrialPlace::ALL.len()],
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    last: Option<Instant>,
    unsaid: u64,
}

impl Trials {
    /// What is told of one place; `name` is the configuration's for it.
    pub fn observer(self: &Arc<Self>, place: TrialPlace, name: &str) -> Arc<dyn TrialObserver> {
        Arc::new(Observer { trials: Arc::clone(self), place, name: name.to_owned() })
    }

    /// Handshakes by place and verdict, those left out that have not been.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let places = TrialPlace::ALL.into_iter().zip(&self.counts);
        let all = places.flat_map(|(place, counts)| {
            let verdicts = Decision::ALL.into_iter().zip(counts);
            verdicts.map(move |(decision, count)| (place.label(), decision.label(), count.value()))
        });
        all.filter(|(.., count)| *count > 0)
    }

    /// How many verdicts went unsaid since the last line, if there may be one now.
    fn poll_line(&self, now: Instant) -> Option<u64> {
        let mut lines = lock(&self.lines);
        if lines.last.is_some_and(|last| now < last + LINE_PAUSE) {
            lines.unsaid += 1;
            return None;
        }
        lines.last = Some(now);
        Some(std::mem::take(&mut lines.unsaid))
    }
}

struct Observer {
    trials: Arc<Trials>,
    place: TrialPlace,
    name: String,
}

impl TrialObserver for Observer {
    fn handle_verdict(&self, id: &SpiffeId, in_force: Decision, tried: Decision) {
        self.trials.counts[self.place as usize][tried as usize].add(1);
        if in_force == tried {
            return;
        }
        let Some(unsaid) = self.trials.poll_line(Instant::now()) else { return };
        let (at, name) = (self.place.label(), &*self.name);
        let (decided, would_be) = (in_force.label(), tried.label());
        tracing::warn!(at, name, peer = %id, decided, would_be, unsaid, "a policy that is only tried decides otherwise");
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("place", &self.place)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_is_counted_and_few_are_said() {
        let trials = Arc::new(Trials::default());
        let observer = trials.observer(TrialPlace::Target, "demo");
        let id = SpiffeId::parse("spiffe://example.org/target/demo").unwrap();
        for _ in 0..3 {
            observer.handle_verdict(&id, Decision::Allowed, Decision::NotListed);
        }
        trials.observer(TrialPlace::Listener, "links").handle_verdict(
            &id,
            Decision::Denied,
            Decision::Denied,
        );
        let counts: Vec<_> = trials.counts().collect();
        assert_eq!(counts, [("listener", "denied", 1), ("target", "not_listed", 3)]);
        let later = Instant::now() + LINE_PAUSE;
        assert_eq!((trials.poll_line(later), trials.poll_line(later)), (Some(2), None));
        assert_eq!(trials.poll_line(later + LINE_PAUSE), Some(1));
    }
}
