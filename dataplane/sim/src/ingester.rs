//! An ingester: verifies requests, journals them, answers what is durable, and sends it over its links.
//!
//! The core's verifier, writer and sender do the work; the glue between them is that of the node, in small.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use zen_core::crypto::Mac;
use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::journal::{AppendError, Kind, Record, Sequence};
use zen_core::link::{
    Frame, HANDSHAKE_TIMEOUT_MS, Hello, LinkError, Outgoing, Sender, SenderConfig, SenderEvent,
};
use zen_core::record::{decode_egresses, decode_routes, encode_routes};
use zen_core::verify::Scheme;

use crate::checker::number;
use crate::context::{Context, Crash, DiskStep, Life, NodeId, Step};
use crate::crypto::{Key, Portable};
use crate::disk::Disk;
use crate::journal::{DiskResult, Journal};
use crate::link::{Link, Machine, Slot, ingester_dials, link_secret};
use crate::network::{ConnectionId, Side};
use crate::plan::Planted;
use crate::source::{Request, endpoint, scheme};

/// Requests that wait for the disk.
const PENDING_MAX: usize = 1_000;

#[derive(Debug)]
struct Pending {
    sequence: Sequence,
    request: Rc<Request>,
    id: EventId,
}

/// What one egress has and lacks; the node's outbox, in small.
#[derive(Debug, Default)]
struct Outbox {
    last: Sequence,
    acknowledged: Sequence,
    next: Sequence,
}

impl Outbox {
    fn handle_ready(&mut self, resume_after: Sequence) {
        self.acknowledged = self.acknowledged.max(resume_after);
        self.next = Sequence(resume_after.0 + 1);
    }

    /// Up to where the journal may go; none when nothing is lacking.
    fn holds(&self, planted: Option<Planted>) -> Option<Sequence> {
        let sent = Sequence(self.next.0.saturating_sub(1));
        let given = if planted == Some(Planted::TrimBeforeAck) {
            sent.max(self.acknowledged)
        } else {
            self.acknowledged
        };
        (self.last > given).then_some(given)
    }
}

/// A running ingester.
#[derive(Debug)]
pub struct Ingester {
    node: NodeId,
    life: Life,
    journal: Journal,
    schemes: Vec<Scheme>,
    pending: VecDeque<Pending>,
    outboxes: Vec<Outbox>,
    links: BTreeMap<ConnectionId, Link>,
    slots: Vec<(usize, Slot)>,
    woken: bool,
}

impl Ingester {
    /// Starts on what a disk holds.
    pub fn start(context: &mut Context, index: usize, life: Life, disk: Disk) -> Self {
        let node = NodeId(index);
        let mut outboxes: Vec<Outbox> = (0..context.plan.egresses).map(|_| Outbox::default()).collect();
        let segments_max = context.plan.ingester_segments_max;
        let journal = Journal::open(context, (node, life), disk, segments_max, &mut |record| {
            recover(&mut outboxes, record);
        });
        let dialled = (0..outboxes.len()).filter(|egress| ingester_dials(index, *egress));
        Self {
            node,
            life,
            journal,
            schemes: (0..context.plan.sources).map(scheme).collect(),
            pending: VecDeque::new(),
            slots: dialled.map(|egress| (egress, Slot::default())).collect(),
            outboxes,
            links: BTreeMap::new(),
            woken: false,
        }
    }

    /// Ends; what it leaves is its disk.
    pub fn stop(self, context: &mut Context) -> Disk {
        self.journal.into_disk(context)
    }

    /// The journal, for faults.
    pub fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Lets it work soon, once.
    pub fn wake(&mut self, context: &mut Context) {
        if !core::mem::replace(&mut self.woken, true) {
            let delay_ms = context.prng.between(0, 1);
            context.schedule(delay_ms, Step::Wake { node: self.node, life: self.life });
        }
    }

