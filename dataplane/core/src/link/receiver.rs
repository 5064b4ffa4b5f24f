//! The egress's end of a connection.
//!
//! Enters: frames of the sender, what is durable, what may come. Leaves: events whose tag, time, counter, key
//! and order hold, each once. Refuses a batch as a whole.

use alloc::string::String;
use alloc::vec::Vec;

use subtle::{Choice, ConstantTimeEq};

use super::batch::{BatchEvent, BatchFrame, Targets};
use super::error::LinkError;
use super::frame::{Ack, Frame, GoodbyeReason, Start, write_pong};
use super::hello::{Hello, Role};
use super::liveness::Liveness;
use super::signing::{Signed, Signing};
use super::{LINK_KEYS_MAX, VERSION_MAX, VERSION_MIN};
use crate::crypto::Mac;
use crate::envelope::{ReplayWindow, is_fresh};
use crate::event::{EVENT_BYTES_MAX, Event};

/// Whom a receiver listens to, and how much it takes.
#[derive(Debug)]
pub struct ReceiverConfig<K> {
    /// This node's name, which is part of each event's audience.
    pub node: String,
    /// The name of the ingester.
    pub ingester: String,
    /// The worker journal wanted; of an accepted sender, the one it serves.
    pub stream: u16,
    /// Key ids and keys of that ingester, 1 to [`LINK_KEYS_MAX`].
    pub keys: Vec<(String, K)>,
    /// Random, never used before: it keeps events of other connections out.
    pub session: [u8; 8],
    /// Event bytes granted at first, at least [`EVENT_BYTES_MAX`].
    pub credit_bytes: u64,
    /// Events granted at first, at least 1.
    pub credit_events: u32,
}

/// An event whose signature holds.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Its sequence in the sender's journal.
    pub sequence: u64,
    /// Where to deliver it.
    pub targets: Targets<'a>,
    /// The event.
    pub event: Event<'a>,
    /// The event in its encoding, for this node's journal.
    pub encoded: &'a [u8],
}

/// What a frame means for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverEvent<'a> {
    /// Nothing to do.
    None,
    /// The sender that was dialed answered; look up where to resume its journal, then [`Receiver::start`].
    PeerHello(Hello),
    /// Pass it to [`Receiver::open_batch`].
    Batch(BatchFrame<'a>),
    /// The sender sends no more.
    Goodbye(GoodbyeReason),
}

/// The receiving machine.
#[derive(Debug)]
pub struct Receiver<K: 'static> {
    config: ReceiverConfig<K>,
    state: State,
    liveness: Liveness,
    signing: Signing<K>,
    duplicates: u64,
}

#[derive(Debug)]
enum State {
    AwaitHello,
    AwaitResume,
    Open(Flow),
    Failed(LinkError),
}

#[derive(Debug)]
struct Flow {
    window: ReplayWindow,
    /// Up to here events are durable from before this connection.
    resume_after: u64,
    /// Highest sequence of this connection; 0 before the first.
    last_sequence: u64,
    received: Amount,
    granted: Amount,
    acked: Ack,
}

#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    bytes: u64,
    events: u64,
}

impl<K> Receiver<K> {
    /// A receiver that dialed: says hello.
    pub fn dial(config: ReceiverConfig<K>, steady_ms: u64, out: &mut Vec<u8>) -> Self {
        Self::begin(config, State::AwaitHello, steady_ms, out)
    }

