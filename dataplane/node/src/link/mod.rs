//! All links of one worker: accepted and dialled ones, in either role.
//!
//! A link belongs to the worker whose journal it carries. An egress that dials may be accepted by any
//! worker; once it has named its stream, the connection moves there. Peers are known by their SPIFFE
//! id first, by name second; both must fit the configuration.

mod admission;
mod dial;
mod receiving;
mod sending;
mod session;
mod slot;

use std::collections::HashMap;
use std::sync::Arc;

use admission::{admits, ingester_peer, is_admitted};
use sending::send_events;
use session::{Link, Machine, SPARE_OUT_BYTES_MAX};
pub use session::{LinkHandover, Side};
use slot::Slot;
use zen_core::event::EVENT_BYTES_MAX;
use zen_core::link::{
    BATCH_BYTES_GOAL, FRAME_READER_BYTES_MAX, Frame, HANDSHAKE_TIMEOUT_MS, Hello, IN_FLIGHT_EVENTS_MAX,
    LinkError, Receiver, ReceiverEvent, RefuseCode, Role,
};
use zen_uring::{Reactor, SocketId};

use crate::clock::Clock;
use crate::config::Snapshot;
use crate::control::Resolver;
use crate::crypto::Counted;
use crate::egress::Egress;
use crate::entropy::Entropy;
use crate::ingester::Ingester;
use crate::mesh::{Mesh, Message};
use crate::metrics::WorkerMetrics;
use crate::quota::Quota;
use crate::sockets::BySocket;
use crate::stream::Stream;
use crate::tls::{Tls, TlsError};

/// Credit of a link at its start, bytes.
const CREDIT_BYTES: u64 = 2 * EVENT_BYTES_MAX as u64;
/// Credit of a link at its start, events.
const CREDIT_EVENTS: u32 = 2048;
/// A refusal of events is told again after this, for as long as it lasts.
const ALARM_EVERY_MS: u64 = 60_000;
const REFUSED: &str = "the events of a link are refused; they wait at the ingester and go on when the cause is \
    gone: compare the clocks of both nodes (300 s are allowed) and their link keys";
const AHEAD: &str = "this journal is older than what the egress has of it, and nothing is sent from it: put the \
    newer journal back (docs/operations.md, Backup)";
const STREAMS: &str = "this egress knows 4096 journals of ingesters, and takes events of no other: their data_dir seems to \
    be new at each start; keep it, drain this node, and start it with an empty data_dir";
/// Plaintext written to one link before its send must complete.
const PUMP_BYTES_MAX: usize = 1 << 19;
/// Frames other than batches that may wait for a peer that does not read, bytes.
const UNREAD_BYTES_MAX: usize = 256 * 1024;
/// Connections of a worker that have not said who they are; each has `HANDSHAKE_TIMEOUT_MS`.
pub const HANDSHAKES_MAX: usize = 32;
/// Longest batch: it is closed by the event that takes it over the goal.
const BATCH_BYTES_MAX: usize = BATCH_BYTES_GOAL + EVENT_BYTES_MAX + 64 * 1024;
/// A link that sends: frames being written, doubled by growth; encrypted; what the peer has not acknowledged.
pub const SENDING_BYTES: usize =
    3 * (PUMP_BYTES_MAX + BATCH_BYTES_MAX) + UNREAD_BYTES_MAX + 2 * IN_FLIGHT_EVENTS_MAX * size_of::<u64>();
/// A link that receives: one frame, and the events of its credit on their way into the journal.
pub const RECEIVING_BYTES: usize = FRAME_READER_BYTES_MAX
    + UNREAD_BYTES_MAX
    + CREDIT_BYTES as usize
    + CREDIT_EVENTS as usize * crate::egress::INCOMING_BYTES;

/// What the links work on, borrowed from the worker for one call.
pub struct Parts<'a> {
    /// The ring.
    pub reactor: &'a mut Reactor,
    /// This worker's ingester.
    pub ingester: Option<&'a mut Ingester>,
    /// This worker's egress.
    pub egress: Option<&'a mut Egress>,
}

/// All links of one worker.
pub struct Links {
    worker: u16,
    open: BySocket<Link>,
    closed: Vec<SocketId>,
    slots: Vec<Slot>,
    streams: HashMap<String, u16>,
    places: Quota,
    snapshot: Arc<Snapshot>,
    mesh: Mesh,
    resolver: Resolver,
    entropy: Entropy,
    draining: bool,
    alarm_at_ms: u64,
    clock: Clock,
    metrics: Arc<WorkerMetrics>,
}