    /// Checks a request and appends its event.
    pub fn handle_request(&mut self, context: &mut Context, request: Rc<Request>) {
        let now_ms = context.clock_ms(self.node);
        let scheme = &self.schemes[request.source];
        let verified = scheme.start(&*request, now_ms, &Portable).and_then(|mut check| {
            check.update(&request.body);
            check.finish(&Portable, &request.body)
        });
        if verified.is_err() {
            return answer(context, &request, 401, None);
        }
        let id = EventId::new(now_ms, context.prng.bytes());
        let payload = encode(context, &request, id);
        let appended = self.journal.append(Kind::Event, now_ms, &[&payload]);
        match appended {
            Ok(sequence) => self.pending.push_back(Pending { sequence, request, id }),
            Err(AppendError::Full | AppendError::NoSegment | AppendError::TooLarge) => {
                answer(context, &request, 503, None);
            }
        }
        context.checker.check_bound("requests that wait", self.pending.len(), PENDING_MAX);
        self.wake(context);
    }

    /// A disk operation ended. After a failed write everybody who waits is told to come again.
    pub fn handle_disk(&mut self, context: &mut Context, step: DiskStep) {
        if self.journal.handle_disk(context, step) == DiskResult::WriteFailed {
            for pending in core::mem::take(&mut self.pending) {
                self.route(context, pending.request.source, pending.sequence);
                answer(context, &pending.request, 503, None);
            }
        }
        self.wake(context);
    }

    /// Bytes of a link.
    pub fn handle_bytes(&mut self, context: &mut Context, connection: ConnectionId, to: Side, bytes: &[u8]) {
        let now_ms = context.clock_ms(self.node);
        if to == Side::Acceptor {
            let link = || Link::new(to, Machine::AwaitHello, now_ms, Vec::new());
            self.links.entry(connection).or_insert_with(link);
        }
        let Some(mut link) = self.links.remove(&connection) else { return context.reset(connection) };
        let taken = link.reader.handle_bytes(bytes);
        assert_eq!(taken, bytes.len(), "frames are polled after each piece");
        let result = self.handle_frames(context, &mut link, now_ms);
        if let Err(error) = &result {
            error.write_refuse(&mut link.out);
        }
        link.flush(context, connection);
        self.links.insert(connection, link);
        if let Err(error) = result {
            self.close(context, connection, &error);
        }
        self.wake(context);
    }

