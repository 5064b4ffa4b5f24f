//! Messages between workers, and from the control side to a worker.
//!
//! A worker owns everything it touches; what another worker must do travels as a message into its
//! inbox, and one doorbell per tick. Inboxes are bounded by construction: each live event has at most
//! one message per target under way, and live events are bounded by `egress.events_max`; requests that
//! wait for another worker's write are bounded by the table of keys, orders by the places for them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::SegQueue;
use tokio::sync::OwnedSemaphorePermit;
use zen_core::dedupe::Waiter;
use zen_core::deliver::DeadReason;
pub use zen_core::deliver::EventBytes;
use zen_core::id::EventId;
use zen_core::journal::SegmentId;
use zen_uring::Waker;

use crate::egress::{Order, TargetOrder};
use crate::link::LinkHandover;

/// Which of a worker's two journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JournalRole {
    /// Accepted events on their way to an egress.
    Ingester,
    /// Events on their way to targets.
    Egress,
    /// Keys of accepted events, for when the events are trimmed.
    Index,
}

/// An event at the egress, by the worker whose journal holds it and its handle there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    /// Worker index.
    pub origin: u16,
    /// Sequence of its first record in that worker's journal; 48 bits are used.
    pub handle: u64,
}

impl EventKey {
    /// As the opaque key of a target queue.
    pub fn packed(self) -> u64 {
        debug_assert!(self.handle < 1 << 48);
        u64::from(self.origin) << 48 | self.handle
    }

    /// Back from [`EventKey::packed`].
    pub fn unpacked(packed: u64) -> Self {
        Self { origin: (packed >> 48) as u16, handle: packed & ((1 << 48) - 1) }
    }
}

/// A delivery handed to the worker that owns its target.
#[derive(Debug)]
pub struct Handoff {
    /// Whose event.
    pub key: EventKey,
    /// Position of the target in the event's list.
    pub target_index: u8,
    /// The target's name.
    pub target: Arc<str>,
    /// Attempts already made, in an earlier life of the process.
    pub attempt: u32,
    /// When the next attempt is due, steady ms; 0 for at once.
    pub due_ms: u64,
    /// How often an operator sent it again.
    pub replay: u8,
    /// Deliveries that share it go out in order; 0 is none.
    pub order_key: u64,
    /// The event, unless memory is short: then the owner fetches it when its turn comes.
    pub bytes: Option<EventBytes>,
    /// Its size.
    pub bytes_len: u32,
}

/// What became of a delivery, for the worker whose journal holds the event.
#[derive(Debug)]
pub enum Verdict {
    /// The target has it.
    Delivered {
        /// Status of its answer.
        status: u16,
        /// Attempts made.
        attempts: u32,
    },
    /// Another attempt at this steady ms.
    Retry {
        /// Attempts made.
        attempt: u32,
        /// Steady ms.
        due_ms: u64,
    },
    /// Given up.
    Dead {
        /// Why.
        reason: DeadReason,
        /// Status of the last answer; 0 if none came.
        status: u16,
        /// Attempts made.
        attempts: u32,
    },
}

/// What the journal gave for a delivery.
#[derive(Debug)]
pub enum Fetched {
    /// The event.
    Event(EventBytes),
    /// Its record is damaged, or the disk does not read.
    Unreadable,
    /// Nobody waits for it any more.
    Ended,
}

/// A message to a worker.
#[derive(Debug)]
pub enum Message {
    /// A prepared journal segment, or why there is none.
    Segment { role: JournalRole, id: SegmentId, file: Result<OwnedFd, std::io::Error> },
    /// A name's addresses, or why there are none.
    Resolved { host: Arc<str>, result: Result<Vec<std::net::IpAddr>, std::io::Error> },
    /// A link whose stream lives on this worker.
    Link(Box<LinkHandover>),
    /// An ingester has this many streams: dial your share.
    Streams { ingester: String, streams: u16 },
    /// Deliver this.
    Deliver(Handoff),
    /// A delivery of yours ended or was put off.
    Verdict { key: EventKey, target_index: u8, verdict: Verdict },
    /// Send me this event.
    Fetch { key: EventKey, target: Arc<str>, reply_to: u16 },
    /// Here it is, or why not.
    Fetched { key: EventKey, target: Arc<str>, fetched: Fetched },
    /// The write that a request of yours waited for ended: its event's id, or none if it failed.
    Settled { waiter: Waiter, event_id: Option<EventId> },
    /// An operator wants this; the place is free again when it is taken.
    Order { order: Box<Order>, place: OwnedSemaphorePermit },
    /// An operator asks about targets of yours; the place is free again when it is taken.
    Target { order: Box<TargetOrder>, place: OwnedSemaphorePermit },
    /// Stop taking work in, finish what is there.
    Drain,
}

/// One worker's way to all inboxes.
#[derive(Clone, Debug)]
pub struct Mesh {
    inboxes: Arc<[Inbox]>,
    backlogs: Arc<Mutex<BTreeMap<Arc<str>, Arc<AtomicUsize>>>>,
    own: Option<u16>,
}

#[derive(Debug)]
struct Inbox {
    queue: SegQueue<Message>,
    waker: std::sync::OnceLock<Waker>,
}

impl Mesh {
    /// Inboxes for `workers` workers.
    pub fn new(workers: u16) -> Self {
        let inboxes = (0..workers)
            .map(|_| Inbox { queue: SegQueue::new(), waker: std::sync::OnceLock::new() })
            .collect();
        Self { inboxes, backlogs: Arc::default(), own: None }
    }

    /// The way of one worker: what it sends to itself needs no doorbell.
    pub fn for_worker(&self, own: u16) -> Self {
        Self { own: Some(own), ..self.clone() }
    }

    /// Whether messages wait for `worker`.
    pub fn has_messages(&self, worker: u16) -> bool {
        !self.inboxes[usize::from(worker)].queue.is_empty()
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.inboxes.len() as u16
    }

    /// The worker's doorbell; called once, when its reactor stands.
    pub fn attach(&self, worker: u16, waker: Waker) {
        let _ = self.inboxes[usize::from(worker)].waker.set(waker);
    }

    /// Puts a message into a worker's inbox and rings.
    pub fn send(&self, worker: u16, message: Message) {
        let inbox = &self.inboxes[usize::from(worker)];
        inbox.queue.push(message);
        if self.own == Some(worker) {
            return;
        }
        if let Some(waker) = inbox.waker.get() {
            waker.wake();
        }
    }

    /// Rings every worker, so that it looks at the configuration.
    pub fn ring_all(&self) {
        for waker in self.inboxes.iter().filter_map(|inbox| inbox.waker.get()) {
            waker.wake();
        }
    }

    /// The next message for `worker`.
    pub fn receive(&self, worker: u16) -> Option<Message> {
        self.inboxes[usize::from(worker)].queue.pop()
    }

    /// How many deliveries wait at a target, as its owner says a few times a second.
    pub fn backlog_of(&self, target: &Arc<str>) -> Arc<AtomicUsize> {
        let mut backlogs = self.backlogs.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(backlogs.entry(Arc::clone(target)).or_default())
    }

    /// Forgets a target that is not configured any more.
    pub fn forget_backlog(&self, target: &str) {
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    /// The worker that owns a target: all its deliveries pass there.
    pub fn owner_of(&self, target: &str) -> u16 {
        let hash = target.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (hash % u64::from(self.workers())) as u16
    }
}
