//! An order and its answer, as they travel between the admin interface and a worker.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use zen_core::deliver::{DeadLetter, DeadReason, FaultKind, LetterKey};
use zen_core::id::EventId;
use zen_core::record::StreamId;

use crate::mesh::EventBytes;

/// Where an answer goes.
pub type Answer<T> = oneshot::Sender<T>;

/// What an operator wants of one worker.
#[derive(Debug)]
pub enum Order {
    /// Dead letters, oldest first.
    List {
        /// Which.
        filter: Filter,
        /// Behind this one.
        after: Option<LetterKey>,
        /// At most so many.
        limit: usize,
        /// Gets them.
        answer: Answer<Page>,
    },
    /// One dead letter.
    Find {
        /// Its event.
        handle: u64,
        /// Position in the event's target list.
        target: u8,
        /// Gets it.
        answer: Answer<Option<Letter>>,
    },
    /// Do something with dead letters.
    Work {
        /// What.
        work: Work,
        /// Which.
        chosen: Chosen,
        /// Told when all of it is durable.
        answer: Answer<Result<Tally, OrderRefused>>,
    },
    /// Put events in once more.
    Copies {
        /// Them.
        copies: VecDeque<Copy>,
        /// Told when they are durable.
        answer: Answer<Result<Tally, OrderRefused>>,
    },
}

/// What to do with dead letters.
#[derive(Clone, Debug)]
pub enum Work {
    /// Send them to their target again.
    Replay,
    /// Send them to another target instead, as events of their own.
    Move(Arc<str>),
    /// Throw them away.
    Discard,
}

/// Which dead letters an order is about.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// These, by handle and position of the target.
    Letters(VecDeque<(u64, u8)>),
    /// All that are there now and match.
    Matching(Filter),
}

/// Which dead letters match; what is none matches all.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The target's name.
    pub target: Option<Arc<str>>,
    /// Why they died.
    pub reason: Option<DeadReason>,
    /// On whose side that was.
    pub kind: Option<FaultKind>,
    /// The event.
    pub event: Option<EventId>,
    /// Died not before this Unix ms.
    pub since_ms: u64,
    /// Died not after this Unix ms.
    pub until_ms: u64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { target: None, reason: None, kind: None, event: None, since_ms: 0, until_ms: u64::MAX }
    }
}

/// An event that is put in once more.
#[derive(Debug)]
pub struct Copy {
    /// Where it was before.
    pub handle: u64,
    /// Its stream.
    pub stream: StreamId,
    /// How often it was sent again, this time included.
    pub replay: u8,
    /// Its targets.
    pub targets: Vec<Arc<str>>,
    /// Its encoding.
    pub event: EventBytes,
}

/// A part of a worker's dead letters.
#[derive(Debug)]
pub struct Page {
    /// In the order in which they died.
    pub letters: Vec<Letter>,
    /// There may be more behind this one.
    pub more_after: Option<LetterKey>,
}

/// What is known of a dead letter, without a look at its event.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The worker that holds it.
    pub worker: u16,
    /// Its place there.
    pub key: LetterKey,
    /// The event.
    pub event_id: Option<EventId>,
    /// The target that did not take it.
    pub target: Arc<str>,
    /// Why.
    pub died: DeadLetter,
    /// How often it was sent again before.
    pub replay: u8,
    /// Size of the event, bytes.
    pub bytes: u32,
}

/// What came of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent again, moved or thrown away.
    pub done: u64,
    /// Left as they were: no dead letter now, a target that is not configured, or an event that cannot be read.
    pub skipped: u64,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefused {
    /// As many as there may be are being worked off.
    #[error("too many orders are being worked off; try again when zen_replay_pending has fallen")]
    Busy,
}

impl Filter {
    /// Whether a letter is one of these.
    pub(super) fn matches(&self, target: &str, letter: &DeadLetter, event: Option<EventId>) -> bool {
        self.target.as_deref().is_none_or(|wanted| wanted == target)
            && self.reason.is_none_or(|wanted| letter.reason == Some(wanted))
            && self.kind.is_none_or(|wanted| letter.reason.is_some_and(|reason| reason.kind() == wanted))
            && self.event.is_none_or(|wanted| event == Some(wanted))
    }

    /// The place before the first letter that can match.
    pub(super) fn start(&self) -> Option<LetterKey> {
        (self.since_ms > 0).then_some(LetterKey { died_ms: self.since_ms, handle: 0, target: 0 })
    }
}
