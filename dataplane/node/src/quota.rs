//! A number of things that the whole node may have at a time, shared by its workers.
//!
//! Taken when a connection comes and given back when it goes: rare enough for one shared counter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many there are.
#[derive(Clone, Debug, Default)]
pub struct Quota(Arc<AtomicU32>);

/// One of them; dropping it gives its place back.
#[derive(Debug)]
pub struct Permit(Arc<AtomicU32>);

impl Quota {
    /// A place, unless `max` are taken; a lower `max` counts at once.
    pub fn take(&self, max: u32) -> Option<Permit> {
        let taken = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < max).then_some(count + 1));
        taken.ok().map(|_| Permit(Arc::clone(&self.0)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_permit_goes() {
        let quota = Quota::default();
        let first = quota.take(2).unwrap();
        let second = quota.clone().take(2).unwrap();
        assert!(quota.take(2).is_none());
        drop(first);
        assert!(quota.take(1).is_none(), "a lower bound counts at once");
        drop(second);
        assert!(quota.take(1).is_some());
    }
}
