//! An in-memory pair over real HMACs: what arrives, and what is refused for which reason.

mod frames;

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::frame::{begin_frame, end_frame, write_ping};
use super::fuzz::{
    HEADERS, KEY_ID, Pair, TARGETS, fuzz_frames, fuzz_link, read_all, receiver_config, sender_config,
    sequence_of,
};
use super::*;
use crate::crypto::Tag;
use crate::envelope::Replay;
use crate::envelope::tests::TestMac;
use crate::event::{Event, EventError};
use crate::id::{EndpointId, EventId};

const NOW: u64 = 1_700_000_000_000;

fn connected(dialer: Role) -> Pair<TestMac> {
    let mut pair = Pair::new(TestMac, NOW);
    pair.connect(dialer);
    pair.exchange().unwrap();
    assert!(pair.sender.as_ref().unwrap().is_ready() && pair.receiver.as_ref().unwrap().is_open());
    pair
}

/// A connected pair with one batch of two events on its way.
fn with_batch_under_way() -> Pair<TestMac> {
    let mut pair = connected(Role::Sender);
    pair.append(5);
    pair.append(7);
    assert_eq!(pair.seal(2), 2);
    pair
}

#[test]
fn both_dial_directions_carry_everything() {
    for dialer in [Role::Sender, Role::Receiver] {
        let mut pair = connected(dialer);
        (0..200).for_each(|bytes| pair.append(bytes * 30));
        pair.settle();
        assert_eq!(pair.durable, 200);
    }
}

#[test]
fn every_split_gives_the_same_frames() {
    let mut pair = with_batch_under_way();
    let mut stream = Vec::new();
    sender_hello(1, 1).write(&mut stream);
    stream.append(&mut pair.to_receiver);
    write_refuse(&mut stream, RefuseCode::Busy, "later");
    let whole = read_all(&stream, stream.len());
    assert_eq!((whole.0.len(), whole.1.clone()), (3, None));
    for piece in 1..stream.len() {
        assert_eq!(read_all(&stream, piece), whole, "{piece}");
    }
    for end in 0..stream.len() {
        let (frames, error) = read_all(&stream[..end], end.max(1));
        assert!(frames.len() < 3 && error.is_none(), "{end}");
    }
}

#[test]
fn a_cut_loses_and_repeats_nothing() {
    let mut pair = connected(Role::Receiver);
    (0..20).for_each(|_| pair.append(10));
    assert_eq!(pair.seal(12), 12);
    pair.exchange().unwrap();
    assert_eq!(pair.received.len(), 12);
    pair.commit(5);
    pair.acknowledge();
    pair.exchange().unwrap();
    let sender = pair.sender.as_ref().unwrap();
    assert_eq!(
        (sender.in_flight(), sender.acked(), sender.last_sent()),
        (7, sequence_of(4), sequence_of(11))
    );
    pair.commit(2);
    pair.cut();
    pair.connect(Role::Sender);
    pair.exchange().unwrap();
    let sender = pair.sender.as_ref().unwrap();
    assert_eq!((sender.acked(), sender.last_sent()), (sequence_of(6), sequence_of(6)));
    pair.settle();
    assert_eq!((pair.durable, pair.receiver.as_ref().unwrap().duplicates()), (20, 0));
}

#[test]
fn the_sender_keeps_to_its_credit() {
    let mut pair = Pair::new(TestMac, NOW).with_credit_events(3);
    pair.connect(Role::Sender);
    pair.exchange().unwrap();
    (0..5).for_each(|_| pair.append(10));
    assert_eq!((pair.seal(5), pair.seal(5)), (3, 0));
    pair.exchange().unwrap();
    pair.commit(2);
    assert_eq!(pair.seal(5), 0);
    pair.acknowledge();
    pair.exchange().unwrap();
    assert_eq!((pair.seal(5), pair.seal(5)), (2, 0));
    pair.settle();
}

#[test]
fn byte_credit_and_the_batch_goal_close_batches() {
    let mut pair = connected(Role::Sender);
    (0..3).for_each(|_| pair.append(700_000));
    assert_eq!((pair.seal(3), pair.seal(3)), (1, 0));
    pair.exchange().unwrap();
    pair.commit(1);
    pair.receiver.as_mut().unwrap().grant(10_000_000, 1000);
    pair.acknowledge();
    pair.exchange().unwrap();
    assert_eq!(pair.seal(3), 2);
    (0..600).for_each(|_| pair.append(1));
    assert_eq!((pair.seal(1000), pair.seal(1000), pair.seal(1000)), (256, 256, 88));
    pair.settle();
}

