//! An egress on its links: what came and is not journaled yet, and what each stream brought durably.
//!
//! Checked batches enter and wait for the journal; acknowledgements and credit leave, once it has them.

use std::collections::{BTreeMap, VecDeque};

use zen_core::crypto::Mac;
use zen_core::deliver::EventBytes;
use zen_core::event::EVENT_BYTES_MAX;
use zen_core::link::{Frame, Hello, LinkError, Receiver, ReceiverConfig, ReceiverEvent};
use zen_core::record::{HeldEvent, StreamId};

use crate::checker::number;
use crate::context::{Clock, Context, Crash, NodeId};
use crate::crypto::{Key, Portable};
use crate::link::{Links, Progress, Role, link_secret};
use crate::network::ConnectionId;

/// Events granted to a link.
pub const CREDIT_EVENTS: u32 = 16;
/// Bytes granted to a link.
const CREDIT_BYTES: u64 = 2 * EVENT_BYTES_MAX as u64;

/// An event that waits for the journal.
#[derive(Debug)]
pub struct Incoming {
    /// What brought it.
    pub link: ConnectionId,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub link_sequence: u64,
    /// The head of its record.
    pub head: Vec<u8>,
    /// The event.
    pub event: EventBytes,
}

/// See the module.
#[derive(Debug)]
pub struct Receiving {
    node: NodeId,
    /// Which egress, from 0.
    egress: usize,
    marks: BTreeMap<StreamId, u64>,
    /// What waits for the journal, oldest first.
    pub backlog: VecDeque<Incoming>,
}

/// One end of a link from an ingester.
#[derive(Debug)]
pub struct ReceiverEnd {
    receiver: Box<Receiver<Key>>,
    /// The stream, once it is known.
    stream: Option<StreamId>,
    /// What is durable of it.
    durable: u64,
    /// Credit to give back: bytes and events.
    owed: (u64, u64),
}

impl Receiving {
    /// What is durable of each stream is in `marks`.
    pub fn new(node: NodeId, egress: usize, marks: BTreeMap<StreamId, u64>) -> Self {
        Self { node, egress, marks, backlog: VecDeque::new() }
    }

    fn durable(&self, stream: StreamId) -> u64 {
        self.marks.get(&stream).copied().unwrap_or(0)
    }

    fn config(&self, context: &mut Context, ingester: usize, stream: u16) -> ReceiverConfig<Key> {
        ReceiverConfig {
            node: format!("egress-{}", self.egress),
            ingester: format!("ingester-{ingester}"),
            stream,
            keys: vec![("link-1".to_owned(), Portable.prepare(&link_secret(ingester, self.egress)))],
            session: context.prng.bytes(),
            credit_bytes: CREDIT_BYTES,
            credit_events: CREDIT_EVENTS,
        }
    }
}

impl Links<Receiving> {
    /// The journal has an event durably, or had it before.
    pub fn handle_durable(&mut self, link: ConnectionId, stream: StreamId, link_sequence: u64, bytes: u64) {
        let mark = self.role.marks.entry(stream).or_default();
        *mark = (*mark).max(link_sequence);
        if let Some(end) = self.open.get_mut(&link).and_then(|link| link.end.as_mut()) {
            end.durable = end.durable.max(link_sequence);
            end.owed = (end.owed.0 + bytes, end.owed.1 + 1);
        }
    }

    /// Acknowledges what is durable; gives credit back if the journal has room for more.
    pub fn acknowledge(&mut self, context: &mut Context, has_reserve: bool) -> Result<(), Crash> {
        for (connection, link) in &mut self.open {
            let Some(ReceiverEnd { receiver, durable, owed, .. }) = &mut link.end else { continue };
            if !receiver.is_open() {
                continue;
            }
            if has_reserve && owed.1 > 0 {
                receiver.grant(owed.0, owed.1);
                *owed = (0, 0);
            }
            receiver.ack(*durable, &mut link.out);
            link.flush(context, *connection);
            context.step(self.role.node)?;
        }
        Ok(())
    }
}

impl Role for Receiving {
    type End = ReceiverEnd;

    fn dial(
        &mut self,
        context: &mut Context,
        peer: NodeId,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> ReceiverEnd {
        let worker = (peer.0 % context.plan.workers) as u16;
        let config = self.config(context, context.plan.process(peer), worker);
        let receiver = Box::new(Receiver::dial(config, steady_ms, out));
        ReceiverEnd { receiver, stream: None, durable: 0, owed: (0, 0) }
    }

    fn accept(
        &mut self,
        context: &mut Context,
        hello: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<ReceiverEnd, LinkError> {
        let config = self.config(context, number(&hello.node), hello.stream);
        let mut receiver = Box::new(Receiver::accept(config, hello, steady_ms, out)?);
        let durable = self.durable(hello.journal_id);
        receiver.start(durable, out);
        Ok(ReceiverEnd { receiver, stream: Some(hello.journal_id), durable, owed: (0, 0) })
    }

    fn handle_frame(
        &mut self,
        _: &mut Context,
        (link, end): (ConnectionId, &mut ReceiverEnd),
        frame: Frame<'_>,
        clock: Clock,
        out: &mut Vec<u8>,
    ) -> Result<Progress, LinkError> {
        match end.receiver.handle_frame(frame, clock.steady_ms, out)? {
            ReceiverEvent::None | ReceiverEvent::Goodbye(_) => {}
            ReceiverEvent::PeerHello(hello) => {
                end.stream = Some(hello.journal_id);
                end.durable = self.durable(hello.journal_id);
                end.receiver.start(end.durable, out);
            }
            ReceiverEvent::Batch(batch) => {
                let mut checked = Vec::with_capacity(batch.count());
                end.receiver.open_batch(&Portable, &batch, clock.wall_ms, &mut checked)?;
                let stream = end.stream.expect("batches come after the start");
                for incoming in &checked {
                    let (link_sequence, event) = (incoming.sequence, incoming.encoded.into());
                    let targets: Vec<&str> = incoming.targets.iter().collect();
                    let mut head = Vec::new();
                    HeldEvent::encode_head(&mut head, &stream, link_sequence, 0, 0, targets.into_iter());
                    self.backlog.push_back(Incoming { link, stream, link_sequence, head, event });
                }
            }
        }
        Ok(Progress::Same)
    }

    fn handle_timeout(end: &mut ReceiverEnd, steady_ms: u64, out: &mut Vec<u8>) -> Result<(), LinkError> {
        end.receiver.handle_timeout(steady_ms, out)
    }

    /// What a link brought and the journal has not taken goes with it: the next link brings it again, on new credit.
    fn handle_gone(&mut self, link: ConnectionId) {
        self.backlog.retain(|incoming| incoming.link != link);
    }
}