impl Links {
    /// No link yet; [`Links::handle_time`] dials.
    pub fn new(
        worker: u16,
        snapshot: Arc<Snapshot>,
        mesh: Mesh,
        resolver: Resolver,
        places: Quota,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let mut links = Self {
            worker,
            open: BySocket::new(),
            closed: Vec::new(),
            slots: Vec::new(),
            streams: HashMap::new(),
            places,
            snapshot: Arc::clone(&snapshot),
            mesh,
            resolver,
            entropy: Entropy::default(),
            draining: false,
            alarm_at_ms: 0,
            clock: Clock::now(),
            metrics,
        };
        links.make_slots();
        links
    }

    /// Takes a new configuration: slots come and go, and links whose peer is not admitted any more end.
    pub fn handle_snapshot(&mut self, snapshot: Arc<Snapshot>, reactor: &mut Reactor) {
        self.snapshot = snapshot;
        self.make_slots();
        let snapshot = Arc::clone(&self.snapshot);
        let refused = self.open.iter().filter(|(_, link)| !is_admitted(&snapshot, link));
        let refused: Vec<SocketId> = refused.map(|(socket, _)| socket).collect();
        for socket in refused {
            self.close(socket, "not_admitted", reactor);
        }
    }

    /// Sets the tick's clock.
    pub fn handle_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// A peer dialled us.
    pub fn handle_accepted(&mut self, socket: SocketId, side: Side, reactor: &mut Reactor) {
        let unknown =
            self.open.iter().filter(|(_, link)| matches!(link.machine, Machine::AwaitHello)).count();
        if unknown >= HANDSHAKES_MAX {
            self.metrics.link_errors.add("handshakes");
            reactor.close(socket);
            return;
        }
        let tls = match side {
            Side::Ingester => self.snapshot.ingester.as_ref().map(|settings| &settings.link_tls),
            Side::Egress => self.snapshot.egress.as_ref().map(|settings| &settings.link_tls),
        };
        match tls.map(Tls::accept) {
            Some(Ok(tls)) => {
                let stream = Stream::start(socket, tls, reactor).keeping(SPARE_OUT_BYTES_MAX);
                self.open
                    .insert(socket, Link::new(Some(stream), side, Machine::AwaitHello, self.clock.steady_ms));
            }
            _ => reactor.close(socket),
        }
    }

    /// Decrypts ciphertext from a peer.
    pub fn decrypt(&mut self, socket: SocketId, bytes: &mut [u8]) -> Result<(), TlsError> {
        self.open.get_mut(socket).map_or(Ok(()), |link| link.decrypt(bytes))
    }

    /// Works on what [`Links::decrypt`] came to.
    pub fn handle_received(
        &mut self,
        socket: SocketId,
        decrypted: Result<(), TlsError>,
        parts: &mut Parts<'_>,
    ) {
        let Some(mut link) = self.open.remove(socket) else { return };
        if let Err(error) = decrypted {
            tracing::warn!(%error, "a link's TLS failed");
            if let Some(denial) = error.denial() {
                self.metrics.peers_denied.add(denial.label());
            }
            link.flush(parts.reactor);
            self.open.insert(socket, link);
            self.close(socket, error.label(), parts.reactor);
            return;
        }
        let said_goodbye = link.stream.as_ref().is_some_and(|stream| stream.tls.peer_closed());
        let result = link.handle_plaintext(|link, frame| self.handle_frame(socket, link, frame, parts));
        let result = if link.queued_bytes() > UNREAD_BYTES_MAX { Err(LinkError::PeerSilent) } else { result };
        if let Err(error) = &result {
            self.tell(error);
            error.write_refuse(&mut link.out);
        }
        link.flush(parts.reactor);
        self.open.insert(socket, link);
        match result {
            Err(error) => self.close(socket, error.label(), parts.reactor),
            Ok(()) if said_goodbye => self.close(socket, "goodbye", parts.reactor),
            Ok(()) => {}
        }
    }

    /// A send completed.
    pub fn handle_sent(
        &mut self,
        socket: SocketId,
        buffer: Vec<u8>,
        result: &Result<(), std::io::Error>,
        reactor: &mut Reactor,
    ) {
        if result.is_err() {
            self.close(socket, "send", reactor);
            return;
        }
        if let Some(stream) = self.open.get_mut(socket).and_then(|link| link.stream.as_mut()) {
            stream.handle_sent(buffer, reactor);
        }
    }

    /// The peer closed its side.
    pub fn handle_closed(&mut self, socket: SocketId, reactor: &mut Reactor) {
        self.close(socket, "closed", reactor);
    }

