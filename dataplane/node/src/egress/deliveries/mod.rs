//! The egress's part of a worker, owner side: the targets it owns, their queues and connections.
//!
//! Each tick starts what may start: deliveries of all targets are signed in one batch, then written
//! to idle connections or to new ones. A slow target only fills its own queue.

mod batches;
mod denials;
mod destinations;
mod format;
mod holds;
mod outputs;
mod signing;
mod spans;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use zen_core::deliver::{DeadReason, Delivery, DeliveryRequest, Next, Outcome};
use zen_core::id::EventIds;
use zen_uring::{Reactor, SocketId};
use zeroize::Zeroize;

use self::batches::Batch;
pub use self::batches::Batching;
use super::connection::{Connection, Job, Step};
use super::output::OutputState;
use super::owner::{Owner, Turn};
use super::paused::{Hold, Paused};
use super::probe::Probes;
use crate::clock::Clock;
use crate::config::{Authorization, ClientCertificate, EgressSettings, Snapshot};
use crate::control::Resolver;
use crate::entropy::Entropy;
use crate::mesh::{EventBytes, EventKey, Fetched, Handoff, Mesh, Message, Verdict};
use crate::metrics::WorkerMetrics;
use crate::oauth::Token;
use crate::sockets::BySocket;
use crate::tls::TlsError;

/// Deliveries signed in one batch.
const BATCH_MAX: usize = 256;
/// While it is sent, an event is there as it came, encrypted, and in the buffer being sent.
pub const ATTEMPT_COPIES: usize = 3;

/// A connection to a target beside the event and TLS: its parser, its place in tables.
pub const CONNECTION_BYTES: usize = 4 * size_of::<Connection>() + 2048 + SPARE_HEAD_BYTES_MAX;
/// Room for most requests' heads, bytes.
const HEAD_BYTES: usize = 1024;
/// Longest buffer for a head that is kept for the next, bytes; a body that fits goes behind its head.
const SPARE_HEAD_BYTES_MAX: usize = 4096;

struct Start {
    target: Arc<str>,
    delivery: Delivery,
    bytes: EventBytes,
    /// What is sent instead, if these are several.
    batch: Option<Box<Batch>>,
    /// For a target that wants one.
    token: Option<Arc<Token>>,
}

impl Start {
    fn new(target: Arc<str>, delivery: Delivery, bytes: EventBytes) -> Self {
        Self { target, delivery, bytes, batch: None, token: None }
    }
}

/// The targets that a worker owns.
pub struct Deliveries {
    worker: u16,
    owners: BTreeMap<Arc<str>, Owner>,
    connections: BySocket<Connection>,
    probes: Probes,
    starts: Vec<Start>,
    unresolved: Vec<(Arc<str>, Job)>,
    requests: Vec<DeliveryRequest>,
    spare_heads: Vec<Vec<u8>>,
    /// Whether some target takes batches.
    batches: bool,
    ids: EventIds,
    snapshot: Arc<Snapshot>,
    paused: Arc<Paused>,
    mesh: Mesh,
    resolver: Resolver,
    entropy: Entropy,
    draining: bool,
    clock: Clock,
    metrics: Arc<WorkerMetrics>,
}

impl Deliveries {
    /// No delivery yet.
    pub fn new(
        worker: u16,
        snapshot: Arc<Snapshot>,
        paused: Arc<Paused>,
        mesh: Mesh,
        resolver: Resolver,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let mut deliveries = Self {
            worker,
            owners: BTreeMap::new(),
            connections: BySocket::new(),
            probes: Probes::new(),
            starts: Vec::new(),
            unresolved: Vec::new(),
            requests: Vec::new(),
            spare_heads: Vec::new(),
            batches: false,
            ids: EventIds::default(),
            snapshot,
            paused,
            mesh,
            resolver,
            entropy: Entropy::default(),
            draining: false,
            clock: Clock::now(),
            metrics,
        };
        deliveries.take_targets();
        deliveries
    }

