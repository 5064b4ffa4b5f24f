//! Asserting functions over arbitrary bytes, for the fuzz targets and the property tests.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{
    Attempt, ConnectFailure, Delivery, DeliveryState, Next, Outcome, RETRY_AFTER_MS_CEILING,
    SECRET_BYTES_MAX, SECRET_BYTES_MIN, SignerConfig, Table, TargetLimits, TargetQueue, TargetSigner,
    TargetState, parse_retry_after, parse_secret, write_delivery,
};
use crate::crypto::{Digest, Mac, MacJob, Tag};
use crate::event::Event;
use crate::id::{EndpointId, EventId};
use crate::journal::{Kind, Record, SegmentId, Sequence};
use crate::record::{Ending, HeldEvent, Note, OutcomeRecord, RetryRecord};

/// Any text is a bounded delay or nothing, and time only shortens it.
pub fn fuzz_retry_after(data: &[u8]) {
    let Some((now, value)) = data.split_first_chunk::<8>() else { return };
    let Ok(value) = core::str::from_utf8(value) else { return };
    let now_ms = u64::from_le_bytes(*now) >> 16;
    let Some(delay_ms) = parse_retry_after(value, now_ms) else { return };
    assert!(delay_ms <= RETRY_AFTER_MS_CEILING);
    let later_ms = parse_retry_after(value, now_ms + 1).expect("time does not decide about the form");
    assert!(later_ms <= delay_ms);
}

/// Any text is a secret within its bounds or nothing.
pub fn fuzz_secret(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let Ok(secret) = parse_secret(text) else { return };
    assert!((SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()));
}

/// Whatever an event holds, it is refused or every line of the head is whole and written once.
pub fn fuzz_request(data: &[u8]) {
    let Some((&[made, content_type_len], text)) = data.split_first_chunk() else { return };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let Some((content_type, headers)) = text.split_at_checked(usize::from(content_type_len)) else { return };
    let (id, endpoint) = (EventId([7; 16]), EndpointId([9; 16]));
    let event = Event { id, endpoint, content_type, headers, body: &data[..2] };
    let secrets = [Zeroizing::new(vec![1; 32]), Zeroizing::new(vec![2; 32])];
    let config = SignerConfig { target: "t", host: "h:1", path: "/", key_id: "k", secrets: &secrets };
    let signer = TargetSigner::new(&ToyMac, &config).expect("a valid configuration");
    let attempt =
        Attempt { made: u32::from(made), replay: made / 64, time_ms: 1_700_000_000_123, nonce: [3; 16] };
    let mut head = Vec::new();
    match write_delivery(&ToyMac, &signer, &event, attempt, &mut head) {
        Ok(()) => check_head(&head, &event, attempt),
        Err(_) => assert!(head.is_empty() && event.encode_head(&mut Vec::new()).is_err()),
    }
}

/// Names that a head has once, whatever the source sent.
const OWN_NAMES: [&str; 13] = [
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "zen-attempt",
    "zen-hops",
    "zen-endpoint",
    "zen-event-id",
    "zen-replay",
    "zen-signature",
];

/// Asserts that a target reads from `head` the lines that were meant and no others.
fn check_head(head: &[u8], event: &Event<'_>, attempt: Attempt) {
    let head = core::str::from_utf8(head).expect("heads are made of text");
    let lines = head.strip_suffix("\r\n\r\n").expect("a head ends with an empty line");
    assert!(
        lines.split("\r\n").all(|line| !line.is_empty() && !line.bytes().any(|byte| byte.is_ascii_control()))
    );
    let fields = || lines.split("\r\n").skip(1).map(|line| line.split_once(": ").expect("name and value"));
    for name in OWN_NAMES {
        let expected = match name {
            "content-type" => usize::from(!event.content_type.is_empty()),
            "zen-replay" => usize::from(attempt.replay > 0),
            _ => 1,
        };
        assert_eq!(fields().filter(|field| field.0 == name).count(), expected, "{name}");
    }
    assert!(!fields().any(|field| matches!(field.0, "connection" | "transfer-encoding" | "expect")));
    let sent = event.forwarded_headers().split_terminator('\n').count();
    assert!(fields().count() <= OWN_NAMES.len() + sent);
}

/// Tags of the right shape, without cryptography.
struct ToyMac;

impl Mac for ToyMac {
    type Key = u8;

    fn prepare(&self, secret: &[u8]) -> u8 {
        secret.len() as u8
    }