    /// A connection left this worker's ring: it goes to the worker with its stream.
    pub fn handle_detached(&mut self, socket: SocketId, fd: std::os::fd::OwnedFd) {
        let Some(link) = self.open.remove(socket) else { return };
        let (Some(peer), Machine::Moving(hello)) = (link.peer(), link.machine) else { return };
        let tls = link.stream.expect("what moves is connected").into_tls();
        let worker = hello.stream;
        self.mesh.send(worker, Message::Link(Box::new(LinkHandover { fd, tls, hello, peer })));
    }

    /// A connection of another worker whose stream is ours.
    pub fn handle_handover(&mut self, handover: LinkHandover, parts: &mut Parts<'_>) {
        let Ok(socket) = parts.reactor.adopt(handover.fd) else { return };
        let stream = Stream::start(socket, handover.tls, parts.reactor).keeping(SPARE_OUT_BYTES_MAX);
        let steady_ms = self.clock.steady_ms;
        let mut link = Link::new(Some(stream), Side::Ingester, Machine::AwaitHello, steady_ms);
        let result = self.begin_sending(&mut link, &handover.hello, Some(&handover.peer), parts);
        if let Err(error) = &result {
            error.write_refuse(&mut link.out);
        }
        link.flush(parts.reactor);
        self.open.insert(socket, link);
        if let Err(error) = result {
            self.close(socket, error.label(), parts.reactor);
        }
    }

    /// Deadlines and dialling; called a few times a second.
    pub fn handle_time(&mut self, parts: &mut Parts<'_>) {
        let steady_ms = self.clock.steady_ms;
        let deny_list = self.snapshot.svid.deny_list();
        let sockets: Vec<SocketId> = self.open.sockets();
        for socket in sockets {
            let link = self.open.get_mut(socket).expect("listed just now");
            if link.is_expired(self.clock.wall_ms) {
                tracing::warn!(peer = ?link.peer(), "a link ends with the certificate of its peer: it was not renewed in time");
                self.close(socket, "expired", parts.reactor);
                continue;
            }
            if let Some(denial) = link.handle_deny_list(&deny_list, self.clock.wall_ms) {
                let (peer, denied) = (link.peer(), denial.label());
                tracing::warn!(?peer, denied, "a link ends: its peer is on the deny list");
                self.metrics.peers_denied.add(denied);
                self.close(socket, "denied", parts.reactor);
                continue;
            }
            let result = match &mut link.machine {
                Machine::Sending { sender, .. } => sender.handle_timeout(steady_ms, &mut link.out),
                Machine::Receiving { receiver, .. } => receiver.handle_timeout(steady_ms, &mut link.out),
                Machine::AwaitHello | Machine::Dialling | Machine::Moving(_) => {
                    let late = steady_ms.saturating_sub(link.since_ms) > HANDSHAKE_TIMEOUT_MS;
                    if late { Err(LinkError::HandshakeTimeout) } else { Ok(()) }
                }
            };
            if let Err(error) = &result {
                error.write_refuse(&mut link.out);
            }
            link.flush(parts.reactor);
            if let Err(error) = result {
                self.close(socket, error.label(), parts.reactor);
            }
        }
        self.dial_due(parts.reactor);
    }

    /// Sends what the journal has and credit allows; acknowledges what became durable.
    pub fn pump(&mut self, parts: &mut Parts<'_>) {
        if let Some(egress) = parts.egress.as_deref_mut() {
            for link in self.closed.drain(..) {
                egress.handle_link_closed(link);
            }
            self.acknowledge(egress);
        }
        if let Some(ingester) = parts.ingester.as_deref_mut() {
            let mac = Counted(&self.metrics.hmac_batch_messages.link_send);
            for link in self.open.values_mut() {
                if !link.is_sending() {
                    let sent = send_events(link, mac, ingester, parts.reactor, self.clock.wall_ms);
                    self.metrics.link_events_sent.add(sent);
                }
            }
        }
        for link in self.open.values_mut() {
            link.flush(parts.reactor);
        }
    }

    /// Takes leave of all peers.
    pub fn drain(&mut self, reactor: &mut Reactor) {
        self.draining = true;
        for link in self.open.values_mut() {
            link.goodbye();
            link.flush(reactor);
        }
    }

    /// Sets gauges.
    pub fn observe(&self) {
        self.metrics.link_connections.set(self.open.len() as u64);
    }

    /// Whether the socket is one of ours.
    pub fn has(&self, socket: SocketId) -> bool {
        self.open.contains(socket)
    }

