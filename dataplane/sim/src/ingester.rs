//! An ingester: verifies requests, journals them, answers what is durable, and sends it over its links.
//!
//! The core's verifier, key table, writer, outbox and sender do the work; the glue between them is that of the node, in
//! small. One worker of an ingester: its own journal and links, keys shared with the others.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use zen_core::dedupe::{EventKey, KeySource, Verdict, Waiter};
use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::journal::{AppendError, Kind, Record, Sequence};
use zen_core::link::Outbox;
use zen_core::record::{decode_egresses, encode_routes};
use zen_core::verify::Scheme;

use crate::checker::number;
use crate::context::{Context, Crash, DiskStep, Life, NodeId, Step};
use crate::crypto::Portable;
use crate::disk::Disk;
use crate::journal::{DiskResult, Journal};
use crate::keys::{Keys, Restoring};
use crate::link::{Links, ingester_dials};
use crate::network::{ConnectionId, Side};
use crate::plan::Planted;
use crate::sending::Sending;
use crate::source::{Request, endpoint, scheme};
use crate::waker::Waker;

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
    journal: Journal,
    keys: Rc<RefCell<Keys>>,
    schemes: Vec<Scheme>,
    pending: VecDeque<Pending>,
    links: Links<Sending>,
    waker: Waker,
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
                restoring.handle_record(record);
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
        let egresses = dialled.map(|egress| context.plan.egress(egress));
        let sending = Sending::new(node, &journal, outboxes);
        let links = Links::new(node, format!("ingester {}", node.0), sending, egresses);
        Self {
            node,
            journal,
            keys,
            schemes: (0..context.plan.sources).map(scheme).collect(),
            pending: VecDeque::new(),
            links,
            waker: Waker::new(node, life),
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
        self.waker.wake(context);
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
        if self.links.handle_bytes(context, connection, to, bytes).is_ok() {
            self.wake(context);
        }
    }

    /// A link broke.
    pub fn handle_lost(&mut self, context: &mut Context, connection: ConnectionId) {
        self.links.handle_lost(context, connection);
    }

    /// Deadlines of links, and dialling.
    pub fn handle_clock(&mut self, context: &mut Context) {
        self.links.handle_clock(context);
        self.wake(context);
    }

    /// One tick: commit, answer, send, trim.
    pub fn work(&mut self, context: &mut Context) -> Result<(), Crash> {
        self.waker.handle_work();
        context.step(self.node)?;
        self.journal.commit(context);
        context.step(self.node)?;
        self.answer_durable(context)?;
        self.links.pump(context, &self.journal)?;
        let up_to = self.links.role.trimmable(self.journal.durable());
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
            self.links.role.route(context, pending.source, pending.sequence);
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
}

fn recover(outboxes: &mut [Outbox], record: &Record<'_>) {
    if record.kind == Kind::Event {
        let egresses = decode_egresses(record.payload).expect("an ingester encodes its routes");
        for egress in egresses {
            outboxes[number(egress)].handle_routed(record.sequence);
        }
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