    /// Takes a new configuration: targets come, change and go.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, reactor: &mut Reactor) {
        self.snapshot = snapshot;
        let settings = self.settings();
        let is_known =
            |name: &str| settings.targets.contains_key(name) || settings.outputs.contains_key(name);
        let gone: Vec<Arc<str>> = self.owners.keys().filter(|name| !is_known(name)).cloned().collect();
        for name in gone {
            self.remove_target(&name, reactor);
        }
        self.take_targets();
        // Kept-alive connections lead to the old address, under the old policy.
        for socket in self.owners.values_mut().flat_map(|owner| owner.idle.drain(..)) {
            self.connections.remove(socket);
            reactor.close(socket);
        }
    }

    fn take_targets(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        let settings = snapshot.egress.as_ref().expect("a worker that delivers has an egress");
        self.batches |= settings.targets.values().any(|target| target.batch.is_some());
        for (name, target) in &settings.targets {
            let (changed, new) = (Arc::clone(target), Arc::clone(target));
            let change = |owner: &mut Owner| {
                owner.output = None;
                owner.handle_target(changed);
            };
            self.take_owner(name, change, |seed, backlog| Owner::of_target(new, seed, backlog));
        }
        for (name, output) in &settings.outputs {
            let (changed, new) = (Arc::clone(output), Arc::clone(output));
            self.take_owner(
                name,
                |owner| owner.handle_output(changed),
                |seed, backlog| Owner::of_output(new, seed, backlog),
            );
        }
    }

    fn take_owner(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Owner),
        make: impl FnOnce(u64, Arc<AtomicUsize>) -> Owner,
    ) {
        if self.mesh.owner_of(name) != self.worker {
            return;
        }
        if let Some(owner) = self.owners.get_mut(name) {
            return change(owner);
        }
        let seed = u64::from_le_bytes(self.entropy.bytes());
        let mut owner = make(seed, self.mesh.backlog_of(&Arc::from(name)));
        if self.paused.contains(name) {
            owner.handle_hold(Hold::Pause, self.clock.steady_ms);
        }
        self.owners.insert(Arc::clone(&owner.name), owner);
    }

    /// Sets the tick's clock.
    pub fn handle_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Takes a delivery for a target of ours.
    pub fn handle_handoff(&mut self, handoff: Handoff) {
        let (key, index) = (handoff.key, handoff.target_index);
        let Some(owner) = self.owners.get_mut(&handoff.target) else {
            self.settle(key, index, given_up(DeadReason::TargetRemoved));
            return;
        };
        if owner.handle_handoff(handoff, self.clock.steady_ms).is_err() {
            self.settle(key, index, given_up(DeadReason::QueueFull));
        }
    }

    /// An event that was fetched from its origin.
    pub fn handle_fetched(&mut self, key: EventKey, target: &Arc<str>, fetched: Fetched) {
        let Some(owner) = self.owners.get_mut(target) else { return };
        let Some(delivery) = owner.handle_fetched(key) else { return };
        match fetched {
            Fetched::Event(bytes) => {
                self.starts.push(Start::new(Arc::clone(target), delivery, bytes));
            }
            Fetched::Unreadable => self.finish(target, delivery.key, 0, &Outcome::Unreadable),
            Fetched::Ended => owner.forget(delivery.key, self.clock.steady_ms),
        }
    }

    /// TCP to a target is up, or not.
    pub fn handle_connected(
        &mut self,
        socket: SocketId,
        result: Result<(), std::io::Error>,
        reactor: &mut Reactor,
    ) {
        if self.probes.contains(socket) {
            let finding = self.probes.handle_connected(socket, result, reactor);
            return self.take_findings(finding);
        }
        self.step(socket, reactor, |connection, reactor, _| connection.handle_connected(result, reactor));
    }

    /// Decrypts ciphertext from a target.
    pub fn decrypt(&mut self, socket: SocketId, bytes: &mut [u8]) -> Result<(), TlsError> {
        match self.connections.get_mut(socket) {
            Some(connection) => connection.decrypt(bytes),
            None => self.probes.decrypt(socket, bytes),
        }
    }

    /// Works on what [`Deliveries::decrypt`] came to.
    pub fn handle_received(
        &mut self,
        socket: SocketId,
        decrypted: Result<(), TlsError>,
        reactor: &mut Reactor,
    ) {
        if self.probes.contains(socket) {
            let finding = self.probes.handle_received(socket, decrypted, reactor);
            return self.take_findings(finding);
        }
        let denial = decrypted.as_ref().err().and_then(TlsError::denial);
        if let Some(denial) = denial {
            self.metrics.peers_denied.add(denial.label());
        }
        self.step(socket, reactor, |connection, reactor, clock| {
            connection.handle_received(decrypted, reactor, clock)
        });
    }

    /// A target closed its side.
    pub fn handle_closed(&mut self, socket: SocketId, reactor: &mut Reactor) {
        if self.probes.contains(socket) {
            let finding = self.probes.handle_closed(socket, reactor);
            return self.take_findings(finding);
        }
        self.step(socket, reactor, |connection, _, clock| match connection.handle_closed(clock) {
            Step::Busy => Step::Closed,
            step => step,
        });
    }

    /// A send to a target completed.
    pub fn handle_sent(
        &mut self,
        socket: SocketId,
        buffer: Vec<u8>,
        result: Result<(), std::io::Error>,
        reactor: &mut Reactor,
    ) {
        if self.probes.contains(socket) {
            let finding = self.probes.handle_sent(socket, buffer, result, reactor);
            return self.take_findings(finding);
        }
        self.step(socket, reactor, |connection, reactor, clock| {
            connection.handle_sent(buffer, result, reactor, clock)
        });
    }

    /// Deadlines, probes and failover; called a few times a second.
    pub fn handle_time(&mut self, reactor: &mut Reactor) {
        let sockets: Vec<SocketId> = self.connections.sockets();
        for socket in sockets {
            self.step(socket, reactor, |connection, _, clock| connection.handle_time(clock));
        }
        self.end_denied(reactor);
        let findings = self.probes.handle_time(self.clock.steady_ms, reactor);
        self.take_findings(findings);
        if !self.draining {
            self.start_probes(reactor);
            self.switch_outputs(reactor);
        }
    }

    /// Starts what may start, signed in one batch.
    pub fn start_attempts(&mut self, reactor: &mut Reactor) {
        if !self.draining {
            self.collect_turns();
        }
        if self.batches {
            self.gather();
        }
        while !self.starts.is_empty() {
            let count = self.starts.len().min(BATCH_MAX);
            let batch: Vec<Start> = self.starts.drain(..count).collect();
            for (target, job) in self.sign(batch) {
                self.send(&target, job, reactor);
            }
        }
    }

    /// When something may start that cannot now, steady ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        let bytes_max = self.attempt_bytes_max();
        let steady_ms = self.clock.steady_ms;
        let owners = self.owners.values().filter(|owner| !owner.target.lacks_token(steady_ms));
        let turns = owners.filter_map(|owner| owner.poll_timeout(bytes_max)).min();
        let batches = self.batches.then(|| self.poll_batch_timeout()).flatten();
        [turns, batches].into_iter().flatten().min()
    }

    /// From now on nothing new starts.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether no attempt is in flight.
    pub fn is_quiet(&self) -> bool {
        self.starts.is_empty()
            && self.unresolved.is_empty()
            && !self.owners.values().any(Owner::is_batching)
            && !self.connections.iter().any(|(_, connection)| connection.is_busy())
    }

    /// Sets gauges.
    pub fn observe(&self) {
        let owners = || self.owners.values();
        owners().for_each(Owner::observe);
        self.metrics.queue_depth.set(owners().map(|owner| owner.queue.waiting() as u64).sum());
        self.metrics.attempts_in_flight.set(owners().map(|owner| owner.queue.in_flight() as u64).sum());
        self.observe_holds();
        let (steady_ms, metrics) = (self.clock.steady_ms, &self.metrics);
        let waiting = owners().filter(|owner| owner.target.lacks_token(steady_ms)).count();
        metrics.targets_without_token.set(waiting as u64);
        let on_standby = |owner: &&Owner| owner.output.as_ref().is_some_and(OutputState::is_on_standby);
        self.metrics.outputs_on_standby.set(owners().filter(on_standby).count() as u64);
        self.metrics.target_connections.set(self.connections.len() as u64);
    }

    fn settings(&self) -> &EgressSettings {
        self.snapshot.egress.as_ref().expect("a worker has an egress because the configuration has one")
    }

    /// Each target has its share, so that one that hangs takes nothing from another.
    fn attempt_bytes_max(&self) -> u64 {
        let bytes = self.settings().attempt_memory_bytes_max / ATTEMPT_COPIES / self.owners.len().max(1);
        (bytes as u64).max(1)
    }

    fn collect_turns(&mut self) {
        let (steady_ms, bytes_max) = (self.clock.steady_ms, self.attempt_bytes_max());
        for owner in self.owners.values_mut() {
            if owner.target.lacks_token(steady_ms) {
                continue;
            }
            while let Some(turn) = owner.poll_turn(steady_ms, bytes_max) {
                match turn {
                    Turn::Ready(delivery, bytes) => {
                        self.starts.push(Start::new(Arc::clone(&owner.name), delivery, bytes));
                    }
                    Turn::Fetch(key) => {
                        let fetch =
                            Message::Fetch { key, target: Arc::clone(&owner.name), reply_to: self.worker };
                        self.mesh.send(key.origin, fetch);
                    }
                }
            }
        }
    }

    fn send(&mut self, target: &Arc<str>, job: Job, reactor: &mut Reactor) {
        let Some(owner) = self.owners.get_mut(target) else { return };
        while let Some(socket) = owner.idle.pop() {
            if let Some(connection) = self.connections.get_mut(socket) {
                connection.start(job, reactor);
                return;
            }
        }
        self.dial(target, job, reactor);
    }

    fn step(
        &mut self,
        socket: SocketId,
        reactor: &mut Reactor,
        act: impl FnOnce(&mut Connection, &mut Reactor, Clock) -> Step,
    ) {
        let Some(connection) = self.connections.get_mut(socket) else { return };
        let Some(owner) = self.owners.get_mut(&connection.target) else {
            reactor.close(socket);
            self.connections.remove(socket);
            return;
        };
        let step = act(connection, reactor, self.clock);
        let target = Arc::clone(&connection.target);
        if let Step::Answered(_, outcome) | Step::Failed(_, outcome) = &step {
            owner.handle_outcome(connection.settings(), outcome, self.clock.steady_ms);
            owner.handle_excerpt(connection.take_excerpt());
        }
        let fits = connection.fits(&owner.target);
        let stays = matches!(step, Step::Busy) || fits && matches!(step, Step::Answered(..));
        if !stays {
            owner.idle.retain(|idle| *idle != socket);
            self.connections.remove(socket);
            reactor.close(socket);
        }
        match step {
            Step::Busy | Step::Closed => {}
            Step::Answered(job, outcome) => {
                if fits {
                    owner.idle.push(socket);
                }
                self.end_job(&target, job, &outcome);
            }
            Step::Failed(job, outcome) => self.end_job(&target, job, &outcome),
            Step::Unsent(job) => self.dial(&target, job, reactor),
        }
    }

    fn end_job(&mut self, target: &Arc<str>, job: Job, outcome: &Outcome) {
        self.end_span(target, &job, outcome);
        self.finish(target, job.key, job.accepted_us, outcome);
        for member in &job.others {
            self.finish(target, member.key, member.accepted_us, outcome);
        }
        let mut head = job.head;
        if let (Some(Authorization::Tokens(source)), Some(token), 401) =
            (&job.target.authorization, &job.token, outcome.status())
        {
            source.handle_refused(token);
        }
        if job.target.authorization.is_some() {
            head.zeroize();
        }
        head.clear();
        if self.spare_heads.len() < BATCH_MAX && head.capacity() <= SPARE_HEAD_BYTES_MAX {
            self.spare_heads.push(head);
        }
    }

    /// An attempt ended: the queue decides, the origin is told.
    fn finish(&mut self, target: &Arc<str>, key: u64, accepted_us: u64, outcome: &Outcome) {
        let Some(owner) = self.owners.get_mut(target) else { return };
        self.metrics.deliveries.add(outcome_label(outcome));
        if owner.target.client_certificate == ClientCertificate::None {
            self.metrics.deliveries_without_client_certificate.add(1);
        }
        let (status, attempts) = (outcome.status(), owner.queue.attempts(key));
        if !matches!(status, 200..=299) {
            owner.handle_failure(outcome, self.clock.steady_ms);
        }
        let deadline_ms = owner.deadline_ms(key, accepted_us, self.clock).unwrap_or(u64::MAX);
        let next = owner.queue.handle_outcome_until(key, outcome, deadline_ms, self.clock.steady_ms);
        let (index, verdict) = match next {
            Next::Delivered => {
                let latency_us = self.clock.wall_us.saturating_sub(accepted_us);
                self.metrics.accept_to_delivered.record(std::time::Duration::from_micros(latency_us));
                (owner.remove_parcel(key), Verdict::Delivered { status, attempts })
            }
            Next::Retry { attempt, due_ms } => {
                self.metrics.retries.add(1);
                (owner.put_off(key), Verdict::Retry { attempt, due_ms })
            }
            Next::Disabled { attempt, due_ms } => {
                tracing::warn!(
                    target = &**target,
                    "the target answered 410 and is disabled; its events are kept"
                );
                (owner.put_off(key), Verdict::Retry { attempt, due_ms })
            }
            Next::Dead { reason } => (owner.remove_parcel(key), Verdict::Dead { reason, status, attempts }),
        };
        self.settle(EventKey::unpacked(key), index, verdict);
    }

    fn settle(&self, key: EventKey, target_index: u8, verdict: Verdict) {
        if let Verdict::Dead { reason, .. } = verdict {
            self.metrics.dead_letters.add(1);
            tracing::debug!(event = key.handle, reason = reason.label(), "a delivery became a dead letter");
        }
        self.mesh.send(key.origin, Message::Verdict { key, target_index, verdict });
    }

    /// A target that is not configured any more: what waits or is under way becomes dead letters.
    fn remove_target(&mut self, name: &Arc<str>, reactor: &mut Reactor) {
        let Some(owner) = self.owners.remove(name) else { return };
        // A target of this name that comes back must not meet an attempt it did not start.
        self.connections.retain(|socket, connection| {
            let stays = connection.target != *name;
            if !stays {
                reactor.close(socket);
            }
            stays
        });
        self.starts.retain(|start| start.target != *name);
        self.unresolved.retain(|(target, _)| target != name);
        self.mesh.forget_backlog(name);
        let parcels = owner.into_parcels();
        tracing::warn!(
            target = &**name,
            dead_letters = parcels.len(),
            "the target was removed from the configuration"
        );
        for (key, index) in parcels {
            self.settle(EventKey::unpacked(key), index, given_up(DeadReason::TargetRemoved));
        }
    }
}

/// What never got as far as an attempt.
fn given_up(reason: DeadReason) -> Verdict {
    Verdict::Dead { reason, status: 0, attempts: 0 }
}

/// `delivered` for a 2xx, else what went wrong.
fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered { status: 200..=299, .. } => "delivered",
        other => other.label(),
    }
}
