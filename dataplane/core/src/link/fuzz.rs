//! Asserting entry points for fuzz targets, and the in-memory pair that they and the tests drive.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::frame::Frame;
use super::{
    FrameReader, LinkError, Outgoing, Receiver, ReceiverConfig, ReceiverEvent, Role, Sender, SenderConfig,
};
use crate::crypto::{Digest, Mac, MacJob, Tag};
use crate::event::{EVENT_BYTES_MAX, Event};
use crate::id::{EndpointId, EventId};

/// However a byte stream is cut, the same frames and the same error come out of it.
pub fn fuzz_frames(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = read_all(stream, stream.len().max(1));
    assert_eq!(read_all(stream, usize::from(cut) + 1), whole);
    if stream.len() <= 1024 {
        assert_eq!(read_all(stream, 1), whole);
    }
}

/// Any order of sealing, partial delivery, commits, cuts and silence loses, repeats and invents nothing.
pub fn fuzz_link(data: &[u8]) {
    let mut pair = Pair::new(ToyMac, 60_000);
    let mut role = Role::Sender;
    pair.connect(role);
    for operation in data.chunks_exact(2) {
        let amount = usize::from(operation[1]);
        let done = match operation[0] % 8 {
            0 => {
                pair.append(amount * 37);
                Ok(())
            }
            1 => {
                pair.seal(amount);
                Ok(())
            }
            2 => pair.deliver_to_receiver(amount * amount),
            3 => pair.deliver_to_sender(amount),
            4 => {
                pair.commit(amount % 8);
                Ok(())
            }
            5 => {
                pair.acknowledge();
                Ok(())
            }
            6 => pair.wait(amount as u64 * 40),
            _ => Err(LinkError::PeerSilent),
        };
        match done {
            Ok(()) => {}
            Err(LinkError::PeerSilent | LinkError::HandshakeTimeout) => {
                role = if amount % 2 == 0 { Role::Sender } else { Role::Receiver };
                pair.cut();
                pair.connect(role);
            }
            Err(error) => panic!("honest peers do not fail: {error}"),
        }
    }
    pair.cut();
    pair.connect(role);
    pair.settle();
}