    /// A link broke.
    pub fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
        self.links.remove(&connection);
        self.slots.iter_mut().for_each(|(_, slot)| slot.handle_lost(context, connection));
    }

    /// Deadlines of links, and dialling.
    pub fn handle_clock(&mut self, context: &mut Context) {
        let now_ms = context.clock_ms(self.node);
        let mut failed = Vec::new();
        for (connection, link) in &mut self.links {
            let result = match &mut link.machine {
                Machine::Sending { sender, .. } => sender.handle_timeout(now_ms, &mut link.out),
                _ if now_ms.saturating_sub(link.since_ms) > HANDSHAKE_TIMEOUT_MS => {
                    Err(LinkError::HandshakeTimeout)
                }
                _ => Ok(()),
            };
            link.flush(context, *connection);
            failed.extend(result.err().map(|error| (*connection, error)));
        }
        for (connection, error) in failed {
            self.close(context, connection, &error);
        }
        self.dial(context, now_ms);
        self.wake(context);
    }

    /// One tick: commit, answer, send, trim.
    pub fn work(&mut self, context: &mut Context) -> Result<(), Crash> {
        self.woken = false;
        context.step(self.node)?;
        self.journal.commit(context);
        context.step(self.node)?;
        self.answer_durable(context)?;
        self.pump(context)?;
        let (planted, durable) = (context.plan.planted, self.journal.durable());
        let held = self.outboxes.iter().filter_map(|outbox| outbox.holds(planted));
        let up_to = held.fold(durable, Sequence::min);
        self.journal.trim(context, up_to);
        context.step(self.node)
    }

    fn answer_durable(&mut self, context: &mut Context) -> Result<(), Crash> {
        let is_early = context.plan.planted == Some(Planted::AnswerBeforeDurable);
        let up_to = if is_early { self.journal.appended() } else { self.journal.durable() };
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.sequence <= up_to) {
            self.route(context, pending.request.source, pending.sequence);
            context.checker.handle_answered(self.node, pending.request.key, pending.id);
            answer(context, &pending.request, 202, Some(pending.id));
            context.step(self.node)?;
        }
        Ok(())
    }

    /// Sends what is durable, as far as credit goes.
    fn pump(&mut self, context: &mut Context) -> Result<(), Crash> {
        let now_ms = context.clock_ms(self.node);
        for (connection, link) in &mut self.links {
            let Machine::Sending { sender, egress } = &mut link.machine else { continue };
            let outbox = &mut self.outboxes[*egress];
            send_events(context, &self.journal, outbox, sender, &mut link.out, (*egress, now_ms));
            link.flush(context, *connection);
            context.step(self.node)?;
        }
        Ok(())
    }

    fn route(&mut self, context: &Context, source: usize, sequence: Sequence) {
        for target in &context.plan.routes[source] {
            let outbox = &mut self.outboxes[target % context.plan.egresses];
            outbox.last = outbox.last.max(sequence);
        }
    }

    fn dial(&mut self, context: &mut Context, now_ms: u64) {
        for (egress, slot) in &mut self.slots {
            if !slot.is_due(context.now_ms) {
                continue;
            }
            let connection = context.dial(self.node, NodeId(context.plan.ingesters + *egress));
            slot.connection = Some(connection);
            let mut out = Vec::new();
            let config = sender_config(self.node.0, *egress, self.journal.id());
            let sender = Box::new(Sender::dial(config, now_ms, &mut out));
            let machine = Machine::Sending { sender, egress: *egress };
            let mut link = Link::new(Side::Dialer, machine, now_ms, out);
            link.flush(context, connection);
            self.links.insert(connection, link);
        }
    }

    fn handle_frames(
        &mut self,
        context: &mut Context,
        link: &mut Link,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        while let Some(frame) = link.reader.poll_frame()? {
            let (event, egress) = match (&mut link.machine, frame) {
                (Machine::Sending { sender, egress }, frame) => {
                    (sender.handle_frame(frame, now_ms, &mut link.out)?, *egress)
                }
                (_, Frame::Hello(hello)) => {
                    link.machine = self.begin_sending(&hello, now_ms, &mut link.out)?;
                    continue;
                }
                (_, frame) => return Err(LinkError::Unexpected(frame.frame_type())),
            };
            match event {
                SenderEvent::None | SenderEvent::Goodbye(_) => {}
                SenderEvent::Acked { durable } => {
                    let outbox = &mut self.outboxes[egress];
                    outbox.acknowledged = outbox.acknowledged.max(Sequence(durable));
                }
                SenderEvent::Ready { resume_after } => {
                    context.note(format_args!("ingester {} resumes after {resume_after}", self.node.0));
                    self.outboxes[egress].handle_ready(Sequence(resume_after));
                    self.close_older(context, egress);
                }
            }
        }
        Ok(())
    }

    fn begin_sending(&self, hello: &Hello, now_ms: u64, out: &mut Vec<u8>) -> Result<Machine, LinkError> {
        let egress = number(&hello.node);
        let config = sender_config(self.node.0, egress, self.journal.id());
        let sender = Box::new(Sender::accept(config, hello, now_ms, out)?);
        Ok(Machine::Sending { sender, egress })
    }

    /// One link per egress: an older one is a leftover of a connection that broke.
    fn close_older(&mut self, context: &mut Context, ready: usize) {
        let is_older =
            |link: &Link| matches!(&link.machine, Machine::Sending { egress, .. } if *egress == ready);
        let older: Vec<ConnectionId> =
            self.links.iter().filter(|(_, link)| is_older(link)).map(|(id, _)| *id).collect();
        for connection in older {
            self.close(context, connection, &LinkError::PeerSilent);
        }
    }

    fn close(&mut self, context: &mut Context, connection: ConnectionId, error: &LinkError) {
        context.note(format_args!("ingester {} closes {connection:?}: {error}", self.node.0));
        if let Some(link) = self.links.remove(&connection) {
            context.close(connection, link.side);
        }
        self.slots.iter_mut().for_each(|(_, slot)| slot.handle_lost(context, connection));
    }
}