    fn sign(&self, jobs: &[MacJob<'_, u8>], tags: &mut Vec<Tag>) {
        tags.clear();
        tags.extend(jobs.iter().map(|job| [*job.key; 32]));
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        [bytes.len() as u8; 32]
    }
}

/// A sequence of operations on a table of live events, three bytes each, and the journal that they leave: what
/// recovery reads from it is what the table was, and what was discarded never opens again.
pub fn fuzz_table(data: &[u8]) {
    let mut written = Written::default();
    for operation in data.chunks_exact(3) {
        written.step(operation[0], operation[1], operation[2]);
    }
    let mut recovered = Table::default();
    for (sequence, (kind, time_ms, payload)) in (1..).map(Sequence).zip(&written.records) {
        let (kind, time_ms, segment) = (*kind, *time_ms, SegmentId(1));
        let record = Record { sequence, kind, time_ms, payload, segment, offset: 0 };
        recovered.handle_recovered(&record, |due_ms, _| due_ms).expect("written by the same code");
    }
    assert_eq!(lives(&recovered), lives(&written.table));
    assert!(recovered.letters(None).eq(written.table.letters(None)));
    assert_eq!(recovered.deliveries(), written.table.deliveries());
}

/// A table, and the records of everything that was done to it.
#[derive(Default)]
struct Written {
    table: Table,
    records: Vec<(Kind, u64, Vec<u8>)>,
    now_ms: u64,
    ended: BTreeSet<(u64, u8)>,
}

impl Written {
    fn step(&mut self, operation: u8, choice: u8, target: u8) {
        self.now_ms += u64::from(choice % 3);
        let handles: Vec<u64> = self.table.handles().map(|(_, handle)| handle).collect();
        let chosen = handles.get(usize::from(choice) % handles.len().max(1)).copied();
        let (operation, target) = (operation % 8, target % 3);
        let Some(handle) = chosen.filter(|_| operation > 0) else {
            return self.event(0, target);
        };
        match operation {
            1 => self.end(handle, target, Ending::Delivered),
            2 | 3 => self.end(handle, target, Ending::Dead),
            4 if self.table.letter(handle, target).is_some() => {
                self.end(handle, target, Ending::Discarded);
            }
            5 => self.put_off(handle, target, u32::from(choice)),
            6 => self.replay(handle, target),
            7 => self.carry(handle),
            _ => {
                if let Some((handle, target)) = self.table.poll_surplus_dead(3) {
                    self.end(handle, target, Ending::Dropped);
                }
            }
        }
        assert!(self.table.letters(None).count() == self.table.dead_len());
    }

    fn event(&mut self, link_sequence: u64, targets: u8) {
        let mut payload = Vec::new();
        let names = ["a", "b", "c"][..=usize::from(targets)].iter().copied();
        HeldEvent::encode_head(&mut payload, &[1; 16], link_sequence, 0, 0, names);
        payload.extend_from_slice(b"event");
        self.insert(payload);
    }

    fn insert(&mut self, payload: Vec<u8>) {
        let record = Sequence(self.records.len() as u64 + 1);
        self.table.insert(record, &HeldEvent::decode(&payload).expect("encoded just now"), None);
        self.records.push((Kind::Event, self.now_ms, payload));
    }

    fn note(&mut self, time_ms: u64, note: Note) {
        self.records.push((note.kind(), time_ms, note.encode().to_vec()));
    }

    fn end(&mut self, handle: u64, target: u8, ending: Ending) {
        let outcome = OutcomeRecord::new(handle, target, ending);
        if ending == Ending::Dead && self.ended.contains(&(handle, target)) {
            return;
        }
        let time_ms = if ending == Ending::Dead { self.table.dying_ms(self.now_ms) } else { self.now_ms };
        self.table.end(&outcome, time_ms);
        self.note(time_ms, Note::Outcome(outcome));
        if ending != Ending::Dead {
            self.ended.insert((handle, target));
        }
    }

    fn put_off(&mut self, handle: u64, target: u8, attempt: u32) {
        if self.table.letter(handle, target).is_some() {
            return;
        }
        let (due_ms, replay) = (self.now_ms + 5, self.table.retry(handle, target, attempt, self.now_ms + 5));
        self.note(self.now_ms, Note::Retry(RetryRecord { handle, target, replay, attempt, due_ms }));
    }