    fn handle_frame(
        &mut self,
        socket: SocketId,
        link: &mut Link,
        frame: Frame<'_>,
        parts: &mut Parts<'_>,
    ) -> Result<(), LinkError> {
        let Clock { steady_ms, wall_ms, .. } = self.clock;
        match &mut link.machine {
            Machine::AwaitHello => {
                let Frame::Hello(hello) = frame else {
                    return Err(LinkError::Unexpected(frame.frame_type()));
                };
                self.handle_hello(socket, link, hello, parts)
            }
            Machine::Dialling | Machine::Moving(_) => Err(LinkError::Unexpected(frame.frame_type())),
            Machine::Sending { sender, egress } => {
                let event = sender.handle_frame(frame, steady_ms, &mut link.out)?;
                let egress = egress.clone();
                self.handle_sender_event(socket, &egress, event, parts)
            }
            Machine::Receiving { receiver, .. } => {
                match receiver.handle_frame(frame, steady_ms, &mut link.out)? {
                    ReceiverEvent::None | ReceiverEvent::Goodbye(_) => Ok(()),
                    ReceiverEvent::PeerHello(hello) => self.begin_receiving(socket, link, &hello, parts),
                    ReceiverEvent::Batch(batch) => {
                        let mut checked = Vec::with_capacity(batch.count());
                        receiver.open_batch(
                            &Counted(&self.metrics.hmac_batch_messages.link_receive),
                            &batch,
                            wall_ms,
                            &mut checked,
                        )?;
                        Self::take_events(socket, link, &checked, parts);
                        Ok(())
                    }
                }
            }
        }
    }

    /// A peer that dialled us said who it is.
    fn handle_hello(
        &mut self,
        socket: SocketId,
        link: &mut Link,
        hello: Hello,
        parts: &mut Parts<'_>,
    ) -> Result<(), LinkError> {
        let peer = link.peer();
        match (link.side, hello.role) {
            (Side::Ingester, Role::Receiver) => {
                if hello.stream >= self.mesh.workers() {
                    return Err(LinkError::Stream);
                }
                if hello.stream == self.worker {
                    return self.begin_sending(link, &hello, peer.as_ref(), parts);
                }
                link.machine = Machine::Moving(hello);
                parts.reactor.detach(socket);
                Ok(())
            }
            (Side::Egress, Role::Sender) => {
                let snapshot = Arc::clone(&self.snapshot);
                let known = ingester_peer(&snapshot, &hello.node)
                    .filter(|known| admits(&known.policy, peer.as_ref()));
                let config = self.receiver_config(known.ok_or(LinkError::NodeName)?, hello.stream);
                self.take_place(link)?;
                let receiver = Receiver::accept(config, &hello, self.clock.steady_ms, &mut link.out)?;
                let receiver = Box::new(receiver);
                link.machine = Machine::Receiving {
                    receiver,
                    ingester: hello.node.clone(),
                    stream: None,
                    durable: 0,
                    owed: (0, 0),
                };
                self.begin_receiving(socket, link, &hello, parts)
            }
            _ => Err(LinkError::Role),
        }
    }

    /// Logs why a link ends; events that are refused again and again are an alarm once a minute.
    fn tell(&mut self, error: &LinkError) {
        let alarm = match error {
            LinkError::Stale => REFUSED,
            LinkError::Refused(refuse) if refuse.code == RefuseCode::Authentication => REFUSED,
            LinkError::ResumeAhead => AHEAD,
            LinkError::TooManyStreams => STREAMS,
            _ => {
                tracing::warn!(%error, "a link is closed");
                return;
            }
        };
        if self.clock.steady_ms >= self.alarm_at_ms {
            self.alarm_at_ms = self.clock.steady_ms + ALARM_EVERY_MS;
            tracing::error!(%error, "{alarm}");
        }
    }

    fn close(&mut self, socket: SocketId, reason: &'static str, reactor: &mut Reactor) {
        let Some(link) = self.open.remove(socket) else { return };
        if let Machine::Receiving { receiver, .. } = &link.machine {
            self.metrics.duplicates.add(receiver.duplicates());
            self.closed.push(socket);
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is(socket)) {
            slot.handle_lost(self.clock.steady_ms);
        }
        self.metrics.link_errors.add(reason);
        tracing::debug!(reason, "link closed");
        reactor.close(socket);
    }

    /// A link that is to carry events needs one of the node's places.
    fn take_place(&self, link: &mut Link) -> Result<(), LinkError> {
        link.place = self.places.take(self.snapshot.node.links_max);
        if link.place.is_some() { Ok(()) } else { Err(LinkError::Busy) }
    }
}