    /// A receiver that was dialed: checks the sender's hello, and answers it. Then [`Self::start`].
    pub fn accept(
        config: ReceiverConfig<K>,
        peer: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Self, LinkError> {
        peer.check_against(&config.hello())?;
        Ok(Self::begin(config, State::AwaitResume, steady_ms, out))
    }

    fn begin(config: ReceiverConfig<K>, state: State, steady_ms: u64, out: &mut Vec<u8>) -> Self {
        assert!((1..=LINK_KEYS_MAX).contains(&config.keys.len()), "the configuration was checked");
        assert!(config.credit_bytes >= EVENT_BYTES_MAX as u64 && config.credit_events > 0, "an event fits");
        config.hello().write(out);
        Self { config, state, liveness: Liveness::new(steady_ms), signing: Signing::new(), duplicates: 0 }
    }

    /// Asks for the events after `resume_after`, the highest sequence of that journal that is durable here;
    /// 0 for none. Once, after the hellos.
    pub fn start(&mut self, resume_after: u64, out: &mut Vec<u8>) {
        assert!(matches!(self.state, State::AwaitResume), "start follows the peer's hello");
        let ReceiverConfig { session, credit_bytes, credit_events, .. } = self.config;
        Start { session, resume_after, credit_bytes, credit_events }.write(out);
        self.liveness.handle_open();
        let granted = Amount { bytes: credit_bytes, events: u64::from(credit_events) };
        self.state = State::Open(Flow {
            window: ReplayWindow::new(),
            resume_after,
            last_sequence: 0,
            received: Amount::default(),
            granted,
            acked: Ack { durable: resume_after, credit_bytes, credit_events: granted.events },
        });
    }

    /// Takes a frame of the sender; what it has to answer is appended to `out`. Errors are final.
    pub fn handle_frame<'a>(
        &mut self,
        frame: Frame<'a>,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<ReceiverEvent<'a>, LinkError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        self.liveness.handle_frame(steady_ms);
        let result = self.step(frame, out);
        self.keep_failure(result)
    }

