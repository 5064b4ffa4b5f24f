//! Asserting functions over arbitrary bytes, for the fuzz targets and the property tests.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;

use zeroize::Zeroizing;

pub use super::model::fuzz_queue;
use super::{
    Attempt, DeliveryState, RETRY_AFTER_MS_CEILING, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SignerConfig, Table,
    TargetSigner, parse_retry_after, parse_secret, write_delivery,
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
        fn operation_sequences(data in vec(any::<u8>(), 4..800)) {
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