    fn replay(&mut self, handle: u64, target: u8) {
        let was_dead = self.table.letter(handle, target).is_some();
        self.table.close_letters();
        let replay = self.table.replay(handle, target, self.now_ms);
        assert_eq!(replay.is_some(), was_dead, "only a dead letter is sent again");
        let Some(replay) = replay else { return };
        assert!(!self.ended.contains(&(handle, target)), "what ended never opens again");
        let due_ms = self.now_ms;
        self.note(self.now_ms, Note::Retry(RetryRecord { handle, target, replay, attempt: 0, due_ms }));
    }

    fn carry(&mut self, handle: u64) {
        let mut payload = Vec::new();
        self.table.encode_carried(handle, &mut payload);
        payload.extend_from_slice(b"event");
        let notes = self.table.carried_notes(handle, self.now_ms, |due_ms| due_ms);
        self.insert(payload);
        for (time_ms, note) in notes {
            self.note(time_ms, note);
        }
    }
}

/// Record, handle, and the state and the replays of each target.
type LiveShown = (Sequence, u64, Vec<(DeliveryState, u8)>);

/// Every live event; done targets have no name after a carry.
fn lives(table: &Table) -> Vec<LiveShown> {
    let targets = |handle| {
        let live = table.live(handle).expect("listed as live");
        live.targets.iter().map(|life| match life.state {
            DeliveryState::Done => (life.state, 0),
            state => (state, life.replay),
        })
    };
    table.handles().map(|(record, handle)| (record, handle, targets(handle).collect())).collect()
}

const OUTCOMES: [Outcome; 10] = [
    Outcome::Answered { status: 200, retry_after_ms: None },
    Outcome::Answered { status: 410, retry_after_ms: None },
    Outcome::Answered { status: 302, retry_after_ms: None },
    Outcome::Answered { status: 503, retry_after_ms: Some(700) },
    Outcome::Answered { status: 429, retry_after_ms: Some(u64::MAX) },
    Outcome::ConnectFailed(ConnectFailure::Unreachable),
    Outcome::TimedOut,
    Outcome::Refused,
    Outcome::TargetRemoved,
    Outcome::TransformFailed,
];

/// What no later attempt could change.
const ENDS_AT_ONCE: [Outcome; 2] = [Outcome::TargetRemoved, Outcome::TransformFailed];

/// A sequence of operations, two bytes each, against a model that keeps every delivery in exactly one place.
pub fn fuzz_queue(data: &[u8]) {
    let Some((&[in_flight_max, queue_max, schedule], operations)) = data.split_first_chunk() else { return };
    let limits = TargetLimits {
        in_flight_max: u32::from(in_flight_max % 5) + 1,
        queue_max: u32::from(queue_max % 20) + 1,
        retry_schedule_ms: (0..u64::from(schedule % 4)).map(|index| 100 << index).collect(),
        retry_jitter_percent: schedule,
        retry_after_ms_max: 1_000,
        ..TargetLimits::default()
    };
    let mut model = Model::new(limits, u64::from(schedule));
    for operation in operations.chunks_exact(2) {
        model.step(operation[0], operation[1]);
        model.check();
    }
    model.finish();
}

/// Where a delivery is.
#[derive(Clone, Copy)]
enum Place {
    Waiting { due_ms: u64 },
    InFlight,
}

struct Model {
    queue: TargetQueue,
    places: BTreeMap<u64, (Place, u32)>,
    /// What the queue must take for now: the latest time it was told.
    now_ms: u64,
    state: TargetState,
    next_key: u64,
    ended: u64,
}

impl Model {
    fn new(limits: TargetLimits, seed: u64) -> Self {
        let queue = TargetQueue::new(limits, seed);
        let places = BTreeMap::new();
        Self { queue, places, now_ms: 0, state: TargetState::Active, next_key: 0, ended: 0 }
    }

    fn step(&mut self, operation: u8, argument: u8) {
        // Every fourth call is told an earlier time, which must count as no time passing.
        let told_ms = match argument % 4 {
            0 => self.now_ms / 2,
            _ => self.now_ms + u64::from(argument),
        };
        match operation % 16 {
            0..=3 => self.event(told_ms),
            4 => self.restored(argument),
            5..=8 => self.attempt(told_ms),
            9..=12 => self.outcome(argument, told_ms),
            13 => {
                self.at(told_ms);
                self.queue.pause(told_ms);
                if self.state == TargetState::Active {
                    self.state = TargetState::Paused;
                }
            }
            14 => {
                self.at(told_ms);
                self.queue.resume(told_ms);
                self.state = TargetState::Active;
            }
            _ if argument >= 240 => self.hasten(told_ms),
            _ => self.removed(argument),
        }
    }

