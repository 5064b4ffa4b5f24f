//! Whose keys are pending at this worker, who waits here for a write of any worker, and what became of it.
//!
//! A request that owns its key brings a [`Claim`], which ends as durable or failed. Between the two it may be
//! delayed: its write failed and is repeated, its source got 503, and whoever waited gets 503 too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zen_core::dedupe::{EventKey, Verdict, Waiter};
use zen_core::id::EventId;
use zen_core::journal::Sequence;
use zen_uring::SocketId;

use super::{Answer, Outcome};
use crate::dedupe::Keys;
use crate::mesh::{Mesh, Message};

/// Bits of a waiter's name that count requests; the others are the worker.
const SERIAL_BITS: u32 = 48;

/// A pending key, and the name under which this worker owns it.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The event's key.
    pub key: EventKey,
    owner: Waiter,
}

/// What becomes of a request whose key is known.
#[derive(Clone, Copy, Debug)]
pub enum Arrival {
    /// It is the first: write it.
    New(Option<Claim>),
    /// Its event is durable.
    Duplicate(EventId),
    /// Its event is being written: the answer comes with the outcome.
    Waits,
    /// Too many wait, or are being written.
    Refused,
}

struct Waits {
    socket: SocketId,
    until: Instant,
}

/// A key whose write is being repeated.
struct Delayed {
    sequence: Sequence,
    claim: Claim,
    id: EventId,
}

/// A key whose write is being repeated.
pub const DELAYED_BYTES: usize = size_of::<Delayed>();
/// Who waits, in a table of twice as many places, and the answer.
pub const WAITING_BYTES: usize = 2 * size_of::<(Waiter, Waits)>() + size_of::<Answer>();

/// One worker's claims.
pub struct Claims {
    keys: Arc<Keys>,
    mesh: Mesh,
    worker: u16,
    serial: u64,
    waiting: HashMap<Waiter, Waits>,
    delayed: VecDeque<Delayed>,
    answers: VecDeque<Answer>,
    released: Vec<Waiter>,
}

impl Claims {
    /// None yet.
    pub fn new(keys: Arc<Keys>, mesh: Mesh, worker: u16) -> Self {
        Self {
            keys,
            mesh,
            worker,
            serial: 0,
            waiting: HashMap::new(),
            delayed: VecDeque::new(),
            answers: VecDeque::new(),
            released: Vec::new(),
        }
    }

    /// The table.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A request brings a key; if it has to wait, then no longer than `wait_ms`.
    pub fn handle_arrival(&mut self, key: EventKey, socket: SocketId, now_ms: u64, wait_ms: u64) -> Arrival {
        self.serial += 1;
        let waiter = Waiter(u64::from(self.worker) << SERIAL_BITS | self.serial);
        match self.keys.handle_arrival(key, now_ms, waiter) {
            Verdict::New => Arrival::New(Some(Claim { key, owner: waiter })),
            Verdict::Duplicate { event_id } => Arrival::Duplicate(event_id),
            Verdict::Pending => {
                let until = Instant::now() + Duration::from_millis(wait_ms);
                self.waiting.insert(waiter, Waits { socket, until });
                Arrival::Waits
            }
            Verdict::TooManyWaiters | Verdict::TooManyPending => Arrival::Refused,
        }
    }

    /// The claim's event is durable.
    pub fn handle_durable(&mut self, claim: Claim, id: EventId, now_ms: u64) {
        let first = self.keys.handle_durable(claim.key, id, now_ms, &mut self.released);
        self.release(Some(first));
    }

    /// The claim's event will not be written.
    pub fn handle_failed(&mut self, claim: Claim) {
        self.keys.handle_failed(claim.key, claim.owner, &mut self.released);
        self.release(None);
    }

    /// The claim's event is in the journal's memory, and the write of it failed and is repeated.
    pub fn handle_delayed(&mut self, claim: Claim, sequence: Sequence, id: EventId) {
        self.delayed.push_back(Delayed { sequence, claim, id });
    }

    /// The journal's write failed, perhaps once more: nobody waits on for a claim of ours.
    pub fn handle_write_error(&mut self) {
        for delayed in &self.delayed {
            self.keys.handle_delayed(delayed.claim.key, delayed.claim.owner, &mut self.released);
        }
        self.release(None);
    }

    /// A delayed event that is durable now, oldest first.
    pub fn poll_delayed(&mut self, durable: Sequence) -> Option<(Sequence, Claim, EventId)> {
        let delayed = self.delayed.pop_front_if(|delayed| delayed.sequence <= durable)?;
        Some((delayed.sequence, delayed.claim, delayed.id))
    }

    /// A write of any worker ended; one that nobody here waits for any more is nothing.
    pub fn handle_settled(&mut self, waiter: Waiter, event_id: Option<EventId>) {
        let Some(waits) = self.waiting.remove(&waiter) else { return };
        let outcome = event_id.map_or(Outcome::Unavailable, Outcome::Duplicate);
        self.answers.push_back(Answer { socket: waits.socket, outcome });
    }

    /// Ends waits that took too long.
    pub fn handle_time(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        let over = self.waiting.extract_if(|_, waits| waits.until <= now);
        self.answers
            .extend(over.map(|(_, waits)| Answer { socket: waits.socket, outcome: Outcome::Unavailable }));
    }

    /// The next answer to somebody who waited.
    pub fn poll_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Whether an answer is due.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    fn release(&mut self, event_id: Option<EventId>) {
        while let Some(waiter) = self.released.pop() {
            let worker = (waiter.0 >> SERIAL_BITS) as u16;
            if worker == self.worker {
                self.handle_settled(waiter, event_id);
            } else {
                self.mesh.send(worker, Message::Settled { waiter, event_id });
            }
        }
    }
}
