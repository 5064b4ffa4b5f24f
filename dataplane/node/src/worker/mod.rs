//! One worker: a thread on its core with its ring, its listeners, its journals and its part of the work.
//!
//! A tick collects every completion that is there, lets sessions and machines handle them, and does
//! the batch work once: journal writes, answers, links, deliveries. Nothing here blocks but the reactor.

mod drain;
mod start;
mod verify;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use start::{Launch, STACK_BYTES, Tables, WorkerError, reactor_limits, start_all};
use zen_core::journal::AppendError;
use zen_uring::{Completion, ListenerId, Reactor, SocketId};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::control::Shared;
use crate::egress::{Deliveries, Egress};
use crate::ingester::{Client, Ingester, Source};
use crate::journal::token_role;
use crate::link::{Links, Parts};
use crate::listeners::Listening;
use crate::mesh::{JournalRole, Message};
use crate::metrics::WorkerMetrics;
use crate::stream::Stream;
use crate::tls::Tls;

/// Longest sleep of a worker with nothing to do.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// Deadlines are looked at this often.
const HOUSEKEEPING_MS: u64 = 50;
/// After the drain's own deadline, operations get this long to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// A source keeps no larger buffer between its answers: there may be very many of them. Bytes.
const SPARE_ANSWER_BYTES_MAX: usize = 512;

/// The links' view of a worker, without the links themselves.
macro_rules! parts {
    ($worker:ident) => {
        Parts {
            reactor: &mut $worker.reactor,
            ingester: $worker.ingester.as_mut(),
            egress: $worker.egress.as_mut(),
        }
    };
}

struct Worker {
    index: u16,
    reactor: Reactor,
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    listeners: Vec<(ListenerId, Listening)>,
    sources: Vec<Option<(SocketId, Box<Source>)>>,
    sources_open: u32,
    ingester: Option<Ingester>,
    egress: Option<Egress>,
    deliveries: Option<Deliveries>,
    links: Links,
    clock: Clock,
    housekeeping_at_ms: u64,
    was_full: bool,
    drain_until: Option<Instant>,
    /// Whether the last attempt of a drain has ended.
    attempts_ended: bool,
    metrics: Arc<WorkerMetrics>,
}

impl Worker {
    /// Runs until drained; whether everything was finished by then.
    fn serve(&mut self) -> bool {
        let mut completions = Vec::with_capacity(1024);
        loop {
            let wait = self.wait();
            self.round(Some(wait), &mut completions);
            if self.has_batch_begun() {
                // One more round before the batch is sealed: what is on its way joins it.
                self.round(Some(Duration::ZERO), &mut completions);
            }
            self.verify();
            self.batch();
            if let Some(clean) = self.drained() {
                let _ = self.reactor.drain(Instant::now() + CANCEL_TIMEOUT);
                return clean;
            }
        }
    }

    fn round(&mut self, wait: Option<Duration>, completions: &mut Vec<Completion>) {
        self.reactor.tick(wait, completions);
        self.set_clock();
        self.metrics.ring_completions.add(completions.len() as u64);
        for completion in completions.drain(..) {
            self.handle(completion);
        }
        self.read_inbox();
    }

    fn read_inbox(&mut self) {
        while let Some(message) = self.shared.mesh.receive(self.index) {
            self.handle_message(message);
        }
    }

    fn set_clock(&mut self) {
        self.clock = Clock::now();
        self.links.handle_clock(self.clock);
        if let Some(ingester) = &mut self.ingester {
            ingester.handle_clock(self.clock);
        }
        if let Some(egress) = &mut self.egress {
            egress.handle_clock(self.clock);
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_clock(self.clock);
        }
    }

