//! How many connections each identity has, so that none takes the places of others, and how many were closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zen_identity::SpiffeId;

use super::IDENTITY_CONNECTIONS_MAX;

const SAID_EVERY: Duration = Duration::from_secs(10);

/// Connections by identity; those without any are not in it, so it is bounded by the number of connections.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<SpiffeId, usize>>);

/// One connection's place, given back when it is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    id: SpiffeId,
}

/// Connections that were closed for want of a place: whoever floods us does not fill the log too.
#[derive(Default)]
pub(super) struct Shed(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    count: u64,
    said_at: Option<Instant>,
}

impl Places {
    /// None if the identity has all of its places.
    pub(super) fn take(&self, id: &SpiffeId) -> Option<Place<'_>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(id.clone()).or_default();
        if *count == IDENTITY_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(Place { places: self, id: id.clone() })
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

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = counts.entry(self.id.clone()) else { return };
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
        let places = Places::default();
        let [one, other] = ["spiffe://a/b", "spiffe://a/c"].map(|id| SpiffeId::parse(id).unwrap());
        let taken: Vec<_> = (0..IDENTITY_CONNECTIONS_MAX).map(|_| places.take(&one).unwrap()).collect();
        assert!(places.take(&one).is_none());
        assert!(places.take(&other).is_some());
        drop(taken);
        assert!(places.0.lock().unwrap().is_empty());
        assert!(places.take(&one).is_some());
    }
}
