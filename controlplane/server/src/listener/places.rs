//! How many connections each client has, so that none takes the places of others, and how many were closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const SAID_EVERY: Duration = Duration::from_secs(10);

/// Connections by client; those without any are not in it, so it is bounded by the number of connections.
pub(crate) struct Places<K> {
    counts: Mutex<HashMap<K, usize>>,
    one_max: usize,
}

/// One connection's place, given back when it is dropped.
pub(crate) struct Place<'a, K: Hash + Eq + Clone> {
    places: &'a Places<K>,
    client: K,
}

/// Connections that were closed for want of a place: whoever floods us does not fill the log too.
#[derive(Default)]
pub(super) struct Shed(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    count: u64,
    said_at: Option<Instant>,
}

impl<K: Hash + Eq + Clone> Places<K> {
    /// At most `one_max` places for each client.
    pub(crate) fn of_each(one_max: usize) -> Self {
        Self { counts: Mutex::default(), one_max }
    }

    /// None if the client has all of its places.
    pub(crate) fn take(&self, client: &K) -> Option<Place<'_, K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client.clone()).or_default();
        if *count == self.one_max {
            return None;
        }
        *count += 1;
        Some(Place { places: self, client: client.clone() })
    }
}

impl Shed {
    /// Counts one, and says so if nothing was said for a while.
    pub(super) fn note(&self, reason: &'static str) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.count += 1;
        if noted.said_at.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            tracing::warn!(count = noted.count, "connections were closed, the last because {reason}");
            *noted = Noted { count: 0, said_at: Some(Instant::now()) };
        }
    }
}

impl<K: Hash + Eq + Clone> Drop for Place<'_, K> {
    fn drop(&mut self) {
        let mut counts = self.places.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = counts.entry(self.client.clone()) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let places = Places::of_each(3);
        let [one, other] = ["one", "other"];
        let taken: Vec<_> = (0..3).map(|_| places.take(&one).unwrap()).collect();
        assert!(places.take(&one).is_none());
        assert!(places.take(&other).is_some());
        drop(taken);
        assert!(places.counts.lock().unwrap().is_empty());
        assert!(places.take(&one).is_some());
    }
}
