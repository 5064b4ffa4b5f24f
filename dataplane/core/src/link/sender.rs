//! The ingester's end of a connection.
//!
//! Enters: frames of the receiver, events of one journal in ascending sequence. Leaves: frames, and what the
//! receiver says is durable. Sends no more than it was granted.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::batch::{BatchEvent, Targets};
use super::error::LinkError;
use super::frame::{Ack, Frame, FrameType, GoodbyeReason, Start, begin_frame, end_frame, write_pong};
use super::hello::{Hello, Role};
use super::liveness::Liveness;
use super::signing::{Signed, Signing};
use super::{BATCH_BYTES_GOAL, BATCH_EVENTS_MAX, IN_FLIGHT_EVENTS_MAX, VERSION_MAX, VERSION_MIN};
use crate::crypto::Mac;
use crate::envelope::TARGETS_MAX;
use crate::event::Event;
use crate::id::is_name;

/// Which stream a sender serves, to whom, and with which key.
#[derive(Debug)]
pub struct SenderConfig<K> {
    /// This node's name.
    pub node: String,
    /// The name of the egress.
    pub egress: String,
    /// The worker journal served on this connection.
    pub stream: u16,
    /// How many of them this node has.
    pub streams: u16,
    /// The journal's id.
    pub journal_id: [u8; 16],
    /// Names the key.
    pub key_id: String,
    /// Signs each event.
    pub key: K,
}

/// One event to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Its sequence in the journal, above all that were sent on this connection.
    pub sequence: u64,
    /// 1 to [`TARGETS_MAX`] names.
    pub targets: &'a [&'a str],
    /// The event, decoded from `encoded`.
    pub event: Event<'a>,
    /// The event in its encoding.
    pub encoded: &'a [u8],
}

/// What a frame means for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// Nothing to do.
    None,
    /// Events after this sequence may be sent now.
    Ready {
        /// Highest sequence that the receiver already has; 0 for none.
        resume_after: u64,
    },
    /// The receiver has everything up to this sequence; there may be new credit.
    Acked {
        /// Highest durable sequence.
        durable: u64,
    },
    /// The receiver takes no more.
    Goodbye(GoodbyeReason),
}

/// The sending machine.
#[derive(Debug)]
pub struct Sender<K: 'static> {
    config: SenderConfig<K>,
    state: State,
    leaving: Leaving,
    liveness: Liveness,
    signing: Signing<K>,
}

#[derive(Debug)]
enum State {
    AwaitHello,
    AwaitStart,
    Ready(Flow),
    Failed(LinkError),
}

/// Whether either side took its leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    Yes,
}

#[derive(Debug)]
struct Flow {
    session: [u8; 8],
    next_counter: u64,
    granted_bytes: u64,
    granted_events: u64,
    sent_bytes: u64,
    sent_events: u64,
    last_sent: u64,
    acked: u64,
    /// Sequences sent and not acknowledged, ascending.
    in_flight: VecDeque<u64>,
}

impl<K> Sender<K> {
    /// A sender that dialed: says hello.
    pub fn dial(config: SenderConfig<K>, steady_ms: u64, out: &mut Vec<u8>) -> Self {
        Self::begin(config, State::AwaitHello, steady_ms, out)
    }