/// Seals batches of durable events until the journal or the credit says stop.
fn send_events(
    context: &mut Context,
    journal: &Journal,
    outbox: &mut Outbox,
    sender: &mut Sender<Key>,
    out: &mut Vec<u8>,
    (egress, now_ms): (usize, u64),
) {
    let name = format!("egress-{egress}");
    while sender.is_ready() && outbox.next <= outbox.last && outbox.next <= journal.durable() {
        let (records, passed) = journal.read_from(outbox.next);
        let events = records.iter().filter(|record| record.kind == Kind::Event);
        let routed: Vec<_> = events
            .filter_map(|record| match decode_routes(&record.payload, &name) {
                Ok((Some(targets), event)) => {
                    Some((record.sequence, targets.iter().collect::<Vec<_>>(), event))
                }
                _ => None,
            })
            .take(1 + context.prng.below(16))
            .collect();
        let Some(last) = routed.last().map(|(sequence, ..)| *sequence) else {
            outbox.next = Sequence(passed.0 + 1);
            continue;
        };
        let outgoing: Vec<Outgoing<'_>> = routed
            .iter()
            .map(|(sequence, targets, encoded)| Outgoing {
                sequence: sequence.0,
                targets,
                event: Event::decode(encoded).expect("journaled events are in their encoding"),
                encoded,
            })
            .collect();
        let taken = sender.seal_batch(&Portable, &outgoing, now_ms, out);
        if taken < outgoing.len() {
            if let Some(last) = taken.checked_sub(1) {
                outbox.next = Sequence(outgoing[last].sequence + 1);
            }
            return;
        }
        outbox.next = Sequence(last.0 + 1);
    }
}

fn recover(outboxes: &mut [Outbox], record: &Record<'_>) {
    if record.kind == Kind::Event {
        let egresses = decode_egresses(record.payload).expect("an ingester encodes its routes");
        for egress in egresses {
            outboxes[number(egress)].last = record.sequence;
        }
    }
}

fn sender_config(ingester: usize, egress: usize, journal_id: [u8; 16]) -> SenderConfig<Key> {
    SenderConfig {
        node: format!("ingester-{ingester}"),
        egress: format!("egress-{egress}"),
        stream: 0,
        streams: 1,
        journal_id,
        key_id: "link-1".to_owned(),
        key: Portable.prepare(&link_secret(ingester, egress)),
    }
}

/// The record of an event: its routes, and the event.
fn encode(context: &Context, request: &Request, id: EventId) -> Vec<u8> {
    let egresses = context.plan.egresses;
    let targets = &context.plan.routes[request.source];
    let mut routes: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for target in targets {
        routes.entry(target % egresses).or_default().push(format!("target-{target}"));
    }
    let names: Vec<String> = routes.keys().map(|egress| format!("egress-{egress}")).collect();
    let mut payload = Vec::new();
    encode_routes(&mut payload, names.iter().map(String::as_str).zip(routes.values().map(Vec::as_slice)));
    let event = Event {
        id,
        endpoint: endpoint(request.source),
        content_type: "application/json",
        headers: "",
        body: &request.body,
    };
    event.encode_head(&mut payload).expect("the event is in canonical form");
    payload.extend_from_slice(event.body);
    payload
}

fn answer(context: &mut Context, request: &Request, status: u16, id: Option<EventId>) {
    if !context.is_lost() {
        let delay_ms = context.delay_ms();
        context.schedule(delay_ms, Step::Answer { source: request.source, item: request.item, status, id });
    }
}