#[test]
fn more_than_granted_is_refused() {
    let generous = |events: u32, bytes: u64| {
        let mut pair = Pair::new(TestMac, NOW).with_credit_events(2);
        pair.connect(Role::Sender);
        pair.deliver_to_receiver(usize::MAX).unwrap();
        // The sender is told of more credit than the receiver gave.
        let mut forged = Vec::new();
        receiver_hello().write(&mut forged);
        Start { session: 1_u64.to_be_bytes(), resume_after: 0, credit_bytes: bytes, credit_events: events }
            .write(&mut forged);
        pair.to_sender = forged;
        pair.deliver_to_sender(usize::MAX).unwrap();
        pair
    };
    let mut pair = generous(10, 1 << 40);
    (0..3).for_each(|_| pair.append(10));
    assert_eq!(pair.seal(3), 3);
    assert_eq!(pair.deliver_to_receiver(usize::MAX), Err(LinkError::Credit));
    assert!(pair.received.is_empty());

    let mut pair = generous(2, 1 << 40);
    (0..2).for_each(|_| pair.append(900_000));
    assert_eq!(pair.seal(2), 2);
    assert_eq!(pair.deliver_to_receiver(usize::MAX), Err(LinkError::Credit));
    assert!(pair.received.is_empty());
}

/// An entry in parts that a test can change, with the tag it had before.
#[derive(Clone)]
struct Entry {
    sequence: u64,
    time_ms: u64,
    counter: u64,
    tag: Tag,
    key_id: String,
    targets: Vec<String>,
    id: EventId,
    endpoint: EndpointId,
    content_type: String,
    headers: String,
    body: Vec<u8>,
}

