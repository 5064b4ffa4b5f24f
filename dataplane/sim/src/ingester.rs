//! An ingester: verifies requests, journals them, answers what is durable, and sends it over its links.
//!
//! The core's verifier, key table, writer, outbox and sender do the work; the glue between them is that of the node, in
//! small. One worker of an ingester: its own journal and links, keys shared with the others.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use zen_core::crypto::Mac;
use zen_core::dedupe::{EventKey, KeySource, Verdict, Waiter};
use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::journal::{AppendError, Kind, Record, Sequence};
use zen_core::link::{
    Frame, HANDSHAKE_TIMEOUT_MS, Hello, LinkError, Outbox, Outgoing, Sender, SenderConfig, SenderEvent,
};
use zen_core::record::{decode_egresses, decode_event_id, decode_key, encode_routes};
use zen_core::verify::Scheme;

use crate::checker::number;
use crate::context::{Clock, Context, Crash, DiskStep, Life, NodeId, Step};
use crate::crypto::{Key, Portable};
use crate::disk::Disk;
use crate::journal::{DiskResult, Journal, Owned};
use crate::keys::{Keys, Restoring};
use crate::link::{Link, Machine, Slot, ingester_dials, link_secret};
use crate::network::{ConnectionId, Side};
use crate::plan::Planted;
use crate::source::{Request, endpoint, scheme};

/// Events that wait for the disk.
const PENDING_MAX: usize = 1_000;

#[derive(Debug)]
struct Pending {
    sequence: Sequence,
    source: usize,
    key: EventKey,
    waiter: Waiter,
    /// Who waits for the answer, unless it was told to come again.
    owner: Option<Rc<Request>>,
    id: EventId,
}

/// A running ingester.
#[derive(Debug)]
pub struct Ingester {
    node: NodeId,
    life: Life,
    journal: Journal,
    keys: Rc<RefCell<Keys>>,
    schemes: Vec<Scheme>,
    pending: VecDeque<Pending>,
    outboxes: Vec<Outbox>,
    links: BTreeMap<ConnectionId, Link>,
    slots: Vec<(usize, Slot)>,
    woken: bool,
}

impl Ingester {
    /// Opens what a disk holds: the journal, what each egress lacks, and the keys of its events.
    pub fn open(
        context: &mut Context,
        (node, life): (NodeId, Life),
        disk: Disk,
        restoring: &mut Restoring,
    ) -> (Journal, Vec<Outbox>) {
        let name = |egress| format!("egress-{egress}");
        let mut outboxes: Vec<Outbox> =
            (0..context.plan.egresses).map(|egress| Outbox::new(&name(egress))).collect();
        let (segments_max, planted) = (context.plan.ingester_segments_max, context.plan.planted);
        let journal = Journal::open(context, (node, life), disk, segments_max, &mut |record| {
            recover(&mut outboxes, record);
            if planted != Some(Planted::KeyNotRestored) {
                restore_key(restoring, record);
            }
        });
        (journal, outboxes)
    }