/// What a stream of bytes read in pieces of `piece` bytes comes to.
pub(super) fn read_all(stream: &[u8], piece: usize) -> (Vec<String>, Option<LinkError>) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for mut bytes in stream.chunks(piece) {
        while !bytes.is_empty() {
            bytes = &bytes[reader.handle_bytes(bytes)..];
            loop {
                match reader.poll_frame() {
                    Ok(Some(frame)) => frames.push(describe(&frame)),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
    }
    (frames, None)
}

fn describe(frame: &Frame<'_>) -> String {
    if let Frame::Batch(batch) = frame {
        assert_eq!(batch.events().count(), batch.count());
        let targets = batch.events().flat_map(|event| event.targets.iter());
        return format!("{:?} {:?}", batch, targets.collect::<Vec<_>>());
    }
    format!("{frame:?}")
}

/// A keyed checksum in place of HMAC: fast, and different for different keys and messages.
pub(super) struct ToyMac;

impl Mac for ToyMac {
    type Key = u64;

    fn prepare(&self, secret: &[u8]) -> u64 {
        fnv(0x9e37, secret)
    }

    fn sign(&self, jobs: &[MacJob<'_, u64>], tags: &mut Vec<Tag>) {
        tags.clear();
        tags.extend(jobs.iter().map(|job| spread(fnv(fnv(*job.key, job.parts[0]), job.parts[1]))));
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        spread(fnv(1, bytes))
    }
}

fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn spread(value: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    bytes
}

/// A sender with its journal and a receiver with what it has durable, joined by two byte queues.
pub(super) struct Pair<M: Mac>
where
    M::Key: 'static,
{
    pub(super) mac: M,
    pub(super) now_ms: u64,
    pub(super) sender: Option<Sender<M::Key>>,
    pub(super) receiver: Option<Receiver<M::Key>>,
    pub(super) to_receiver: Vec<u8>,
    pub(super) to_sender: Vec<u8>,
    /// Sequences that the receiver took; the first `durable` of them outlive a cut.
    pub(super) received: Vec<u64>,
    pub(super) durable: usize,
    /// Encoded events; number `n` has the sequence [`sequence_of`]`(n)`.
    journal: Vec<Vec<u8>>,
    at_sender: FrameReader,
    at_receiver: FrameReader,
    connections: u64,
    credit_events: u32,
}

/// Sequences have gaps: a journal holds more than one egress's events.
pub(super) fn sequence_of(index: usize) -> u64 {
    index as u64 * 3 + 2
}

pub(super) const KEY_ID: &str = "link-1";
pub(super) const TARGETS: [&str; 2] = ["billing", "audit"];
pub(super) const HEADERS: &str = ":tenant:acme\nx-kind:push\n";

pub(super) fn sender_config<M: Mac>(mac: &M) -> SenderConfig<M::Key> {
    SenderConfig {
        node: "edge-1".to_string(),
        egress: "inside".to_string(),
        stream: 1,
        streams: 2,
        journal_id: [7; 16],
        key_id: KEY_ID.to_string(),
        key: mac.prepare(b"link secret"),
    }
}

pub(super) fn receiver_config<M: Mac>(mac: &M, connection: u64) -> ReceiverConfig<M::Key> {
    ReceiverConfig {
        node: "inside".to_string(),
        ingester: "edge-1".to_string(),
        stream: 1,
        keys: vec![
            ("link-0".to_string(), mac.prepare(b"another secret")),
            (KEY_ID.to_string(), mac.prepare(b"link secret")),
        ],
        session: (connection + 1).to_be_bytes(),
        credit_bytes: EVENT_BYTES_MAX as u64,
        credit_events: 64,
    }
}

impl<M: Mac> Pair<M> {
    pub(super) fn new(mac: M, now_ms: u64) -> Self {
        Self {
            mac,
            now_ms,
            sender: None,
            receiver: None,
            to_receiver: Vec::new(),
            to_sender: Vec::new(),
            received: Vec::new(),
            durable: 0,
            journal: Vec::new(),
            at_sender: FrameReader::new(),
            at_receiver: FrameReader::new(),
            connections: 0,
            credit_events: 64,
        }
    }

    #[cfg(test)]
    pub(super) fn with_credit_events(self, credit_events: u32) -> Self {
        Self { credit_events, ..self }
    }

    pub(super) fn connect(&mut self, dialer: Role) {
        match dialer {
            Role::Sender => {
                let config = sender_config(&self.mac);
                self.sender = Some(Sender::dial(config, self.now_ms, &mut self.to_receiver));
            }
            Role::Receiver => {
                let mut config = receiver_config(&self.mac, self.connections);
                config.credit_events = self.credit_events;
                self.receiver = Some(Receiver::dial(config, self.now_ms, &mut self.to_sender));
            }
        }
    }

    pub(super) fn cut(&mut self) {
        self.sender = None;
        self.receiver = None;
        self.to_receiver.clear();
        self.to_sender.clear();
        self.received.truncate(self.durable);
        self.at_sender = FrameReader::new();
        self.at_receiver = FrameReader::new();
        self.connections += 1;
    }

    /// Adds an event with a body of that many bytes to the sender's journal.
    pub(super) fn append(&mut self, body_bytes: usize) {
        let number = self.journal.len();
        let body = vec![number as u8; body_bytes];
        let event = Event {
            id: EventId([number as u8; 16]),
            endpoint: EndpointId([9; 16]),
            content_type: "application/json",
            headers: HEADERS,
            body: &body,
        };
        let mut encoded = Vec::new();
        event.encode_head(&mut encoded).expect("a canonical event");
        encoded.extend_from_slice(&body);
        self.journal.push(encoded);
    }

    /// Seals at most `count` of the events that were not sent on this connection; returns how many.
    pub(super) fn seal(&mut self, count: usize) -> usize {
        let Some(sender) = self.sender.as_mut().filter(|sender| sender.is_ready()) else { return 0 };
        let last_sent = sender.last_sent();
        let waiting = self.journal.iter().enumerate().filter(|(index, _)| sequence_of(*index) > last_sent);
        let events: Vec<_> = waiting
            .take(count)
            .map(|(index, encoded)| Outgoing {
                sequence: sequence_of(index),
                targets: &TARGETS,
                event: Event::decode(encoded).expect("it was encoded"),
                encoded,
            })
            .collect();
        sender.seal_batch(&self.mac, &events, self.now_ms, &mut self.to_receiver)
    }

    pub(super) fn deliver_to_receiver(&mut self, bytes: usize) -> Result<(), LinkError> {
        let count = bytes.min(self.to_receiver.len());
        let piece: Vec<u8> = self.to_receiver.drain(..count).collect();
        assert_eq!(self.at_receiver.handle_bytes(&piece), piece.len());
        while let Some(frame) = self.at_receiver.poll_frame()? {
            let resume_after = self.durable.checked_sub(1).map_or(0, sequence_of);
            let Some(receiver) = &mut self.receiver else {
                let Frame::Hello(hello) = frame else { panic!("the first frame is a hello") };
                let mut config = receiver_config(&self.mac, self.connections);
                config.credit_events = self.credit_events;
                let mut receiver = Receiver::accept(config, &hello, self.now_ms, &mut self.to_sender)?;
                receiver.start(resume_after, &mut self.to_sender);
                self.receiver = Some(receiver);
                continue;
            };
            match receiver.handle_frame(frame, self.now_ms, &mut self.to_sender)? {
                ReceiverEvent::None | ReceiverEvent::Goodbye(_) => {}
                ReceiverEvent::PeerHello(_) => receiver.start(resume_after, &mut self.to_sender),
                ReceiverEvent::Batch(batch) => {
                    let mut accepted = Vec::new();
                    receiver.open_batch(&self.mac, &batch, self.now_ms, &mut accepted)?;
                    for incoming in accepted {
                        let number = self.received.len();
                        assert_eq!(incoming.sequence, sequence_of(number), "in order, without gap or repeat");
                        assert_eq!(incoming.encoded, self.journal[number]);
                        assert!(incoming.targets.iter().eq(TARGETS));
                        assert_eq!(incoming.targets.iter().len(), TARGETS.len());
                        self.received.push(incoming.sequence);
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn deliver_to_sender(&mut self, bytes: usize) -> Result<(), LinkError> {
        let count = bytes.min(self.to_sender.len());
        let piece: Vec<u8> = self.to_sender.drain(..count).collect();
        assert_eq!(self.at_sender.handle_bytes(&piece), piece.len());
        while let Some(frame) = self.at_sender.poll_frame()? {
            let Some(sender) = &mut self.sender else {
                let Frame::Hello(hello) = frame else { panic!("the first frame is a hello") };
                let config = sender_config(&self.mac);
                self.sender = Some(Sender::accept(config, &hello, self.now_ms, &mut self.to_receiver)?);
                continue;
            };
            sender.handle_frame(frame, self.now_ms, &mut self.to_receiver)?;
            assert!(sender.acked() <= self.durable.checked_sub(1).map_or(0, sequence_of));
        }
        Ok(())
    }

    /// Makes the next `count` received events durable, and lets as many come.
    pub(super) fn commit(&mut self, count: usize) {
        let Some(receiver) = &mut self.receiver else { return };
        let up_to = (self.durable + count).min(self.received.len());
        let bytes = self.journal[self.durable..up_to].iter().map(|encoded| encoded.len() as u64).sum();
        receiver.grant(bytes, (up_to - self.durable) as u64);
        self.durable = up_to;
    }

    pub(super) fn acknowledge(&mut self) {
        let Some(receiver) = self.receiver.as_mut().filter(|receiver| receiver.is_open()) else { return };
        receiver.ack(self.durable.checked_sub(1).map_or(0, sequence_of), &mut self.to_sender);
    }

    pub(super) fn wait(&mut self, ms: u64) -> Result<(), LinkError> {
        self.now_ms += ms;
        if let Some(sender) = &mut self.sender {
            sender.handle_timeout(self.now_ms, &mut self.to_receiver)?;
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.handle_timeout(self.now_ms, &mut self.to_sender)?;
        }
        Ok(())
    }

    /// Moves everything both ways until nothing is left to move.
    pub(super) fn exchange(&mut self) -> Result<(), LinkError> {
        while !(self.to_receiver.is_empty() && self.to_sender.is_empty()) {
            self.deliver_to_receiver(usize::MAX)?;
            self.deliver_to_sender(usize::MAX)?;
        }
        Ok(())
    }

    /// Runs until every event of the journal is acknowledged, which must come to an end.
    pub(super) fn settle(&mut self) {
        for _ in 0..=self.journal.len() {
            self.exchange().expect("honest peers do not fail");
            while self.seal(usize::MAX) > 0 {}
            self.exchange().expect("honest peers do not fail");
            self.commit(usize::MAX / 2);
            self.acknowledge();
            self.exchange().expect("honest peers do not fail");
        }
        let sender = self.sender.as_ref().expect("a sender is connected");
        assert_eq!(self.durable, self.journal.len(), "nothing is lost");
        assert_eq!(sender.acked(), self.durable.checked_sub(1).map_or(0, sequence_of));
        assert_eq!(sender.in_flight(), 0);
    }
}
