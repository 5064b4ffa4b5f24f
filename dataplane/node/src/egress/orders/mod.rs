//! What operators order: dead letters listed, sent again, moved or thrown away, and events put in once more.
//!
//! Orders enter with a way to answer; they are worked off a few letters a tick, and a delivery is started only
//! while its target has room to spare, so that live traffic goes first. What an order has done is answered
//! when it is durable. Letters that it has not reached stay dead letters: a restart forgets the order, nothing else.

mod order;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zen_core::deliver::{DeliveryState, LetterKey, RateLimit, RateLimiter};
use zen_core::journal::{Kind, Sequence};
use zen_core::record::{Ending, HeldEvent, Note, OutcomeRecord, RetryRecord};
use zen_uring::Reactor;

pub use self::order::{Answer, Chosen, Copy, Filter, Letter, Order, OrderRefused, Page, Tally, Work};
use super::{Egress, Found, NOTES_MAX};
use crate::control::ORDERS_MAX;

/// Most letters in a page, and in an order that names them one by one.
pub const LETTERS_PAGE_MAX: usize = 1000;
/// Orders being worked off, per worker.
const JOBS_MAX: usize = 16;
/// Letters looked at in one tick, for orders and for a page.
const LOOKS_MAX: u32 = 1024;
/// Letters changed in one tick.
const CHANGES_MAX: u32 = 32;
/// Orders that wait for room look again after this.
const BLOCKED_MS: u64 = 10;
/// Starts of deliveries are let go at so many of this a second, so that few come at once.
const PACES_PER_SECOND: u32 = 1000 / BLOCKED_MS as u32;
/// Orders use this share of a target's attempts and of its queue.
const ROOM_SHARE: u32 = 4;

/// Orders that are worked off or on their way, each with as many letters as it may name.
pub const ORDERS_BYTES: usize = (JOBS_MAX + ORDERS_MAX) * (LETTERS_PAGE_MAX * size_of::<(u64, u8)>() + 1024);

/// Orders being worked off.
#[derive(Debug, Default)]
pub struct Orders {
    jobs: VecDeque<Job>,
    /// Deliveries that orders started and that have not had their first attempt, with their targets.
    started: BTreeMap<(u64, u8), Arc<str>>,
    /// Copies that are handed out when they are durable.
    copies: VecDeque<Sequence>,
    pace: Option<Pace>,
    due_ms: Option<u64>,
    draining: bool,
}

/// How fast deliveries are started, whatever room targets have: live traffic shares this machine with them.
#[derive(Debug)]
struct Pace {
    per_second: u32,
    limiter: RateLimiter,
}

#[derive(Debug)]
struct Job {
    work: Work,
    left: Left,
    tally: Tally,
    answer: Option<Answer<Result<Tally, OrderRefused>>>,
    /// When all is done: what must be durable before that is said.
    last_record: Option<Sequence>,
}

#[derive(Debug)]
enum Left {
    Letters(VecDeque<(u64, u8)>),
    Matching { filter: Filter, last: Option<LetterKey>, lanes: Vec<Lane> },
    Copies(VecDeque<Copy>),
}

/// A walk through the letters: each target has one of its own, so that none waits for another.
#[derive(Clone, Debug)]
struct Lane {
    target: Option<Arc<str>>,
    at: Option<LetterKey>,
    left: u64,
}

/// What may still be done in this tick.
struct Budget {
    looks: u32,
    changes: u32,
}

/// What came of one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    Skipped,
    /// Its target has no room to spare, or enough were started just now.
    NoRoom,
    /// The journal has no room, or is being read.
    Later,
}

impl Orders {
    /// A delivery had an attempt, or ended.
    pub fn handle_verdict(&mut self, handle: u64, target: u8) {
        if !self.started.is_empty() {
            self.started.remove(&(handle, target));
        }
    }

    /// Letters and events that are still to be looked at, at most.
    pub fn pending(&self) -> u64 {
        self.jobs.iter().map(|job| job.left.pending()).sum()
    }

    fn started_at(&self, target: &str) -> usize {
        self.started.values().filter(|name| ***name == *target).count()
    }
}

impl Left {
    fn pending(&self) -> u64 {
        match self {
            Self::Letters(letters) => letters.len() as u64,
            Self::Matching { lanes, .. } => lanes.iter().map(|lane| lane.left).max().unwrap_or(0),
            Self::Copies(copies) => copies.len() as u64,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Letters(letters) => letters.is_empty(),
            Self::Matching { lanes, .. } => lanes.is_empty(),
            Self::Copies(copies) => copies.is_empty(),
        }
    }
}

