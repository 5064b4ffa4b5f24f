//! A hand-driven end of a link: real mutual TLS and frames, but what is said is up to the test.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, Connection, ServerConnection};
use zen_core::event::Event;
use zen_core::link::{
    Ack, FRAME_BYTES_MAX, Frame, GoodbyeReason, Hello, Outgoing, Refuse, Sender, SenderConfig, SenderEvent,
    Start, parse_frame,
};
use zen_hmac::PreparedKey;
use zen_identity::{
    Policy, PrivateKeySource, SharedPolicy, SpiffePattern, SvidFiles, SvidStore, TrustDomain,
};

use crate::support::Lab;
use crate::support::pki::TRUST_DOMAIN;
use crate::target::{TestCrypto, unix_ms};

const ALPN: &[u8] = b"zen-link/1";
/// A node that says nothing for this long says nothing at all.
const SILENCE: Duration = Duration::from_secs(10);

/// Who the peer is.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// PEM chain.
    pub certificate: PathBuf,
    /// PEM key, mode 0600.
    pub key: PathBuf,
    /// PEM roots.
    pub bundle: PathBuf,
}

/// What a node said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its hello.
    Hello(Hello),
    /// Why it closes.
    Refuse(Refuse),
    /// Ready for batches.
    Start(Start),
    /// A batch, as the bytes of its frame.
    Batch(usize),
    /// Progress.
    Ack(Ack),
    /// A ping or a pong.
    Alive,
    /// Its leave.
    Goodbye(GoodbyeReason),
    /// It closed, or nothing whole came.
    Closed,
}

/// One connection to or from a node.
pub struct Peer {
    tls: Connection,
    socket: TcpStream,
    buffered: Vec<u8>,
}

impl Peer {
    /// Dials a node's link listener and completes TLS.
    pub fn dial(address: SocketAddr, identity: &PeerIdentity) -> std::io::Result<Self> {
        let config = identity.store().client_config(everybody(), &[ALPN]).unwrap();
        let tls = ClientConnection::new(config, zen_identity::spiffe_server_name()).unwrap();
        Self::begin(tls.into(), TcpStream::connect(address)?)
    }

    /// Takes the next connection of a node that dials.
    pub fn accept(listener: &TcpListener, identity: &PeerIdentity) -> std::io::Result<Self> {
        let config = identity.store().server_config(everybody(), &[ALPN]).unwrap();
        Self::begin(ServerConnection::new(config).unwrap().into(), listener.accept()?.0)
    }

    fn begin(mut tls: Connection, mut socket: TcpStream) -> std::io::Result<Self> {
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_nodelay(true)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self { tls, socket, buffered: Vec::new() })
    }

    /// Waits longer or shorter than usual for what the node says.
    pub fn patience(&mut self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends bytes, whatever they are; a connection that is gone shows with the next [`Peer::hear`].
    pub fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("rustls buffers what a test says");
        while self.tls.wants_write() && self.tls.write_tls(&mut self.socket).is_ok() {}
    }

    /// The bytes of the next frame; none when the connection ended.
    pub fn hear_bytes(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((_, size)) = parse_frame(&self.buffered, FRAME_BYTES_MAX).ok()? {
                return Some(self.buffered.drain(..size).collect());
            }
            let mut piece = [0; 16 * 1024];
            match self.tls.reader().read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.buffered.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.tls.read_tls(&mut self.socket).ok()? == 0 {
                        return None;
                    }
                    self.tls.process_new_packets().ok()?;
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame.
    pub fn hear(&mut self) -> Said {
        let Some(bytes) = self.hear_bytes() else { return Said::Closed };
        match frame_of(&bytes) {
            Frame::Hello(hello) => Said::Hello(hello),
            Frame::Refuse(refuse) => Said::Refuse(refuse),
            Frame::Start(start) => Said::Start(start),
            Frame::Batch(batch) => Said::Batch(batch.count()),
            Frame::Ack(ack) => Said::Ack(ack),
            Frame::Ping(_) | Frame::Pong(_) => Said::Alive,
            Frame::Goodbye(reason) => Said::Goodbye(reason),
        }
    }

    /// Hears until the node refuses or closes; what it refused with.
    pub fn hear_refusal(&mut self) -> Option<Refuse> {
        loop {
            match self.hear() {
                Said::Refuse(refuse) => return Some(refuse),
                Said::Closed => return None,
                _ => {}
            }
        }
    }

    /// Hears until everything up to `sequence` is acknowledged.
    pub fn hear_ack(&mut self, sequence: u64) {
        loop {
            match self.hear() {
                Said::Ack(ack) if ack.durable >= sequence => return,
                Said::Ack(_) | Said::Alive => {}
                other => panic!("{other:?} instead of an acknowledgement"),
            }
        }
    }

    /// Speaks as an ingester that dialled until batches may be sent; what the receiver resumes after.
    pub fn open_sender(&mut self, config: SenderConfig<PreparedKey>) -> (Sender<PreparedKey>, u64) {
        let mut out = Vec::new();
        let mut sender = Sender::dial(config, unix_ms(), &mut out);
        self.say(&out);
        loop {
            let bytes = self.hear_bytes().expect("the node answers a hello");
            out.clear();
            let event = sender.handle_frame(frame_of(&bytes), unix_ms(), &mut out).unwrap();
            self.say(&out);
            if let SenderEvent::Ready { resume_after } = event {
                return (sender, resume_after);
            }
        }
    }
}

/// One signed batch of one event, as the bytes of its frame.
pub fn batch(
    sender: &mut Sender<PreparedKey>,
    sequence: u64,
    targets: &[&str],
    event: &Event<'_>,
    time_ms: u64,
) -> Vec<u8> {
    let (mut encoded, mut out) = (Vec::new(), Vec::new());
    event.encode_head(&mut encoded).unwrap();
    encoded.extend_from_slice(event.body);
    let outgoing = Outgoing { sequence, targets, event: *event, encoded: &encoded };
    assert_eq!(sender.seal_batch(&TestCrypto, &[outgoing], time_ms, &mut out), 1);
    out
}

impl PeerIdentity {
    /// The SVID `pki/NAME.pem` of a lab.
    pub fn of(lab: &Lab, name: &str) -> Self {
        Self {
            certificate: lab.path(&format!("pki/{name}.pem")),
            key: lab.path(&format!("pki/{name}.key")),
            bundle: lab.path("pki/bundle.pem"),
        }
    }

    fn store(&self) -> Arc<SvidStore> {
        let files = SvidFiles {
            certificate_file: self.certificate.clone(),
            private_key: PrivateKeySource::File(self.key.clone()),
            trust_bundle_file: self.bundle.clone(),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        };
        SvidStore::load(files).unwrap()
    }
}

/// The node's policy is what is tested, not the peer's: it talks to any egress or ingester.
fn everybody() -> Arc<SharedPolicy> {
    let patterns = ["ingester", "egress"]
        .map(|role| SpiffePattern::parse(&format!("spiffe://{TRUST_DOMAIN}/{role}/*")).unwrap());
    SharedPolicy::new(Policy::new(patterns.to_vec(), Vec::new()))
}

fn frame_of(bytes: &[u8]) -> Frame<'_> {
    parse_frame(bytes, FRAME_BYTES_MAX).unwrap().expect("a whole frame").0
}