    fn hasten(&mut self, told_ms: u64) {
        self.at(told_ms);
        self.queue.hasten(told_ms);
        let now_ms = self.now_ms;
        for (place, _) in self.places.values_mut() {
            if let Place::Waiting { due_ms } = place {
                *due_ms = now_ms.min(*due_ms);
            }
        }
    }

    fn at(&mut self, told_ms: u64) {
        self.now_ms = self.now_ms.max(told_ms);
    }

    fn event(&mut self, told_ms: u64) {
        self.at(told_ms);
        let delivery = self.new_delivery(0);
        let taken = self.queue.handle_event(delivery, told_ms).is_ok();
        self.entered(delivery, self.now_ms, taken);
    }

    fn restored(&mut self, argument: u8) {
        let delivery = self.new_delivery(u32::from(argument % 6));
        let due_ms = self.now_ms + u64::from(argument) * 4;
        let taken = self.queue.handle_restored(delivery, due_ms).is_ok();
        self.entered(delivery, due_ms, taken);
    }

    /// Keys out of order: the first of each eight is the highest.
    fn new_delivery(&mut self, attempt: u32) -> Delivery {
        self.next_key += 1;
        Delivery { key: self.next_key ^ 7, attempt, bytes: 3 }
    }

    fn entered(&mut self, delivery: Delivery, due_ms: u64, taken: bool) {
        assert_eq!(taken, self.places.len() < self.queue.limits().queue_max as usize);
        if !taken {
            self.next_key -= 1;
            return;
        }
        self.places.insert(delivery.key, (Place::Waiting { due_ms }, delivery.attempt));
    }

    fn attempt(&mut self, told_ms: u64) {
        self.at(told_ms);
        let may_start = self.has_room() && self.earliest_ms().is_some_and(|due_ms| due_ms <= self.now_ms);
        let Some(delivery) = self.queue.poll_attempt(told_ms) else {
            assert!(!may_start, "a delivery could have started");
            return;
        };
        assert!(may_start, "in flight only below the cap, in an active target");
        let (place, attempt) = self.places.get_mut(&delivery.key).expect("only what was put in comes out");
        assert!(matches!(*place, Place::Waiting { due_ms } if due_ms <= self.now_ms), "not before it is due");
        assert_eq!((delivery.attempt, delivery.bytes), (*attempt, 3));
        *place = Place::InFlight;
    }

    fn outcome(&mut self, argument: u8, told_ms: u64) {
        let flying = self.places.iter().filter(|(_, entry)| matches!(entry.0, Place::InFlight));
        let keys: Vec<u64> = flying.map(|(&key, _)| key).collect();
        let Some(&key) = keys.get(usize::from(argument) % keys.len().max(1)) else { return };
        self.at(told_ms);
        let outcome = OUTCOMES[usize::from(argument / 4) % OUTCOMES.len()];
        let next = self.queue.handle_outcome(key, &outcome, told_ms);
        self.settle(key, outcome, next);
    }

    fn settle(&mut self, key: u64, outcome: Outcome, next: Next) {
        let (_, made) = self.places.remove(&key).expect("the attempt was in flight");
        let made = made + 1;
        let schedule = self.queue.limits().retry_schedule_ms.clone();
        match next {
            Next::Delivered => assert_eq!(outcome.label(), "delivered"),
            Next::Dead { reason } => {
                let last = made as usize > schedule.len();
                assert!(last || ENDS_AT_ONCE.contains(&outcome), "dead only after the whole schedule");
                assert!(reason.label() == outcome.label() || outcome.label().starts_with("connect"));
            }
            Next::Retry { attempt, due_ms } => {
                assert_eq!(attempt, made);
                assert!(due_ms >= self.now_ms && due_ms <= self.now_ms + 1_000);
                self.places.insert(key, (Place::Waiting { due_ms }, made));
            }
            Next::Disabled { attempt, due_ms } => {
                assert_eq!((attempt, due_ms, outcome.label()), (made, self.now_ms, "gone"));
                if !matches!(self.state, TargetState::Disabled { .. }) {
                    self.state = TargetState::Disabled { since_ms: due_ms };
                }
                self.places.insert(key, (Place::Waiting { due_ms }, made));
            }
        }
        self.ended += u64::from(matches!(next, Next::Delivered | Next::Dead { .. }));
    }