    /// The tick's work that is done once for everything that came.
    fn batch(&mut self) {
        self.take_snapshot();
        if let Some(ingester) = &mut self.ingester {
            ingester.commit(&mut self.reactor);
        }
        self.answer();
        if let Some(egress) = &mut self.egress {
            egress.commit(&mut self.reactor);
        }
        // Deliveries of our own targets start in the tick in which their events became durable.
        self.read_inbox();
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.start_attempts(&mut self.reactor);
        }
        self.links.pump(&mut parts!(self));
        if self.clock.steady_ms >= self.housekeeping_at_ms {
            self.housekeeping_at_ms = self.clock.steady_ms + HOUSEKEEPING_MS;
            self.keep_house();
        }
    }

    fn handle(&mut self, completion: Completion) {
        match completion {
            Completion::Accepted { listener, socket } => self.handle_accepted(listener, socket),
            Completion::Connected { socket, result } => {
                if self.links.has(socket) {
                    self.links.handle_connected(socket, &result, &mut parts!(self));
                } else if let Some(deliveries) = &mut self.deliveries {
                    deliveries.handle_connected(socket, result, &mut self.reactor);
                }
            }
            Completion::Received { socket, buffer } => self.handle_received(socket, buffer),
            Completion::Closed { socket, error: _ } => self.handle_closed(socket),
            Completion::Sent { socket, buffer, result } => self.handle_sent(socket, buffer, result),
            Completion::Detached { socket, fd } => self.links.handle_detached(socket, fd),
            Completion::Wrote { token, buffer, result, .. } => self.handle_wrote(token, buffer, result),
            Completion::Read { token, buffer, result, .. } => {
                let (role, value) = token_role(token);
                match (role, &mut self.ingester, &mut self.egress) {
                    (JournalRole::Ingester, Some(ingester), _) => ingester.handle_read(value, buffer, result),
                    (JournalRole::Egress, _, Some(egress)) => egress.handle_read(buffer, result),
                    _ => unreachable!("a read belongs to a journal that is open"),
                }
            }
            Completion::Synced { .. } | Completion::Timer { .. } | Completion::Woken => {}
        }
    }

    fn handle_accepted(&mut self, listener: ListenerId, socket: SocketId) {
        let kind = self.listeners.iter().find(|(id, _)| *id == listener).map(|(_, kind)| kind);
        match kind {
            Some(Listening::Sources) => self.accept_source(socket),
            Some(&Listening::Links(side)) => self.links.handle_accepted(socket, side, &mut self.reactor),
            None => self.reactor.close(socket),
        }
    }

    fn accept_source(&mut self, socket: SocketId) {
        let settings = self.snapshot.ingester.as_ref().expect("sources come to an ingester's listener");
        let Some(place) = self.shared.source_places.take(settings.connections_max) else {
            self.metrics.requests_refused.add("connections");
            self.reactor.close(socket);
            return;
        };
        // A connection that is gone already has no peer.
        let (Some(peer), Ok(tls)) = (self.reactor.peer(socket), Tls::accept(&settings.public_tls)) else {
            self.reactor.close(socket);
            return;
        };
        let client = Client::new(peer.ip(), settings.proxies.as_ref());
        let stream = Stream::start(socket, tls, &mut self.reactor).keeping(SPARE_ANSWER_BYTES_MAX);
        let source = Box::new(Source::new(stream, client, place, self.clock.steady_ms));
        let index = socket.index();
        if index >= self.sources.len() {
            self.sources.resize_with(index + 1, || None);
        }
        self.sources[index] = Some((socket, source));
        self.sources_open += 1;
    }

    /// The ring lends its buffer for decryption only; then it is free for the next receive.
    fn handle_received(&mut self, socket: SocketId, mut buffer: zen_uring::ReceiveBuffer) {
        let bytes = self.reactor.bytes_mut(&mut buffer);
        if let Some(mut source) = take_source(&mut self.sources, socket) {
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            if let Some(unused) = source.lend(ingester.take_scratch()) {
                ingester.give_scratch(unused);
            }
            let decrypted = source.decrypt(bytes);
            self.reactor.recycle(buffer);
            source.handle_received(decrypted, ingester, &mut self.reactor, self.clock.steady_ms);
            self.put_source(source);
            self.verify_full();
        } else if self.links.has(socket) {
            let decrypted = self.links.decrypt(socket, bytes);
            self.reactor.recycle(buffer);
            self.links.handle_received(socket, decrypted, &mut parts!(self));
        } else if let Some(deliveries) = &mut self.deliveries {
            let decrypted = deliveries.decrypt(socket, bytes);
            self.reactor.recycle(buffer);
            deliveries.handle_received(socket, decrypted, &mut self.reactor);
        } else {
            self.reactor.recycle(buffer);
        }
    }

    fn handle_closed(&mut self, socket: SocketId) {
        self.verify_closed(socket);
        if let Some(mut source) = take_source(&mut self.sources, socket) {
            self.drop_source(&mut source);
        } else if self.links.has(socket) {
            self.links.handle_closed(socket, &mut self.reactor);
        } else if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_closed(socket, &mut self.reactor);
        }
    }

    fn handle_sent(&mut self, socket: SocketId, buffer: Vec<u8>, result: Result<(), std::io::Error>) {
        if let Some(mut source) = take_source(&mut self.sources, socket) {
            if result.is_err() {
                self.drop_source(&mut source);
                return;
            }
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_sent(buffer, ingester, &mut self.reactor, self.clock.steady_ms);
            self.put_source(source);
            self.verify_full();
        } else if self.links.has(socket) {
            self.links.handle_sent(socket, buffer, &result, &mut self.reactor);
        } else if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_sent(socket, buffer, result, &mut self.reactor);
        }
    }

    fn handle_wrote(
        &mut self,
        token: u64,
        buffer: zen_uring::AlignedBuffer,
        result: Result<(), std::io::Error>,
    ) {
        let failed = result.is_err();
        match (token_role(token).0, &mut self.ingester, &mut self.egress) {
            (JournalRole::Ingester, Some(ingester), _) => {
                ingester.journal_mut().handle_wrote(token, buffer, result, self.clock.steady_ms);
                if failed {
                    ingester.handle_write_error();
                }
            }
            (JournalRole::Egress, _, Some(egress)) => {
                egress.journal_mut().handle_wrote(token, buffer, result, self.clock.steady_ms);
            }
            (JournalRole::Index, Some(ingester), _) => {
                ingester.index_mut().handle_wrote(token, buffer, result, self.clock.steady_ms);
            }
            _ => unreachable!("a write belongs to a journal that is open"),
        }
    }

    fn handle_message(&mut self, message: Message) {
        match message {
            Message::Segment { role, id, file } => {
                let journal = match role {
                    JournalRole::Ingester => self.ingester.as_mut().map(Ingester::journal_mut),
                    JournalRole::Egress => self.egress.as_mut().map(Egress::journal_mut),
                    JournalRole::Index => self.ingester.as_mut().map(Ingester::index_mut),
                };
                journal.expect("asked for by this journal").handle_segment(&mut self.reactor, id, file);
            }
            Message::Resolved { host, result } => {
                let addresses = result.as_deref().unwrap_or_default();
                self.links.handle_resolved(&host, addresses, &mut self.reactor);
                if let Some(deliveries) = &mut self.deliveries {
                    deliveries.handle_resolved(&host, result, &mut self.reactor);
                }
            }
            Message::Link(handover) => self.links.handle_handover(*handover, &mut parts!(self)),
            Message::Streams { ingester, streams } => self.links.handle_streams(ingester, streams),
            Message::Deliver(handoff) => {
                self.deliveries.as_mut().expect("an egress delivers").handle_handoff(handoff);
            }
            Message::Verdict { key, target_index, verdict } => {
                self.egress.as_mut().expect("an egress holds events").handle_verdict(
                    key,
                    target_index,
                    &verdict,
                );
            }
            Message::Fetch { key, target, reply_to } => {
                self.egress.as_mut().expect("an egress holds events").handle_fetch(key, target, reply_to);
            }
            Message::Fetched { key, target, fetched } => {
                self.deliveries.as_mut().expect("an egress delivers").handle_fetched(key, &target, fetched);
            }
            Message::Settled { waiter, event_id } => {
                let ingester = self.ingester.as_mut().expect("only sources of an ingester wait");
                ingester.handle_settled(waiter, event_id);
            }
            Message::Order { order, place } => {
                if let Some(egress) = &mut self.egress {
                    egress.handle_order(*order);
                }
                drop(place);
            }
            Message::Target { order, place } => {
                if let Some(deliveries) = &mut self.deliveries {
                    deliveries.handle_order(*order);
                }
                drop(place);
            }
            Message::Drain => self.drain(),
        }
    }

    /// Sends the answers that became due.
    fn answer(&mut self) {
        loop {
            let Some(answer) = self.ingester.as_mut().and_then(Ingester::poll_answer) else { return };
            let Some(mut source) = take_source(&mut self.sources, answer.socket) else { continue };
            let ingester = self.ingester.as_mut().expect("answers come from an ingester");
            let now_ms = self.clock.steady_ms;
            source.handle_outcome(answer.outcome, ingester, &mut self.reactor, now_ms);
            self.put_source(source);
            self.verify_full();
        }
    }

    fn has_batch_begun(&self) -> bool {
        let begun = |ingester: &Ingester| ingester.journal().open_records() > 0 || ingester.has_unverified();
        self.ingester.as_ref().is_some_and(begun)
    }

    fn take_snapshot(&mut self) {
        let current = self.shared.snapshot.load();
        if current.generation == self.snapshot.generation {
            return;
        }
        self.snapshot = Arc::clone(&current);
        drop(current);
        self.links.handle_snapshot(Arc::clone(&self.snapshot), &mut self.reactor);
        if let Some(ingester) = &mut self.ingester {
            ingester.handle_snapshot(Arc::clone(&self.snapshot));
        }
        if let Some(egress) = &mut self.egress {
            egress.handle_snapshot(Arc::clone(&self.snapshot));
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_snapshot(Arc::clone(&self.snapshot), &mut self.reactor);
        }
    }

    /// Deadlines, trimming and gauges, a few times a second.
    fn keep_house(&mut self) {
        self.links.handle_time(&mut parts!(self));
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.handle_time(&mut self.reactor);
        }
        for index in 0..self.sources.len() {
            let Some((_, mut source)) = self.sources[index].take() else { continue };
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_time(ingester, &mut self.reactor, self.clock.steady_ms);
            self.put_source(source);
        }
        if let Some(ingester) = &mut self.ingester {
            ingester.handle_time();
            ingester.trim(&mut self.reactor);
        }
        self.observe_keys();
        self.observe();
    }

    fn observe(&mut self) {
        self.metrics.source_connections.set(u64::from(self.sources_open));
        self.metrics.ring_enters.set(self.reactor.counters().enters);
        self.links.observe();
        let (mut live_bytes, mut full) = (0, false);
        if let Some(ingester) = &self.ingester {
            live_bytes += ingester.journal().bytes_live();
            full |= !ingester.has_room();
            self.metrics.link_lag_events.set(ingester.lag());
        }
        if let Some(egress) = &self.egress {
            live_bytes += egress.journal().bytes_live();
            full |= egress.journal().can_append(0) == Err(AppendError::NoSegment);
            egress.observe();
        }
        if let Some(deliveries) = &self.deliveries {
            deliveries.observe();
        }
        self.metrics.journal_live_bytes.set(live_bytes);
        self.metrics.journal_full.set(u64::from(full));
        if full != self.was_full {
            self.was_full = full;
            let change = if full { 1 } else { u16::MAX };
            self.shared.workers_full.fetch_add(change, Ordering::AcqRel);
        }
    }

    /// Expiry and figures of this worker's share of the tables of keys.
    fn observe_keys(&mut self) {
        let (workers, now_ms, metrics) = (self.shared.mesh.workers(), self.clock.wall_ms, &self.metrics);
        if let Some(keys) = self.ingester.as_ref().map(Ingester::keys) {
            let figures = keys.handle_time(self.index, workers, now_ms);
            metrics.idempotency_keys.set(figures.keys);
            metrics.idempotency_doubles.set(figures.doubles);
            if figures.evicted_early > metrics.idempotency_evicted_early.value() {
                keys.warn_evicted("ingester.idempotency.keys_max", now_ms);
            }
            metrics.idempotency_evicted_early.set(figures.evicted_early);
        }
        if let Some(ids) = self.egress.as_ref().map(Egress::ids) {
            let figures = ids.handle_time(self.index, workers, now_ms);
            metrics.event_ids.set(figures.keys);
            if figures.evicted_early > metrics.event_ids_evicted_early.value() {
                ids.warn_evicted("egress.idempotency.keys_max", now_ms);
            }
            metrics.event_ids_evicted_early.set(figures.evicted_early);
        }
    }

    /// How long the ring may sleep.
    fn wait(&self) -> Duration {
        let has_work = |ingester: &Ingester| ingester.has_answers() || ingester.has_unverified();
        if self.ingester.as_ref().is_some_and(has_work) || self.shared.mesh.has_messages(self.index) {
            return Duration::ZERO;
        }
        let steady_ms = self.clock.steady_ms;
        let due = [
            self.links.poll_timeout(),
            self.deliveries.as_ref().and_then(Deliveries::poll_timeout),
            self.egress.as_ref().and_then(Egress::poll_timeout),
        ];
        let due_ms = due.into_iter().flatten().min().map_or(u64::MAX, |due| due.saturating_sub(steady_ms));
        IDLE_WAIT.min(Duration::from_millis(due_ms.max(1)))
    }

    /// Puts a source back, or closes it when it has nothing left to say.
    fn put_source(&mut self, mut source: Box<Source>) {
        if source.is_done() {
            self.drop_source(&mut source);
            return;
        }
        let socket = source.stream.socket;
        self.sources[socket.index()] = Some((socket, source));
    }

    fn drop_source(&mut self, source: &mut Source) {
        source.release(self.ingester.as_mut().expect("sources belong to an ingester"));
        self.reactor.close(source.stream.socket);
        self.sources_open -= 1;
    }
}

fn take_source(sources: &mut [Option<(SocketId, Box<Source>)>], socket: SocketId) -> Option<Box<Source>> {
    let slot = sources.get_mut(socket.index())?;
    if slot.as_ref()?.0 != socket {
        return None;
    }
    slot.take().map(|(_, source)| source)
}
