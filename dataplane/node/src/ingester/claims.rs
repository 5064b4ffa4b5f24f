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

#[cfg(test)]
mod tests {
    use zen_core::dedupe::KeyHasher;
    use zen_uring::{Backend, Limits, Reactor};

    use super::*;
    use crate::config::IdempotencySettings;
    use crate::dedupe::Waiting;

    const KEY: EventKey = EventKey([1; 16]);
    const ID: EventId = EventId([2; 16]);
    const HOUR_MS: u64 = 3_600_000;

    /// Two workers on one table, and a socket of each.
    fn workers() -> ([Claims; 2], [SocketId; 2], Mesh) {
        let settings = IdempotencySettings { keys_max: 1000, window_ms: HOUR_MS };
        let keys = Keys::new(&settings, KeyHasher::new([7; 16]), Waiting::Allowed, 0).unwrap();
        keys.finish();
        let (keys, mesh) = (Arc::new(keys), Mesh::new(2));
        let claims = [0, 1].map(|worker| Claims::new(Arc::clone(&keys), mesh.for_worker(worker), worker));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reactor = Reactor::new(&Limits::default(), Backend::Epoll).unwrap();
        let sockets = [0, 1].map(|_| reactor.connect(listener.local_addr().unwrap()).unwrap());
        (claims, sockets, mesh)
    }

    fn claim(claims: &mut Claims, socket: SocketId) -> Claim {
        match claims.handle_arrival(KEY, socket, 1, HOUR_MS) {
            Arrival::New(Some(claim)) => claim,
            other => panic!("{other:?} instead of new"),
        }
    }

    fn waits(claims: &mut Claims, socket: SocketId, wait_ms: u64) {
        assert!(matches!(claims.handle_arrival(KEY, socket, 1, wait_ms), Arrival::Waits));
    }

    /// What a worker's inbox holds reaches its claims.
    fn read_inbox(mesh: &Mesh, claims: &mut Claims, worker: u16) {
        while let Some(message) = mesh.receive(worker) {
            let Message::Settled { waiter, event_id } = message else { panic!("{message:?}") };
            claims.handle_settled(waiter, event_id);
        }
    }

    fn outcome(claims: &mut Claims) -> Option<(SocketId, Outcome)> {
        claims.poll_answer().map(|answer| (answer.socket, answer.outcome))
    }

    #[test]
    fn whoever_waits_hears_of_it_on_its_own_worker() {
        let ([mut here, mut there], [near, far], mesh) = workers();
        let claim = claim(&mut here, near);
        waits(&mut here, near, HOUR_MS);
        waits(&mut there, far, HOUR_MS);
        assert_eq!((outcome(&mut here), outcome(&mut there)), (None, None));
        here.handle_durable(claim, ID, 2);
        assert_eq!(outcome(&mut here), Some((near, Outcome::Duplicate(ID))));
        read_inbox(&mesh, &mut there, 1);
        assert_eq!(outcome(&mut there), Some((far, Outcome::Duplicate(ID))));
        assert!(matches!(there.handle_arrival(KEY, far, 3, 0), Arrival::Duplicate(ID)));
    }

    #[test]
    fn a_key_whose_event_is_refused_is_free() {
        let ([mut here, mut there], [near, far], mesh) = workers();
        let first = claim(&mut here, near);
        waits(&mut there, far, HOUR_MS);
        here.handle_failed(first);
        read_inbox(&mesh, &mut there, 1);
        assert_eq!(outcome(&mut there), Some((far, Outcome::Unavailable)));
        claim(&mut there, far);
    }

    #[test]
    fn a_key_stays_pending_while_its_write_is_repeated() {
        let ([mut here, mut there], [near, far], mesh) = workers();
        let first = claim(&mut here, near);
        waits(&mut there, far, HOUR_MS);
        here.handle_delayed(first, Sequence(5), ID);
        for _ in 0..2 {
            here.handle_write_error();
            read_inbox(&mesh, &mut there, 1);
            assert_eq!(outcome(&mut there), Some((far, Outcome::Unavailable)));
            // It is not new: the write may still succeed.
            waits(&mut there, far, HOUR_MS);
        }
        assert!(here.poll_delayed(Sequence(4)).is_none());
        let (sequence, claim, id) = here.poll_delayed(Sequence(5)).unwrap();
        assert_eq!((sequence, id), (Sequence(5), ID));
        here.handle_durable(claim, id, 2);
        read_inbox(&mesh, &mut there, 1);
        assert_eq!(outcome(&mut there), Some((far, Outcome::Duplicate(ID))));
    }

    #[test]
    fn a_wait_ends_by_its_deadline_and_is_answered_once() {
        let ([mut here, mut there], [near, far], mesh) = workers();
        let first = claim(&mut here, near);
        waits(&mut there, far, 0);
        there.handle_time();
        assert_eq!(outcome(&mut there), Some((far, Outcome::Unavailable)));
        here.handle_durable(first, ID, 2);
        read_inbox(&mesh, &mut there, 1);
        assert_eq!(outcome(&mut there), None);
    }
}