    /// A sender that was dialed: checks the receiver's hello, and answers it.
    pub fn accept(
        config: SenderConfig<K>,
        peer: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Self, LinkError> {
        peer.check_against(&config.hello())?;
        Ok(Self::begin(config, State::AwaitStart, steady_ms, out))
    }

    fn begin(config: SenderConfig<K>, state: State, steady_ms: u64, out: &mut Vec<u8>) -> Self {
        assert!(is_name(&config.key_id) && config.stream < config.streams, "the configuration was checked");
        config.hello().write(out);
        let liveness = Liveness::new(steady_ms);
        Self { config, state, leaving: Leaving::No, liveness, signing: Signing::new() }
    }

    /// Takes a frame of the receiver; what it has to answer is appended to `out`. Errors are final.
    pub fn handle_frame(
        &mut self,
        frame: Frame<'_>,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<SenderEvent, LinkError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        self.liveness.handle_frame(steady_ms);
        let result = self.step(frame, out);
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

    /// Signs and appends one batch of the first of `events`, as far as credit and the bounds of a batch go, stamped
    /// with the wall clock; returns how many were taken. Call again for the rest until it takes none.
    pub fn seal_batch<M: Mac<Key = K>>(
        &mut self,
        mac: &M,
        events: &[Outgoing<'_>],
        unix_ms: u64,
        out: &mut Vec<u8>,
    ) -> usize {
        let State::Ready(flow) = &mut self.state else { return 0 };
        if self.leaving == Leaving::Yes {
            return 0;
        }
        let taken = &events[..flow.room_for(events)];
        if taken.is_empty() {
            return 0;
        }
        let SenderConfig { key_id, key, egress, .. } = &self.config;
        self.signing.clear();
        for (counter, outgoing) in (flow.next_counter..).zip(taken) {
            assert!((1..=TARGETS_MAX).contains(&outgoing.targets.len()), "flows have 1 to 32 targets");
            assert!(outgoing.targets.iter().all(|target| is_name(target)), "targets have names");
            let signed = Signed { key_id, time_ms: unix_ms, session: flow.session, counter, egress };
            self.signing
                .push(mac, &signed, outgoing.targets.iter().copied(), &outgoing.event)
                .expect("names and the event were checked when they came in");
        }
        let tags = self.signing.sign(mac, taken.iter().map(|outgoing| (key, outgoing.event.body)));

        let frame = begin_frame(out, FrameType::Batch);
        out.extend_from_slice(&(taken.len() as u16).to_le_bytes());
        for (outgoing, tag) in taken.iter().zip(tags) {
            let counter = flow.count(outgoing);
            let Outgoing { sequence, encoded, .. } = *outgoing;
            BatchEvent { sequence, time_ms: unix_ms, counter, tag, key_id, targets: Targets::NONE, encoded }
                .write(outgoing.targets.iter().copied(), out);
        }
        end_frame(out, frame);
        taken.len()
    }

    /// Takes leave: no batch is sealed after it, acknowledgements still come.
    pub fn goodbye(&mut self, reason: GoodbyeReason, out: &mut Vec<u8>) {
        self.leaving = Leaving::Yes;
        reason.write(out);
    }

    /// Whether batches may be sealed.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_)) && self.leaving == Leaving::No
    }

    /// Events sent and not acknowledged.
    pub fn in_flight(&self) -> usize {
        self.flow().map_or(0, |flow| flow.in_flight.len())
    }

    /// Highest sequence that is durable at the receiver; 0 for none.
    pub fn acked(&self) -> u64 {
        self.flow().map_or(0, |flow| flow.acked)
    }

    /// Highest sequence sent, or resumed after; 0 for none.
    pub fn last_sent(&self) -> u64 {
        self.flow().map_or(0, |flow| flow.last_sent)
    }

    /// The stream served.
    pub fn stream(&self) -> u16 {
        self.config.stream
    }

    fn flow(&self) -> Option<&Flow> {
        match &self.state {
            State::Ready(flow) => Some(flow),
            _ => None,
        }
    }

    fn step(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<SenderEvent, LinkError> {
        match (&mut self.state, frame) {
            (_, Frame::Refuse(refuse)) => Err(LinkError::Refused(refuse)),
            (State::AwaitHello, Frame::Hello(hello)) => {
                hello.check_against(&self.config.hello())?;
                self.state = State::AwaitStart;
                Ok(SenderEvent::None)
            }
            (State::AwaitStart, Frame::Start(start)) => {
                self.liveness.handle_open();
                self.state = State::Ready(Flow::new(start));
                Ok(SenderEvent::Ready { resume_after: start.resume_after })
            }
            (State::Ready(flow), Frame::Ack(ack)) => {
                flow.handle_ack(ack)?;
                Ok(SenderEvent::Acked { durable: ack.durable })
            }
            (State::AwaitStart | State::Ready(_), Frame::Ping(value)) => {
                write_pong(out, value);
                Ok(SenderEvent::None)
            }
            (State::AwaitStart | State::Ready(_), Frame::Pong(_)) => Ok(SenderEvent::None),
            (State::AwaitStart | State::Ready(_), Frame::Goodbye(reason)) => {
                self.leaving = Leaving::Yes;
                Ok(SenderEvent::Goodbye(reason))
            }
            (_, frame) => Err(LinkError::Unexpected(frame.frame_type())),
        }
    }

    fn keep_failure<T>(&mut self, result: Result<T, LinkError>) -> Result<T, LinkError> {
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }
}

impl<K> SenderConfig<K> {
    fn hello(&self) -> Hello {
        Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            role: Role::Sender,
            stream: self.stream,
            streams: self.streams,
            journal_id: self.journal_id,
            node: self.node.clone(),
            peer: self.egress.clone(),
        }
    }
}

impl Flow {
    fn new(start: Start) -> Self {
        Self {
            session: start.session,
            next_counter: 0,
            granted_bytes: start.credit_bytes,
            granted_events: u64::from(start.credit_events),
            sent_bytes: 0,
            sent_events: 0,
            last_sent: start.resume_after,
            acked: start.resume_after,
            in_flight: VecDeque::new(),
        }
    }

    /// How many of `events` may go into the next batch.
    fn room_for(&self, events: &[Outgoing<'_>]) -> usize {
        let granted = self.granted_events - self.sent_events;
        let room = (IN_FLIGHT_EVENTS_MAX - self.in_flight.len()).min(BATCH_EVENTS_MAX);
        let events_max = events.len().min(room).min(usize::try_from(granted).unwrap_or(usize::MAX));
        let mut bytes = 0_u64;
        for (index, outgoing) in events[..events_max].iter().enumerate() {
            if bytes as usize >= BATCH_BYTES_GOAL {
                return index;
            }
            bytes += outgoing.encoded.len() as u64;
            if bytes > self.granted_bytes - self.sent_bytes {
                return index;
            }
        }
        events_max
    }

    /// Counts an event as sent and returns its counter.
    fn count(&mut self, outgoing: &Outgoing<'_>) -> u64 {
        assert!(outgoing.sequence > self.last_sent, "sequences ascend on a connection");
        self.last_sent = outgoing.sequence;
        self.in_flight.push_back(outgoing.sequence);
        self.sent_bytes += outgoing.encoded.len() as u64;
        self.sent_events += 1;
        self.next_counter += 1;
        self.next_counter - 1
    }

    fn handle_ack(&mut self, ack: Ack) -> Result<(), LinkError> {
        let ascends = ack.durable >= self.acked
            && ack.credit_bytes >= self.granted_bytes
            && ack.credit_events >= self.granted_events;
        if !ascends || ack.durable > self.last_sent {
            return Err(LinkError::Ack);
        }
        self.acked = ack.durable;
        self.granted_bytes = ack.credit_bytes;
        self.granted_events = ack.credit_events;
        let done = self.in_flight.partition_point(|&sequence| sequence <= ack.durable);
        self.in_flight.drain(..done);
        Ok(())
    }
}

#[cfg(test)]
impl<K> Sender<K> {
    /// Bytes and entries of memory kept between batches.
    pub(super) fn scratch_capacity(&self) -> usize {
        self.signing.capacity()
    }
}