impl Entry {
    fn of(entry: &BatchEvent<'_>) -> Self {
        let event = Event::decode(entry.encoded).unwrap();
        Self {
            sequence: entry.sequence,
            time_ms: entry.time_ms,
            counter: entry.counter,
            tag: *entry.tag,
            key_id: entry.key_id.to_string(),
            targets: entry.targets.iter().map(ToString::to_string).collect(),
            id: event.id,
            endpoint: event.endpoint,
            content_type: event.content_type.to_string(),
            headers: event.headers.to_string(),
            body: event.body.to_vec(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let event = Event {
            id: self.id,
            endpoint: self.endpoint,
            content_type: &self.content_type,
            headers: &self.headers,
            body: &self.body,
        };
        let mut encoded = Vec::new();
        event.encode_head(&mut encoded).unwrap();
        encoded.extend_from_slice(&self.body);
        let Self { sequence, time_ms, counter, tag, key_id, .. } = self;
        let (sequence, time_ms, counter) = (*sequence, *time_ms, *counter);
        let entry =
            BatchEvent { sequence, time_ms, counter, tag, key_id, targets: Targets::NONE, encoded: &encoded };
        entry.write(self.targets.iter().map(String::as_str), out);
    }
}

/// Sends the batch under way with `change` applied to its entries, and returns what the receiver says.
fn changed(change: impl FnOnce(&mut Vec<Entry>)) -> Result<usize, LinkError> {
    let mut pair = with_batch_under_way();
    let stream = core::mem::take(&mut pair.to_receiver);
    let (Frame::Batch(batch), _) = parse_frame(&stream, FRAME_BYTES_MAX).unwrap().unwrap() else {
        panic!("a batch is under way");
    };
    let mut entries: Vec<_> = batch.events().map(|entry| Entry::of(&entry)).collect();
    change(&mut entries);
    let frame = begin_frame(&mut pair.to_receiver, FrameType::Batch);
    pair.to_receiver.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    for entry in &entries {
        entry.write(&mut pair.to_receiver);
    }
    end_frame(&mut pair.to_receiver, frame);
    let result = pair.deliver_to_receiver(usize::MAX);
    if let Err(error) = &result {
        assert!(pair.received.is_empty(), "nothing of a refused batch is taken");
        let again = pair.receiver.as_mut().unwrap().handle_frame(Frame::Ping(1), NOW, &mut Vec::new());
        assert_eq!(again, Err(error.clone()), "errors are final");
    }
    result.map(|()| pair.received.len())
}

#[test]
fn each_signed_field_counts() {
    assert_eq!(changed(|_| {}), Ok(2), "the unchanged batch passes");
    let refused = |change: fn(&mut Entry)| changed(|entries| change(&mut entries[1])).unwrap_err();
    for (field, change) in [
        ("key id", (|e| e.key_id = "link-0".to_string()) as fn(&mut Entry)),
        ("time", |e| e.time_ms += 1),
        ("counter", |e| e.counter += 1),
        ("event id", |e| e.id.0[15] ^= 1),
        ("endpoint", |e| e.endpoint.0[0] ^= 1),
        ("target", |e| e.targets[0] = "billinh".to_string()),
        ("target added", |e| e.targets.push("spy".to_string())),
        ("target removed", |e| e.targets.truncate(1)),
        ("targets in another order", |e| e.targets.reverse()),
        ("content type", |e| e.content_type = "text/json".to_string()),
        ("no content type", |e| e.content_type.clear()),
        ("forwarded header", |e| e.headers = HEADERS.replace("push", "pusi")),
        ("tenant", |e| e.headers = HEADERS.replace("acme", "acmf")),
        ("header removed", |e| e.headers = ":tenant:acme\n".to_string()),
        ("one bit of the body", |e| e.body[6] ^= 1),
        ("body shorter", |e| e.body.truncate(6)),
        ("first bit of the tag", |e| e.tag[0] ^= 0x80),
        ("last bit of the tag", |e| e.tag[31] ^= 1),
    ] {
        assert_eq!(refused(change), LinkError::Tag, "{field}");
    }
    assert_eq!(refused(|e| e.key_id = "absent".to_string()), LinkError::KeyUnknown);
    assert_eq!(refused(|e| e.time_ms -= 300_001), LinkError::Stale);
    assert_eq!(refused(|e| e.time_ms += 300_001), LinkError::Stale);
    assert_eq!(refused(|e| e.counter = 0), LinkError::Replay(Replay::Seen));
    assert_eq!(refused(|e| e.counter = u64::MAX), LinkError::Replay(Replay::Exhausted));
    assert_eq!(changed(|entries| entries.swap(0, 1)), Err(LinkError::Order));
    assert_eq!(changed(|entries| entries[1].sequence = entries[0].sequence), Err(LinkError::Order));
    assert_eq!(changed(|entries| entries[0].sequence = 0), Err(LinkError::Order));
    assert_eq!(
        changed(|entries| {
            let (first, second) = (entries[0].tag, entries[1].tag);
            (entries[0].tag, entries[1].tag) = (second, first);
        }),
        Err(LinkError::Tag)
    );
}

#[test]
fn a_frame_replayed_on_its_connection_is_refused() {
    let mut pair = with_batch_under_way();
    let replay = pair.to_receiver.clone();
    pair.exchange().unwrap();
    assert_eq!(pair.received.len(), 2);
    pair.to_receiver = replay;
    assert_eq!(pair.deliver_to_receiver(usize::MAX), Err(LinkError::Order));
    assert_eq!(pair.received.len(), 2);
}

#[test]
fn a_replay_with_new_sequences_is_refused_by_its_counter() {
    let mut pair = with_batch_under_way();
    let replay = pair.to_receiver.clone();
    let (Frame::Batch(batch), _) = parse_frame(&replay, FRAME_BYTES_MAX).unwrap().unwrap() else {
        panic!("a batch is under way");
    };
    let mut entry = Entry::of(&batch.events().next().unwrap());
    entry.sequence += 1000;
    pair.exchange().unwrap();
    let frame = begin_frame(&mut pair.to_receiver, FrameType::Batch);
    pair.to_receiver.extend_from_slice(&1_u16.to_le_bytes());
    entry.write(&mut pair.to_receiver);
    end_frame(&mut pair.to_receiver, frame);
    assert_eq!(pair.deliver_to_receiver(usize::MAX), Err(LinkError::Replay(Replay::Seen)));
}

#[test]
fn a_frame_replayed_on_a_new_connection_is_refused() {
    let mut pair = with_batch_under_way();
    let replay = pair.to_receiver.clone();
    pair.cut();
    pair.connect(Role::Sender);
    pair.exchange().unwrap();
    pair.to_receiver = replay;
    assert_eq!(pair.deliver_to_receiver(usize::MAX), Err(LinkError::Tag));
    assert!(pair.received.is_empty());
}

#[test]
fn what_is_durable_already_is_counted_and_granted_again() {
    let mut pair = Pair::new(TestMac, NOW).with_credit_events(2);
    pair.connect(Role::Sender);
    pair.exchange().unwrap();
    (0..2).for_each(|_| pair.append(4));
    pair.seal(2);
    let batch = core::mem::take(&mut pair.to_receiver);

    let mut receiver =
        Receiver::accept(receiver_config(&TestMac, 0), &sender_hello(1, 1), NOW, &mut Vec::new()).unwrap();
    let mut out = Vec::new();
    receiver.start(sequence_of(0), &mut out);
    out.clear();
    let (frame, _) = parse_frame(&batch, FRAME_BYTES_MAX).unwrap().unwrap();
    let Ok(ReceiverEvent::Batch(frame)) = receiver.handle_frame(frame, NOW, &mut out) else { panic!() };
    let mut accepted = Vec::new();
    receiver.open_batch(&TestMac, &frame, NOW, &mut accepted).unwrap();
    assert_eq!(accepted.iter().map(|incoming| incoming.sequence).collect::<Vec<_>>(), [sequence_of(1)]);
    assert_eq!((receiver.duplicates(), receiver.last_received()), (1, sequence_of(1)));
    receiver.ack(sequence_of(0), &mut out);
    let (Frame::Ack(ack), _) = parse_frame(&out, 100).unwrap().unwrap() else { panic!() };
    assert_eq!(ack.credit_events, 64 + 1);
    out.clear();
    receiver.ack(sequence_of(0), &mut out);
    assert!(out.is_empty(), "nothing new, nothing said");
}

#[test]
fn events_that_are_not_events_are_refused() {
    let mut pair = connected(Role::Sender);
    let frame = begin_frame(&mut pair.to_receiver, FrameType::Batch);
    pair.to_receiver.extend_from_slice(&1_u16.to_le_bytes());
    let (tag, key_id, encoded) = (&[0; 32], KEY_ID, &b"not an event"[..]);
    BatchEvent { sequence: 1, time_ms: NOW, counter: 0, tag, key_id, targets: Targets::NONE, encoded }
        .write(TARGETS.into_iter(), &mut pair.to_receiver);
    end_frame(&mut pair.to_receiver, frame);
    assert_eq!(pair.deliver_to_receiver(usize::MAX), Err(LinkError::Event(EventError::Length)));
}

fn sender_hello(version_min: u16, version_max: u16) -> Hello {
    Hello {
        version_min,
        version_max,
        role: Role::Sender,
        stream: 1,
        streams: 2,
        journal_id: [7; 16],
        node: "edge-1".to_string(),
        peer: "inside".to_string(),
    }
}

fn receiver_hello() -> Hello {
    Hello {
        role: Role::Receiver,
        streams: 0,
        journal_id: [0; 16],
        node: "inside".to_string(),
        peer: "edge-1".to_string(),
        ..sender_hello(1, 1)
    }
}

#[test]
fn frames_out_of_place_are_refused() {
    let start = Start { session: [0; 8], resume_after: 0, credit_bytes: 1, credit_events: 1 };
    let ack = Ack { durable: 0, credit_bytes: 0, credit_events: 0 };
    let dialed = || Sender::dial(sender_config(&TestMac), NOW, &mut Vec::new());
    let accepted =
        || Sender::accept(sender_config(&TestMac), &receiver_hello(), NOW, &mut Vec::new()).unwrap();
    let unexpected = |mut sender: Sender<_>, frame: Frame<'_>| {
        let kind = frame.frame_type();
        let result = sender.handle_frame(frame, NOW, &mut Vec::new());
        assert_eq!(result, Err(LinkError::Unexpected(kind)));
    };
    for frame in [Frame::Start(start), Frame::Ack(ack), Frame::Ping(1), Frame::Goodbye(GoodbyeReason::Drain)]
    {
        unexpected(dialed(), frame);
    }
    unexpected(accepted(), Frame::Ack(ack));
    unexpected(accepted(), Frame::Hello(receiver_hello()));
    let mut ready = accepted();
    ready.handle_frame(Frame::Start(start), NOW, &mut Vec::new()).unwrap();
    unexpected(ready, Frame::Start(start));

    let mut receiver =
        Receiver::accept(receiver_config(&TestMac, 0), &sender_hello(1, 1), NOW, &mut Vec::new()).unwrap();
    let result = receiver.handle_frame(Frame::Ack(ack), NOW, &mut Vec::new());
    assert_eq!(result, Err(LinkError::Unexpected(FrameType::Ack)));
}

#[test]
fn acknowledgements_cannot_take_back_or_invent() {
    let ack = |durable, credit_bytes, credit_events| {
        let mut pair = with_batch_under_way();
        let ack = Ack { durable, credit_bytes, credit_events };
        pair.sender.as_mut().unwrap().handle_frame(Frame::Ack(ack), NOW, &mut Vec::new())
    };
    let bytes = crate::event::EVENT_BYTES_MAX as u64;
    assert_eq!(ack(sequence_of(1), bytes, 64), Ok(SenderEvent::Acked { durable: sequence_of(1) }));
    assert_eq!(ack(sequence_of(1) + 1, bytes, 64), Err(LinkError::Ack));
    assert_eq!(ack(sequence_of(1), bytes - 1, 64), Err(LinkError::Ack));
    assert_eq!(ack(sequence_of(1), bytes, 63), Err(LinkError::Ack));
    let mut pair = with_batch_under_way();
    let sender = pair.sender.as_mut().unwrap();
    for (durable, good) in [(sequence_of(1), true), (sequence_of(0), false)] {
        let ack = Ack { durable, credit_bytes: bytes, credit_events: 64 };
        assert_eq!(sender.handle_frame(Frame::Ack(ack), NOW, &mut Vec::new()).is_ok(), good);
    }
    assert_eq!(sender.in_flight(), 0);
}

#[test]
fn silence_is_pinged_and_then_given_up() {
    let mut pair = connected(Role::Sender);
    assert_eq!(pair.sender.as_ref().unwrap().poll_timeout(), NOW + PING_AFTER_MS);
    pair.wait(PING_AFTER_MS - 1).unwrap();
    assert!(pair.to_receiver.is_empty() && pair.to_sender.is_empty());
    pair.wait(1).unwrap();
    assert!(!pair.to_receiver.is_empty() && !pair.to_sender.is_empty());
    pair.exchange().unwrap();
    assert_eq!(pair.receiver.as_ref().unwrap().poll_timeout(), NOW + 2 * PING_AFTER_MS);
    pair.wait(SILENCE_TIMEOUT_MS - 1).unwrap();
    assert_eq!(pair.wait(1), Err(LinkError::PeerSilent));
    assert_eq!(pair.seal(1), 0);
}

#[test]
fn handshakes_have_a_deadline() {
    let mut pair = Pair::new(TestMac, NOW);
    pair.connect(Role::Receiver);
    assert_eq!(pair.receiver.as_ref().unwrap().poll_timeout(), NOW + HANDSHAKE_TIMEOUT_MS);
    pair.wait(HANDSHAKE_TIMEOUT_MS - 1).unwrap();
    assert_eq!(pair.wait(1), Err(LinkError::HandshakeTimeout));
}

#[test]
fn after_a_goodbye_acknowledgements_still_come() {
    for speaker in [Role::Sender, Role::Receiver] {
        let mut pair = with_batch_under_way();
        pair.append(1);
        match speaker {
            Role::Sender => {
                pair.sender.as_mut().unwrap().goodbye(GoodbyeReason::Drain, &mut pair.to_receiver);
            }
            Role::Receiver => {
                pair.receiver.as_mut().unwrap().goodbye(GoodbyeReason::Drain, &mut pair.to_sender);
            }
        }
        pair.exchange().unwrap();
        assert_eq!(pair.seal(1), 0);
        pair.commit(2);
        pair.acknowledge();
        pair.exchange().unwrap();
        assert_eq!(pair.sender.as_ref().unwrap().acked(), sequence_of(1));
    }
}

#[test]
fn refusals_are_cut_and_cleaned() {
    let mut out = Vec::new();
    write_refuse(&mut out, RefuseCode::Other(200), &("é\n".to_string() + &"x".repeat(300)));
    let (Frame::Refuse(refuse), _) = parse_frame(&out, FIRST_FRAME_BYTES_MAX).unwrap().unwrap() else {
        panic!()
    };
    assert_eq!((refuse.code, refuse.text.len()), (RefuseCode::Other(200), 255));
    assert!(refuse.text.starts_with("é x"));
}

#[test]
fn memory_is_kept_from_batch_to_batch() {
    let mut pair = connected(Role::Sender);
    let mut sizes = vec![];
    for _ in 0..4 {
        (0..10).for_each(|_| pair.append(100));
        pair.settle();
        sizes.push(pair.sender.as_ref().unwrap().scratch_capacity());
    }
    assert!(sizes[1] > 0 && sizes.windows(2).skip(1).all(|pair| pair[0] == pair[1]), "{sizes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn frames_do_not_depend_on_their_pieces(
        cut in any::<u8>(),
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..3),
        noise in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut pair = with_batch_under_way();
        let mut data = vec![cut];
        sender_hello(1, 1).write(&mut data);
        data.append(&mut pair.to_receiver);
        write_ping(&mut data, 3);
        data.extend_from_slice(&noise);
        for (at, byte) in flips {
            let at = 1 + usize::from(at) % (data.len() - 1);
            data[at] = byte;
        }
        fuzz_frames(&data);
    }

    #[test]
    fn any_operation_sequence_loses_and_repeats_nothing(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz_link(&data);
    }
}