    /// Checks a batch and appends its events to `accepted`, without those that are durable already. When
    /// anything does not hold, nothing is taken and the connection is over.
    pub fn open_batch<'a, M: Mac<Key = K>>(
        &mut self,
        mac: &M,
        frame: &BatchFrame<'a>,
        unix_ms: u64,
        accepted: &mut Vec<Incoming<'a>>,
    ) -> Result<(), LinkError> {
        let before = accepted.len();
        let result = self.check_batch(mac, frame, unix_ms, accepted);
        if result.is_err() {
            accepted.truncate(before);
        }
        self.keep_failure(result)
    }

    /// When [`Self::handle_timeout`] has something to do, steady ms.
    pub fn poll_timeout(&self) -> u64 {
        self.liveness.poll_timeout()
    }

    /// Pings an idle peer; gives up on a silent one.
    pub fn handle_timeout(&mut self, steady_ms: u64, out: &mut Vec<u8>) -> Result<(), LinkError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let result = self.liveness.handle_timeout(steady_ms, out);
        self.keep_failure(result)
    }

    /// Lets that many more event bytes and events come; said with the next [`Self::ack`].
    pub fn grant(&mut self, bytes: u64, events: u64) {
        if let State::Open(flow) = &mut self.state {
            flow.granted.bytes = flow.granted.bytes.saturating_add(bytes);
            flow.granted.events = flow.granted.events.saturating_add(events);
        }
    }

    /// Acknowledges everything up to `durable`, with what was granted since; silent when nothing is new.
    pub fn ack(&mut self, durable: u64, out: &mut Vec<u8>) {
        let State::Open(flow) = &mut self.state else { return };
        assert!(durable <= flow.last_sequence.max(flow.resume_after), "durable, so received");
        assert!(durable >= flow.acked.durable, "what is durable stays so");
        let ack = Ack { durable, credit_bytes: flow.granted.bytes, credit_events: flow.granted.events };
        if ack != flow.acked {
            flow.acked = ack;
            ack.write(out);
        }
    }

    /// Takes leave: asks for no more. What comes before the sender heard of it is still taken.
    pub fn goodbye(&mut self, reason: GoodbyeReason, out: &mut Vec<u8>) {
        reason.write(out);
    }

    /// Whether batches may come.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Highest sequence received, or resumed after; 0 for none.
    pub fn last_received(&self) -> u64 {
        match &self.state {
            State::Open(flow) => flow.last_sequence.max(flow.resume_after),
            _ => 0,
        }
    }

    /// Events that came although they were durable before the connection.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The stream wanted.
    pub fn stream(&self) -> u16 {
        self.config.stream
    }

    fn step<'a>(&mut self, frame: Frame<'a>, out: &mut Vec<u8>) -> Result<ReceiverEvent<'a>, LinkError> {
        match (&self.state, frame) {
            (_, Frame::Refuse(refuse)) => Err(LinkError::Refused(refuse)),
            (State::AwaitHello, Frame::Hello(hello)) => {
                hello.check_against(&self.config.hello())?;
                self.state = State::AwaitResume;
                Ok(ReceiverEvent::PeerHello(hello))
            }
            (State::Open(_), Frame::Batch(batch)) => Ok(ReceiverEvent::Batch(batch)),
            (State::AwaitResume | State::Open(_), Frame::Ping(value)) => {
                write_pong(out, value);
                Ok(ReceiverEvent::None)
            }
            (State::AwaitResume | State::Open(_), Frame::Pong(_)) => Ok(ReceiverEvent::None),
            (State::AwaitResume | State::Open(_), Frame::Goodbye(reason)) => {
                Ok(ReceiverEvent::Goodbye(reason))
            }
            (_, frame) => Err(LinkError::Unexpected(frame.frame_type())),
        }
    }

    fn check_batch<'a, M: Mac<Key = K>>(
        &mut self,
        mac: &M,
        frame: &BatchFrame<'a>,
        unix_ms: u64,
        accepted: &mut Vec<Incoming<'a>>,
    ) -> Result<(), LinkError> {
        let flow = match &mut self.state {
            State::Open(flow) => flow,
            State::Failed(error) => return Err(error.clone()),
            State::AwaitHello | State::AwaitResume => panic!("batches come from handle_frame"),
        };
        let before = accepted.len();
        let mut after = flow.after_batch(frame)?;
        self.signing.clear();
        for entry in frame.events() {
            if !is_fresh(entry.time_ms, unix_ms) {
                return Err(LinkError::Stale);
            }
            key_of(&self.config.keys, &entry).ok_or(LinkError::KeyUnknown)?;
            after.window.accept(entry.counter)?;
            let event = Event::decode(entry.encoded)?;
            let BatchEvent { key_id, time_ms, counter, sequence, targets, encoded, .. } = entry;
            let signed =
                Signed { key_id, time_ms, session: self.config.session, counter, egress: &self.config.node };
            self.signing.push(mac, &signed, targets.iter(), &event)?;
            accepted.push(Incoming { sequence, targets, event, encoded });
        }
        let keys = frame.events().map(|entry| key_of(&self.config.keys, &entry).expect("found above"));
        let bodies = accepted[before..].iter().map(|incoming| incoming.event.body);
        let tags = self.signing.sign(mac, keys.zip(bodies));

        let mut equal = Choice::from(1);
        for (tag, entry) in tags.iter().zip(frame.events()) {
            equal &= tag.ct_eq(entry.tag);
        }
        if !bool::from(equal) {
            return Err(LinkError::Tag);
        }
        *flow = after;
        self.drop_duplicates(before, accepted);
        Ok(())
    }

    /// Removes what is durable already, which is at the front because sequences ascend, and grants it anew.
    fn drop_duplicates(&mut self, before: usize, accepted: &mut Vec<Incoming<'_>>) {
        let State::Open(flow) = &self.state else { return };
        let count = accepted[before..].partition_point(|incoming| incoming.sequence <= flow.resume_after);
        let bytes = accepted[before..before + count].iter().map(|incoming| incoming.encoded.len() as u64);
        let bytes = bytes.sum();
        accepted.drain(before..before + count);
        self.duplicates += count as u64;
        self.grant(bytes, count as u64);
    }

    fn keep_failure<T>(&mut self, result: Result<T, LinkError>) -> Result<T, LinkError> {
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }
}

impl<K> ReceiverConfig<K> {
    fn hello(&self) -> Hello {
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role: Role::Receiver,
            stream: self.stream,
            streams: 0,
            journal_id: [0; 16],
            node: self.node.clone(),
            peer: self.ingester.clone(),
        }
    }
}

impl Flow {
    /// The flow as it will be if this batch holds; order and credit are checked here.
    fn after_batch(&self, frame: &BatchFrame<'_>) -> Result<Self, LinkError> {
        let mut after = Self { window: self.window.clone(), ..*self };
        for entry in frame.events() {
            if entry.sequence <= after.last_sequence {
                return Err(LinkError::Order);
            }
            after.last_sequence = entry.sequence;
            after.received.bytes += entry.encoded.len() as u64;
            after.received.events += 1;
        }
        if after.received.bytes > self.granted.bytes || after.received.events > self.granted.events {
            return Err(LinkError::Credit);
        }
        Ok(after)
    }
}

fn key_of<'k, K>(keys: &'k [(String, K)], entry: &BatchEvent<'_>) -> Option<&'k K> {
    keys.iter().find(|(id, _)| id == entry.key_id).map(|(_, key)| key)
}