    /// Over what was opened, with the keys of all workers.
    pub fn new(
        context: &Context,
        (node, life): (NodeId, Life),
        (journal, outboxes): (Journal, Vec<Outbox>),
        keys: Rc<RefCell<Keys>>,
    ) -> Self {
        let dialled = (0..outboxes.len()).filter(|egress| ingester_dials(node.0, *egress));
        Self {
            node,
            life,
            journal,
            keys,
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
        let now_ms = context.clock(self.node).wall_ms;
        let scheme = &self.schemes[request.source];
        let verified = scheme.start(&*request, now_ms, &Portable).and_then(|mut check| {
            check.update(&request.body);
            scheme.finish(check, &*request, &request.body, &Portable)
        });
        let Ok(verified) = verified else { return answer(context, &request, 401, None) };
        let endpoint = endpoint(request.source);
        let key =
            KeySource::Scheme.key(self.keys.borrow().hasher(), endpoint, &*request, &verified, &request.body);
        let key = key.ok().flatten().expect("simulated sources name each event");
        let (owner, verdict) = self.keys.borrow_mut().handle_arrival(key, &request, now_ms);
        context.note(format_args!("node {}: event {:x} is {verdict:?}", self.node.0, request.key));
        match verdict {
            Verdict::New => self.append(context, request, key, owner),
            Verdict::Pending => {}
            Verdict::Duplicate { event_id } => answer_duplicate(context, &request, event_id),
            Verdict::TooManyWaiters | Verdict::TooManyPending => answer(context, &request, 503, None),
        }
        self.wake(context);
    }

    /// A disk operation ended. After a failed write its owners are told to come again; their keys stay
    /// pending, because the write is repeated.
    pub fn handle_disk(&mut self, context: &mut Context, step: DiskStep) {
        if self.journal.handle_disk(context, step) == DiskResult::WriteFailed {
            for pending in &mut self.pending {
                if let Some(owner) = pending.owner.take() {
                    answer(context, &owner, 503, None);
                }
                if context.plan.planted == Some(Planted::KeyFreedOnFailedWrite) {
                    for waiter in self.keys.borrow_mut().handle_failed(pending.key, pending.waiter) {
                        answer(context, &waiter, 503, None);
                    }
                }
            }
        }
        self.wake(context);
    }

    /// Bytes of a link.
    pub fn handle_bytes(&mut self, context: &mut Context, connection: ConnectionId, to: Side, bytes: &[u8]) {
        let clock = context.clock(self.node);
        if to == Side::Acceptor {
            let link = || Link::new(to, Machine::AwaitHello, clock.steady_ms, Vec::new());
            self.links.entry(connection).or_insert_with(link);
        }
        let Some(mut link) = self.links.remove(&connection) else { return context.reset(connection) };
        let taken = link.reader.handle_bytes(bytes);
        assert_eq!(taken, bytes.len(), "frames are polled after each piece");
        let result = self.handle_frames(context, &mut link, clock);
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
        let clock = context.clock(self.node);
        let mut failed = Vec::new();
        for (connection, link) in &mut self.links {
            let result = match &mut link.machine {
                Machine::Sending { sender, .. } => sender.handle_timeout(clock.steady_ms, &mut link.out),
                _ if clock.steady_ms.saturating_sub(link.since_ms) > HANDSHAKE_TIMEOUT_MS => {
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
        self.dial(context, clock.steady_ms);
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
        let up_to =
            self.outboxes.iter().filter_map(Outbox::holds).fold(self.journal.durable(), Sequence::min);
        let up_to = self.keys.borrow_mut().trimmable(self.worker(context), up_to);
        self.journal.trim(context, up_to);
        context.checker.check_bound("requests that nobody will answer", self.keys.borrow().forgotten(), 0);
        context.step(self.node)
    }

    fn append(&mut self, context: &mut Context, request: Rc<Request>, key: EventKey, waiter: Waiter) {
        let now_ms = context.clock(self.node).wall_ms;
        let id = EventId::new(now_ms, context.prng.bytes());
        let payload = encode(context, &request, &key, id);
        match self.journal.append(Kind::Event, now_ms, &[&payload]) {
            Ok(sequence) => {
                let source = request.source;
                self.pending.push_back(Pending { sequence, source, key, waiter, owner: Some(request), id });
            }
            Err(AppendError::Full | AppendError::NoSegment | AppendError::TooLarge) => {
                answer(context, &request, 503, None);
                for waiter in self.keys.borrow_mut().handle_failed(key, waiter) {
                    answer(context, &waiter, 503, None);
                }
            }
        }
        context.checker.check_bound("events that wait", self.pending.len(), PENDING_MAX);
    }

    fn answer_durable(&mut self, context: &mut Context) -> Result<(), Crash> {
        let is_early = context.plan.planted == Some(Planted::AnswerBeforeDurable);
        let up_to = if is_early { self.journal.appended() } else { self.journal.durable() };
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.sequence <= up_to) {
            self.route(context, pending.source, pending.sequence);
            let now_ms = context.clock(self.node).wall_ms;
            let settled = self.keys.borrow_mut().handle_durable(pending.key, pending.id, now_ms);
            let (first, waiters) = settled;
            if let Some(owner) = &pending.owner {
                context.checker.handle_answered(self.node, owner.key, pending.id);
                answer(context, owner, 202, Some(pending.id));
                context.step(self.node)?;
            }
            for waiter in waiters {
                answer_duplicate(context, &waiter, first);
                context.step(self.node)?;
            }
        }
        let worker = self.worker(context);
        self.keys.borrow_mut().handle_seen(worker, up_to);
        Ok(())
    }

    /// Its number among the workers of its ingester.
    fn worker(&self, context: &Context) -> usize {
        self.node.0 % context.plan.workers
    }

    /// Sends what is durable, as far as credit goes.
    fn pump(&mut self, context: &mut Context) -> Result<(), Crash> {
        let now_ms = context.clock(self.node).wall_ms;
        for (connection, link) in &mut self.links {
            let Machine::Sending { sender, egress } = &mut link.machine else { continue };
            let outbox = &mut self.outboxes[*egress];
            send_events(context, &self.journal, outbox, sender, &mut link.out, now_ms);
            link.flush(context, *connection);
            context.step(self.node)?;
        }
        Ok(())
    }

    fn route(&mut self, context: &Context, source: usize, sequence: Sequence) {
        for target in &context.plan.routes[source] {
            self.outboxes[target % context.plan.egresses].handle_routed(sequence);
        }
    }

    fn dial(&mut self, context: &mut Context, steady_ms: u64) {
        for (egress, slot) in &mut self.slots {
            if !slot.is_due(context.now_ms) {
                continue;
            }
            let connection = context.dial(self.node, context.plan.egress(*egress));
            slot.connection = Some(connection);
            let mut out = Vec::new();
            let config = sender_config(context, self.node, *egress, self.journal.id());
            let sender = Box::new(Sender::dial(config, steady_ms, &mut out));
            let machine = Machine::Sending { sender, egress: *egress };
            let mut link = Link::new(Side::Dialer, machine, steady_ms, out);
            link.flush(context, connection);
            self.links.insert(connection, link);
        }
    }

    fn handle_frames(
        &mut self,
        context: &mut Context,
        link: &mut Link,
        clock: Clock,
    ) -> Result<(), LinkError> {
        while let Some(frame) = link.reader.poll_frame()? {
            let (event, egress) = match (&mut link.machine, frame) {
                (Machine::Sending { sender, egress }, frame) => {
                    (sender.handle_frame(frame, clock.steady_ms, &mut link.out)?, *egress)
                }
                (_, Frame::Hello(hello)) => {
                    link.machine = self.begin_sending(context, &hello, clock.steady_ms, &mut link.out)?;
                    continue;
                }
                (_, frame) => return Err(LinkError::Unexpected(frame.frame_type())),
            };
            match event {
                SenderEvent::None | SenderEvent::Goodbye(_) => {}
                SenderEvent::Acked { durable } => {
                    self.outboxes[egress].handle_acknowledged(Sequence(durable));
                }
                SenderEvent::Ready { resume_after } => {
                    if !self.outboxes[egress].can_resume(self.journal.skipped().end, Sequence(resume_after)) {
                        return Err(LinkError::ResumeAhead);
                    }
                    context.note(format_args!("ingester {} resumes after {resume_after}", self.node.0));
                    self.outboxes[egress].handle_ready(Sequence(resume_after));
                    self.close_older(context, egress);
                }
            }
        }
        Ok(())
    }

    fn begin_sending(
        &self,
        context: &Context,
        hello: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<Machine, LinkError> {
        let egress = number(&hello.node);
        let config = sender_config(context, self.node, egress, self.journal.id());
        let sender = Box::new(Sender::accept(config, hello, steady_ms, out)?);
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
        context.checker.handle_link_closed(self.node, error);
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
    now_ms: u64,
) {
    while sender.is_ready() {
        let Some(next) = outbox.poll_next(journal.oldest(), journal.skipped(), journal.durable()) else {
            return;
        };
        let (records, looked) = journal.read_from(next);
        let count = 1 + context.prng.below(16);
        let (routed, passed) = outbox.routed(records.iter().map(Owned::record), journal.durable(), count);
        if routed.is_empty() {
            // Damage may have them all.
            outbox.handle_passed(passed.max(looked));
            continue;
        }
        let targets: Vec<Vec<&str>> = routed.iter().map(|routed| routed.targets.iter().collect()).collect();
        let outgoing: Vec<Outgoing<'_>> = routed
            .iter()
            .zip(&targets)
            .map(|(routed, targets)| Outgoing {
                sequence: routed.sequence.0,
                targets,
                event: Event::decode(routed.event).expect("journaled events are in their encoding"),
                encoded: routed.event,
            })
            .collect();
        let taken = sender.seal_batch(&Portable, &outgoing, now_ms, out);
        let sent = match taken.checked_sub(1) {
            _ if taken == outgoing.len() => passed,
            Some(last) => Sequence(outgoing[last].sequence),
            None => return,
        };
        outbox.handle_passed(sent);
        if context.plan.planted == Some(Planted::TrimBeforeAck) {
            outbox.handle_acknowledged(sent);
        }
        if taken < outgoing.len() {
            return;
        }
    }
}

fn recover(outboxes: &mut [Outbox], record: &Record<'_>) {
    if record.kind == Kind::Event {
        let egresses = decode_egresses(record.payload).expect("an ingester encodes its routes");
        for egress in egresses {
            outboxes[number(egress)].handle_routed(record.sequence);
        }
    }
}

/// The key of an event that was durable, as its record has it.
fn restore_key(restoring: &mut Restoring, record: &Record<'_>) {
    if record.kind == Kind::Event {
        let key = decode_key(record.payload).expect("an ingester encodes its routes");
        let id = decode_event_id(record.payload).expect("an event has an id");
        restoring.handle_entry(key.expect("simulated sources name each event"), id, record.time_ms);
    }
}

fn sender_config(context: &Context, node: NodeId, egress: usize, journal_id: [u8; 16]) -> SenderConfig<Key> {
    let ingester = context.plan.process(node);
    SenderConfig {
        node: format!("ingester-{ingester}"),
        egress: format!("egress-{egress}"),
        stream: (node.0 % context.plan.workers) as u16,
        streams: context.plan.workers as u16,
        journal_id,
        key_id: "link-1".to_owned(),
        key: Portable.prepare(&link_secret(ingester, egress)),
    }
}

/// The record of an event: its routes, and the event.
fn encode(context: &Context, request: &Request, key: &EventKey, id: EventId) -> Vec<u8> {
    let egresses = context.plan.egresses;
    let targets = &context.plan.routes[request.source];
    let mut routes: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for target in targets {
        routes.entry(target % egresses).or_default().push(format!("target-{target}"));
    }
    let names: Vec<String> = routes.keys().map(|egress| format!("egress-{egress}")).collect();
    let mut payload = Vec::new();
    encode_routes(
        &mut payload,
        Some(key),
        names.iter().map(String::as_str).zip(routes.values().map(Vec::as_slice)),
    );
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

fn answer_duplicate(context: &mut Context, request: &Request, first: EventId) {
    context.checker.handle_duplicate(request.key, first, context.now_ms);
    answer(context, request, 200, Some(first));
}

fn answer(context: &mut Context, request: &Request, status: u16, id: Option<EventId>) {
    if !context.is_lost() {
        let delay_ms = context.delay_ms();
        context.schedule(delay_ms, Step::Answer { source: request.source, item: request.item, status, id });
    }
}
