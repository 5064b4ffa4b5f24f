//! Probes: a connection, and over TCP a handshake, to targets that an output does not use now, to know whether it could.
//!
//! A probe sends no request. It says goodbye after the handshake and waits for the peer's: a server that
//! does not take our certificate says so only then (RFC 8446 section 4.4.2.4).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use zen_core::access::{Protocol, ReachRules};
use zen_uring::{OpError, Reactor, SocketId};

use super::channel::Channel;
use crate::config::{Target, Transport};
use crate::sockets::BySocket;
use crate::stream::Stream;
use crate::tls::TlsError;

/// How long a probe may take.
const TIMEOUT_MS: u64 = 4_000;
/// A probe beside TLS, bytes.
pub const PROBE_BYTES: usize = 2 * size_of::<Probe>() + 4096;

/// What a probe is for.
struct Question {
    output: Arc<str>,
    target: Arc<Target>,
    deadline_ms: u64,
}

struct Probe {
    question: Question,
    stream: Option<Stream>,
}

/// What a probe found.
pub struct Finding {
    /// Who wanted to know.
    pub output: Arc<str>,
    /// Of whom.
    pub target: Arc<Target>,
    /// Whether it took our connection.
    pub works: bool,
}

/// A worker's probes.
pub struct Probes {
    open: BySocket<Probe>,
    /// Waiting for the address of a name.
    unresolved: Vec<Question>,
}

impl Probes {
    /// None.
    pub fn new() -> Self {
        Self { open: BySocket::new(), unresolved: Vec::new() }
    }

    /// Begins one; `true` if the target's host must be resolved first.
    pub fn start(
        &mut self,
        output: &Arc<str>,
        target: Arc<Target>,
        reactor: &mut Reactor,
        steady_ms: u64,
    ) -> bool {
        let question = Question { output: Arc::clone(output), target, deadline_ms: steady_ms + TIMEOUT_MS };
        if let Transport::Unix { path, .. } = &question.target.transport {
            let begun = reactor.connect_unix(path);
            self.take_dialled(question, begun);
            return false;
        }
        self.unresolved.push(question);
        true
    }

    /// The resolver's answer for a host, as far as policy allows it; without an address the probes run out of time.
    pub fn handle_resolved(
        &mut self,
        host: &str,
        addresses: &[IpAddr],
        reach: &ReachRules,
        reactor: &mut Reactor,
    ) {
        let Some(address) = addresses.first() else { return };
        for question in self
            .unresolved
            .extract_if(.., |question| question.target.address.host == host)
            .collect::<Vec<_>>()
        {
            let address = SocketAddr::new(*address, question.target.address.port);
            if reach.check(Protocol::Tcp, address.ip(), address.port()).is_ok() {
                let begun = reactor.connect(address);
                self.take_dialled(question, begun);
            }
        }
    }

    /// TCP is up, or not.
    pub fn handle_connected(
        &mut self,
        socket: SocketId,
        result: Result<(), std::io::Error>,
        reactor: &mut Reactor,
    ) -> Option<Finding> {
        let probe = self.open.get_mut(socket)?;
        let target = &probe.question.target;
        match result.ok().and_then(|()| Channel::start(target, socket, reactor).ok()) {
            None => self.end(socket, false, reactor),
            // There is no handshake whose end would say more.
            Some(Channel::Plain(_)) => self.end(socket, true, reactor),
            Some(Channel::Tls(mut stream)) => {
                stream.flush(reactor);
                probe.stream = Some(stream);
                None
            }
        }
    }

    /// Whether a socket is one of ours.
    pub fn contains(&self, socket: SocketId) -> bool {
        self.open.contains(socket)
    }

    /// Decrypts what came; a probed target has nothing to say beyond the handshake.
    pub fn decrypt(&mut self, socket: SocketId, bytes: &mut [u8]) -> Result<(), TlsError> {
        let stream = self.open.get_mut(socket).and_then(|probe| probe.stream.as_mut());
        stream.map_or(Ok(()), |stream| stream.handle_ciphertext(bytes, &mut Vec::new()))
    }

    /// Works on what [`Probes::decrypt`] came to.
    pub fn handle_received(
        &mut self,
        socket: SocketId,
        decrypted: Result<(), TlsError>,
        reactor: &mut Reactor,
    ) -> Option<Finding> {
        let stream = self.open.get_mut(socket)?.stream.as_mut()?;
        if decrypted.is_err() {
            return self.end(socket, false, reactor);
        }
        if stream.tls.peer_closed() {
            return self.handle_closed(socket, reactor);
        }
        if !stream.tls.is_handshaking() {
            stream.finish();
        }
        stream.flush(reactor);
        None
    }

    /// The target closed its side: after the handshake that is its answer to our goodbye.
    pub fn handle_closed(&mut self, socket: SocketId, reactor: &mut Reactor) -> Option<Finding> {
        let works = self.open.get_mut(socket)?.is_greeted();
        self.end(socket, works, reactor)
    }

    /// A send completed.
    pub fn handle_sent(
        &mut self,
        socket: SocketId,
        buffer: Vec<u8>,
        result: Result<(), std::io::Error>,
        reactor: &mut Reactor,
    ) -> Option<Finding> {
        let probe = self.open.get_mut(socket)?;
        if result.is_err() {
            return self.handle_closed(socket, reactor);
        }
        if let Some(stream) = &mut probe.stream {
            stream.handle_sent(buffer, reactor);
        }
        None
    }

    /// Ends what took too long; a target that only does not say goodbye works.
    pub fn handle_time(&mut self, steady_ms: u64, reactor: &mut Reactor) -> Vec<Finding> {
        let late = |question: &mut Question| steady_ms >= question.deadline_ms;
        let mut findings: Vec<Finding> =
            self.unresolved.extract_if(.., late).map(|question| question.found(false)).collect();
        for socket in self.open.sockets() {
            let probe = self.open.get_mut(socket).expect("listed just now");
            if steady_ms >= probe.question.deadline_ms {
                let works = probe.is_greeted();
                findings.extend(self.end(socket, works, reactor));
            }
        }
        findings
    }

    fn take_dialled(&mut self, question: Question, begun: Result<SocketId, OpError>) {
        // Without a socket nothing is learned of the target.
        if let Ok(socket) = begun {
            self.open.insert(socket, Probe { question, stream: None });
        }
    }

    fn end(&mut self, socket: SocketId, works: bool, reactor: &mut Reactor) -> Option<Finding> {
        let probe = self.open.remove(socket)?;
        reactor.close(socket);
        Some(probe.question.found(works))
    }
}

impl Question {
    fn found(self, works: bool) -> Finding {
        Finding { output: self.output, target: self.target, works }
    }
}

impl Probe {
    fn is_greeted(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| !stream.tls.is_handshaking())
    }
}