impl Budget {
    fn take_look(&mut self) -> bool {
        let may = self.looks > 0 && self.changes > 0;
        self.looks = self.looks.saturating_sub(1);
        may
    }

    fn count(&mut self, step: Step, tally: &mut Tally) {
        match step {
            Step::Done => tally.done += 1,
            Step::Skipped => tally.skipped += 1,
            Step::NoRoom | Step::Later => return,
        }
        self.changes = self.changes.saturating_sub(1);
    }
}

impl Egress {
    /// Takes an order of an operator.
    pub fn handle_order(&mut self, order: Order) {
        match order {
            // Who asked may have gone away: then nobody wants to know.
            Order::List { filter, after, limit, answer } => {
                drop(answer.send(self.list(&filter, after, limit.min(LETTERS_PAGE_MAX))));
            }
            Order::Find { handle, target, answer } => {
                let died_ms = self.table.letter(handle, target).map(|letter| letter.died_ms);
                let key = died_ms.map(|died_ms| LetterKey { died_ms, handle, target });
                drop(answer.send(key.and_then(|key| self.letter(key))));
            }
            Order::Work { work, chosen, answer } => {
                let left = match chosen {
                    Chosen::Letters(letters) => Left::Letters(letters),
                    Chosen::Matching(filter) => self.matching(&work, filter),
                };
                self.take_job(work, left, answer);
            }
            Order::Copies { copies, answer } => self.take_job(Work::Replay, Left::Copies(copies), answer),
        }
    }

    /// Takes no more orders, and forgets those that are not done.
    pub fn drain(&mut self) {
        self.orders.draining = true;
        self.orders.jobs.clear();
    }

