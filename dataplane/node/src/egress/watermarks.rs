//! How far each stream is durable at this node, for links that resume; shared by its workers.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use zen_core::record::{STREAMS_MAX, StreamId};

/// A mark per stream. A checkpoint holds [`STREAMS_MAX`] at most, so no more are taken on.
#[derive(Debug, Default)]
pub struct Watermarks(Mutex<HashMap<StreamId, Arc<AtomicU64>>>);

impl Watermarks {
    /// The mark of a stream whose events are in a journal already.
    pub fn of(&self, stream: StreamId) -> Arc<AtomicU64> {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(marks.entry(stream).or_default())
    }

    /// The mark of a stream whose link begins; none if it is new and there are too many.
    pub fn admit(&self, stream: StreamId) -> Option<Arc<AtomicU64>> {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.len() >= STREAMS_MAX {
            return marks.get(&stream).cloned();
        }
        Some(Arc::clone(marks.entry(stream).or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_known_stream_is_always_admitted_and_a_new_one_up_to_the_bound() {
        let stream = |number: usize| (number as u128).to_le_bytes();
        let marks = Watermarks::default();
        marks.of(stream(0)).store(7, Ordering::Release);
        assert!((1..STREAMS_MAX).all(|number| marks.admit(stream(number)).is_some()));
        assert!(marks.admit(stream(STREAMS_MAX)).is_none());
        assert_eq!(marks.admit(stream(0)).map(|mark| mark.load(Ordering::Acquire)), Some(7));
    }
}