    fn removed(&mut self, argument: u8) {
        if argument >= 16 {
            return;
        }
        let waiting = self.queue.waiting();
        let Some(delivery) = self.queue.poll_removed() else {
            assert_eq!(waiting, 0);
            return;
        };
        let place = self.places.remove(&delivery.key).map(|entry| entry.0);
        assert!(matches!(place, Some(Place::Waiting { .. })));
        self.ended += 1;
    }

    fn check(&self) {
        let (waiting, in_flight) = (self.queue.waiting(), self.queue.in_flight());
        assert_eq!(in_flight, self.flying());
        assert_eq!(waiting + in_flight, self.places.len());
        assert_eq!(self.queue.bytes(), self.places.len() as u64 * 3);
        assert_eq!(self.queue.oldest_ms().is_some(), !self.places.is_empty());
        assert_eq!(self.queue.state(), self.state);
        assert_eq!(self.ended + self.places.len() as u64, self.next_key, "nothing is lost");
        let earliest_ms = if self.has_room() { self.earliest_ms() } else { None };
        // What may start now may be reported by any time up to now.
        let reported_ms = self.queue.poll_timeout().map(|at_ms| at_ms.max(self.now_ms));
        assert_eq!(reported_ms, earliest_ms.map(|at_ms| at_ms.max(self.now_ms)));
    }

    /// Delivers everything that is left: each once, and none is missing.
    fn finish(&mut self) {
        self.queue.resume(0);
        self.state = TargetState::Active;
        let flying = self.places.iter().filter(|(_, entry)| matches!(entry.0, Place::InFlight));
        for key in flying.map(|(&key, _)| key).collect::<Vec<_>>() {
            let next = self.queue.handle_outcome(key, &OUTCOMES[0], self.now_ms);
            self.settle(key, OUTCOMES[0], next);
        }
        while let Some(at_ms) = self.queue.poll_timeout() {
            self.at(at_ms);
            let delivery = self.queue.poll_attempt(self.now_ms).expect("the timeout said so");
            let next = self.queue.handle_outcome(delivery.key, &OUTCOMES[0], self.now_ms);
            self.settle(delivery.key, OUTCOMES[0], next);
        }
        self.check();
        assert!(self.places.is_empty());
    }

    fn has_room(&self) -> bool {
        self.state == TargetState::Active && self.flying() < self.queue.limits().in_flight_max as usize
    }

    fn flying(&self) -> usize {
        self.places.values().filter(|entry| matches!(entry.0, Place::InFlight)).count()
    }

    fn earliest_ms(&self) -> Option<u64> {
        let times = self.places.values().filter_map(|entry| match entry.0 {
            Place::Waiting { due_ms } => Some(due_ms),
            Place::InFlight => None,
        });
        times.min()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::event::push_header_line;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn operation_sequences(data in vec(any::<u8>(), 3..800)) {
            fuzz_queue(&data);
        }

        #[test]
        fn tables_are_what_their_journals_say(data in vec(any::<u8>(), 0..300)) {
            fuzz_table(&data);
        }

        #[test]
        fn retry_after(
            now in any::<[u8; 8]>(),
            value in "[0-9]{1,30}|[0-9A-Za-z ,:+-]{0,30}",
            at in 0..29usize,
            byte in "[ -~]",
        ) {
            let mut near = String::from(DATE);
            near.replace_range(at..=at, &byte);
            for value in [value.as_bytes(), DATE.as_bytes(), near.as_bytes()] {
                fuzz_retry_after(&[&now, value].concat());
            }
        }

        #[test]
        fn secrets(text in "(whsec_)?[A-Za-z0-9+/]{30,90}={0,2}", data in vec(any::<u8>(), 0..100)) {
            fuzz_secret(text.as_bytes());
            fuzz_secret(&data);
        }

        #[test]
        fn requests(
            made in any::<u8>(),
            content_type in "[a-z/\r\n\t]{0,5}|[a-z/]{1,20}",
            names in vec(":tenant|[a-z]{1,4}|te|host|expect|zen-a|webhook-id|connection|A|", 0..4),
            value in "[a-z\r :\u{0}\u{85}é]{0,4}",
            end in "(\n|x)?|",
        ) {
            let lengths = [made, content_type.len() as u8];
            let (mut names, mut headers) = (names, String::new());
            names.sort_unstable();
            for name in &names {
                push_header_line(&mut headers, name, &value);
            }
            headers.push_str(&end);
            fuzz_request(&[&lengths[..], content_type.as_bytes(), headers.as_bytes()].concat());
        }
    }
}