    /// When orders go on, steady ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.orders.due_ms
    }

    /// Goes on with what was ordered.
    pub(super) fn work_on_orders(&mut self, reactor: &mut Reactor) {
        if self.orders.jobs.is_empty() {
            self.orders.due_ms = None;
            return;
        }
        self.take_pace();
        let mut budget = Budget { looks: LOOKS_MAX, changes: CHANGES_MAX };
        let mut jobs = std::mem::take(&mut self.orders.jobs);
        jobs.rotate_left(1);
        for job in &mut jobs {
            self.work_on(job, &mut budget, reactor);
        }
        self.orders.jobs = jobs;
        let wait_ms = if budget.changes < CHANGES_MAX || budget.looks == 0 { 1 } else { BLOCKED_MS };
        self.orders.due_ms = Some(self.clock.steady_ms + wait_ms);
    }

    /// Hands out copies that are durable, and answers orders whose last word is.
    pub(super) fn settle_orders(&mut self) {
        let durable = self.journal.durable();
        while self.orders.copies.front().is_some_and(|copy| *copy <= durable) {
            let copy = self.orders.copies.pop_front().expect("looked at just now");
            self.hand_out(copy.0);
        }
        let (are_noted, last) = (self.notes.is_empty(), Sequence(self.journal.next_sequence().0 - 1));
        self.orders.jobs.retain_mut(|job| {
            if job.last_record.is_none() && job.left.is_empty() && are_noted {
                job.last_record = Some(last);
            }
            let is_durable = job.last_record.is_some_and(|last| last <= durable);
            if is_durable && let Some(answer) = job.answer.take() {
                // Nobody waits for a long order; it is in the metrics.
                let _ = answer.send(Ok(job.tally));
            }
            !is_durable
        });
    }

    fn take_job(&mut self, work: Work, left: Left, answer: Answer<Result<Tally, OrderRefused>>) {
        if self.orders.jobs.len() >= JOBS_MAX || self.orders.draining {
            let _ = answer.send(Err(OrderRefused::Busy));
            return;
        }
        let (tally, answer) = (Tally::default(), Some(answer));
        self.orders.jobs.push_back(Job { work, left, tally, answer, last_record: None });
        self.orders.due_ms = Some(0);
    }

    fn list(&self, filter: &Filter, after: Option<LetterKey>, limit: usize) -> Page {
        let mut letters = Vec::new();
        for (looks, key) in (1..).zip(self.table.letters(after.max(filter.start()))) {
            if key.died_ms > filter.until_ms {
                break;
            }
            letters.extend(
                self.letter(key).filter(|found| filter.matches(&found.target, &found.died, found.event_id)),
            );
            if letters.len() >= limit || looks >= LOOKS_MAX {
                return Page { letters, more_after: Some(key) };
            }
        }
        Page { letters, more_after: None }
    }

    fn letter(&self, key: LetterKey) -> Option<Letter> {
        let letter = self.table.letter(key.handle, key.target)?;
        let live = self.table.live(key.handle)?;
        let life = live.targets.get(usize::from(key.target))?;
        Some(Letter {
            worker: self.worker,
            key,
            event_id: live.id,
            target: Arc::clone(&life.name),
            died: letter,
            replay: life.replay,
            bytes: live.bytes_len,
        })
    }

    /// All letters of now that match; those that die later, and once more, are not among them.
    fn matching(&mut self, work: &Work, filter: Filter) -> Left {
        let last = self.table.close_letters();
        let (at, left) = (filter.start(), self.table.dead_len() as u64);
        let lane = |target| Lane { target, at, left };
        let lanes = match (work, &filter.target) {
            (Work::Replay, None) => {
                self.settings().destinations().map(|name| lane(Some(Arc::from(name)))).collect()
            }
            (_, target) => vec![lane(target.clone())],
        };
        Left::Matching { filter, last, lanes }
    }

    fn work_on(&mut self, job: &mut Job, budget: &mut Budget, reactor: &mut Reactor) {
        let Job { work, left, tally, .. } = job;
        match left {
            Left::Letters(letters) => self.work_on_letters(work, letters, tally, budget, reactor),
            Left::Matching { filter, last, lanes } => {
                let last = *last;
                lanes.retain_mut(|lane| self.walk(work, filter, last, lane, tally, budget, reactor));
            }
            Left::Copies(copies) => self.work_on_copies(copies, tally, budget),
        }
    }

    fn work_on_letters(
        &mut self,
        work: &Work,
        letters: &mut VecDeque<(u64, u8)>,
        tally: &mut Tally,
        budget: &mut Budget,
        reactor: &mut Reactor,
    ) {
        for _ in 0..letters.len() {
            if !budget.take_look() {
                return;
            }
            let Some((handle, target)) = letters.pop_front() else { return };
            let step = self.work_on_letter(work, handle, target, reactor);
            budget.count(step, tally);
            match step {
                Step::Done | Step::Skipped => {}
                Step::NoRoom => letters.push_back((handle, target)),
                Step::Later => return letters.push_front((handle, target)),
            }
        }
    }

    /// Walks on through the letters; returns whether there are more.
    #[allow(clippy::too_many_arguments, reason = "the parts of a job and of a tick, taken apart once")]
    fn walk(
        &mut self,
        work: &Work,
        filter: &Filter,
        last: Option<LetterKey>,
        lane: &mut Lane,
        tally: &mut Tally,
        budget: &mut Budget,
        reactor: &mut Reactor,
    ) -> bool {
        while budget.take_look() {
            let next = self.table.letters(lane.at).next();
            let Some(key) = next.filter(|key| Some(*key) <= last && key.died_ms <= filter.until_ms) else {
                return false;
            };
            let wanted = self.letter(key).is_some_and(|found| {
                lane.target.as_ref().is_none_or(|target| *target == found.target)
                    && filter.matches(&found.target, &found.died, found.event_id)
            });
            if wanted {
                let step = self.work_on_letter(work, key.handle, key.target, reactor);
                budget.count(step, tally);
                if matches!(step, Step::NoRoom | Step::Later) {
                    return true;
                }
            }
            lane.at = Some(key);
            lane.left = lane.left.saturating_sub(1);
        }
        true
    }

    fn work_on_letter(&mut self, work: &Work, handle: u64, target: u8, reactor: &mut Reactor) -> Step {
        if self.table.letter(handle, target).is_none() {
            return Step::Skipped;
        }
        if self.notes.len() >= NOTES_MAX / 2 {
            return Step::Later;
        }
        match work {
            Work::Replay => self.replay(handle, target),
            Work::Move(to) => self.move_to(handle, target, to, reactor),
            Work::Discard => {
                self.end(OutcomeRecord::new(handle, target, Ending::Discarded));
                self.metrics.dead_letters_discarded.add(1);
                Step::Done
            }
        }
    }

    fn replay(&mut self, handle: u64, target: u8) -> Step {
        let life = self.table.live(handle).and_then(|live| live.targets.get(usize::from(target)));
        let name = Arc::clone(&life.expect("a dead letter is live").name);
        match self.room_at(&name) {
            Step::Done => {}
            step => return step,
        }
        let due_ms = self.clock.steady_ms;
        let replay = self.table.replay(handle, target, due_ms).expect("looked at just now");
        let due_ms = self.clock.unix_of(due_ms);
        self.note(Note::Retry(RetryRecord { handle, target, replay, attempt: 0, due_ms }));
        self.orders.started.insert((handle, target), name);
        self.count_replay();
        self.hand_out_one(handle, target);
        Step::Done
    }

    /// The copy first, the ending behind it: a crash in between leaves both, and never neither.
    fn move_to(&mut self, handle: u64, target: u8, to: &Arc<str>, reactor: &mut Reactor) -> Step {
        match self.room_at(to) {
            Step::Done => {}
            step => return step,
        }
        // Deliveries that wait for their events read first, and without room there is nothing to read for.
        if !self.fetches.is_empty() || !self.has_room() {
            return Step::Later;
        }
        let live = self.table.live(handle).expect("a dead letter is live");
        let (record, stream) = (live.record, live.stream);
        let replay = live.targets[usize::from(target)].replay.saturating_add(1);
        let event = match self.read_event(reactor, handle, record) {
            Found::Event(event) => event,
            Found::Later => return Step::Later,
            Found::Damaged | Found::Unreadable => return Step::Skipped,
        };
        let copy = Copy { handle, stream, replay, targets: vec![Arc::clone(to)], event };
        if !self.put_in(&copy, &copy.targets) {
            return Step::Later;
        }
        self.end(OutcomeRecord::new(handle, target, Ending::Moved));
        Step::Done
    }

    fn work_on_copies(&mut self, copies: &mut VecDeque<Copy>, tally: &mut Tally, budget: &mut Budget) {
        while let Some(copy) = copies.front() {
            if !budget.take_look() {
                return;
            }
            let targets = self.targets_of(copy);
            let rooms: Vec<Step> = targets.iter().map(|target| self.room_at(target)).collect();
            let step = match () {
                () if targets.is_empty() => Step::Skipped,
                () if rooms.contains(&Step::NoRoom) || !self.put_in(copy, &targets) => Step::Later,
                () => Step::Done,
            };
            budget.count(step, tally);
            if step == Step::Later {
                return;
            }
            copies.pop_front();
        }
    }

    /// Where a copy goes: not to targets that are not there, or that the event is still on its way to.
    fn targets_of(&self, copy: &Copy) -> Vec<Arc<str>> {
        let live = self.table.live(copy.handle);
        let is_live = |name: &str| {
            let mut lives = live.into_iter().flat_map(|live| &live.targets);
            lives.any(|life| *life.name == *name && life.state != DeliveryState::Done)
        };
        let names = copy.targets.iter();
        names.filter(|name| self.room_at(name) != Step::Skipped && !is_live(name)).cloned().collect()
    }

    fn put_in(&mut self, copy: &Copy, targets: &[Arc<str>]) -> bool {
        let mut head = Vec::with_capacity(64);
        HeldEvent::encode_head(
            &mut head,
            &copy.stream,
            0,
            0,
            copy.replay,
            targets.iter().map(|name| &**name),
        );
        if !self.has_room() || self.journal.can_append(head.len() + copy.event.len()).is_err() {
            return false;
        }
        let record = self.journal.append(Kind::Event, self.clock.wall_ms, &[&head, &copy.event]);
        let record = record.expect("there was room just now");
        let held = HeldEvent { event: &copy.event, ..super::held(&head) };
        self.table.insert(record, &held, None);
        self.order(record.0, &copy.event);
        self.orders.copies.push_back(record);
        for (index, name) in (0..).zip(targets) {
            self.orders.started.insert((record.0, index), Arc::clone(name));
        }
        self.count_replay();
        true
    }

    /// Takes the configured pace if it is another one.
    fn take_pace(&mut self) {
        let per_second = self.settings().replay_per_second;
        if self.orders.pace.as_ref().is_none_or(|pace| pace.per_second != per_second) {
            let burst = per_second.div_ceil(PACES_PER_SECOND);
            let limiter = RateLimiter::new(RateLimit { per_second, burst });
            self.orders.pace = Some(Pace { per_second, limiter });
        }
    }

    fn count_replay(&mut self) {
        let now_ms = self.clock.steady_ms;
        self.orders.pace.iter_mut().for_each(|pace| pace.limiter.handle_start(now_ms));
        self.metrics.replays.add(1);
    }

    /// `Done` if a target has room to spare, `Skipped` if it is not configured.
    fn room_at(&self, name: &Arc<str>) -> Step {
        let Some(limits) = self.settings().queue(name) else { return Step::Skipped };
        let attempts_max = (limits.in_flight_max / ROOM_SHARE).max(1) as usize;
        let backlog_max = (limits.queue_max / ROOM_SHARE).max(1) as usize;
        let pace = self.orders.pace.as_ref();
        let has_room = pace.is_none_or(|pace| pace.limiter.poll_timeout() <= self.clock.steady_ms)
            && self.orders.started_at(name) < attempts_max
            && self.mesh.backlog_of(name).load(Ordering::Relaxed) < backlog_max;
        if has_room { Step::Done } else { Step::NoRoom }
    }
}
