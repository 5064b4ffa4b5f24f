//! Systems that do the same work as the mesh, or part of it, as their own experts would configure them.
//!
//! In: a lab, and how many hops. Out: processes that listen where the lab's nodes would, the last hop delivering to
//! the lab's target. Their configuration is in `perf/peers/`; [`mod@check`] shows that each does what its row claims.

mod baseline;
mod check;
mod command;
mod durable;
mod haproxy;
mod hop;
mod nginx;
mod template;
mod version;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

pub(crate) use self::check::check;
pub(crate) use self::command::{Options, run};
use crate::error::LabError;
use crate::lab::{Lab, Process};
use crate::samples::{Endpoint, SchemeName};
use crate::tls::KeyExchange;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A system beside the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// HAProxy of Debian, with its `hmac` converter.
    #[value(name = "haproxy")]
    HaProxy,
    /// nginx of Debian, which has no HMAC.
    Nginx,
    /// The same with HMACs in Lua.
    NginxLua,
    /// Our own ingest hop on plain tokio.
    Tokio,
    /// The same on tokio-uring with its default flags.
    TokioUring,
    /// The same with `COOP_TASKRUN`.
    TokioUringCoop,
}

/// How a peer is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Threads of each hop, one for each core that it may use.
    pub(crate) threads: u32,
    /// What sources may agree on.
    pub(crate) key_exchange: KeyExchange,
    /// How many hops.
    pub(crate) hops: Hops,
}

/// How far an event goes through peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hops {
    /// One hop, straight to the target.
    Ingest,
    /// Two hops.
    Both,
}

impl Peer {
    /// As tables and plots show it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::NginxLua => "nginx with Lua",
            Self::Tokio => "tokio",
            Self::TokioUring => "tokio-uring",
            Self::TokioUringCoop => "tokio-uring, COOP_TASKRUN",
        }
    }

    /// What it does not do of the mesh's work.
    pub(crate) fn lacks(self) -> &'static [&'static str] {
        match self {
            Self::HaProxy | Self::NginxLua => &["durability", "dedupe", "retry"],
            Self::Nginx => &["signature check", "signing", "durability", "dedupe", "retry"],
            Self::Tokio | Self::TokioUring | Self::TokioUringCoop => {
                &["dedupe across restarts", "signing", "link", "delivery", "retry"]
            }
        }
    }

    /// How many hops it can have.
    pub(crate) fn hops(self) -> usize {
        if self.is_baseline() { 1 } else { 2 }
    }

    /// The longest body that it hashes, or keeps in memory.
    pub(crate) fn body_bytes_max(self) -> usize {
        match self {
            Self::HaProxy => haproxy::BODY_BYTES_MAX,
            Self::Nginx | Self::NginxLua => nginx::BODY_BYTES_MAX,
            Self::Tokio | Self::TokioUring | Self::TokioUringCoop => baseline::BODY_BYTES_MAX,
        }
    }

    /// Its version, as `nginx 1.22.1`; an error that says what to install if it cannot run here.
    pub(crate) fn check_installed(self) -> Result<String, LabError> {
        match self {
            Self::HaProxy => haproxy::check_installed(),
            Self::Nginx | Self::NginxLua => nginx::check_installed(self),
            Self::Tokio | Self::TokioUring | Self::TokioUringCoop => baseline::check_installed(),
        }
    }

    /// Whether it refuses what is not signed as it should be.
    fn checks_signatures(self) -> bool {
        self != Self::Nginx
    }

    /// The status of an event that it takes: a proxy hands on what the target says.
    fn accepts(self) -> u16 {
        if self.is_baseline() { 202 } else { 200 }
    }

    /// Whether it is a hop of our own, which keeps what it takes and sends nothing on.
    fn is_baseline(self) -> bool {
        matches!(self, Self::Tokio | Self::TokioUring | Self::TokioUringCoop)
    }
}

/// Starts a peer and waits until it listens: the first hop's processes, then the second's. Call it on the main thread.
pub(crate) async fn start(peer: Peer, lab: &Lab, settings: &Settings) -> Result<Vec<Process>, LabError> {
    peer.check_installed()?;
    if peer.is_baseline() && settings.hops == Hops::Both {
        return Err(LabError::Unequal(format!("{} is an ingest hop: it has no second one", peer.label())));
    }
    for address in listeners(lab, settings.hops) {
        check_free(address)?;
    }
    let mut processes = match peer {
        Peer::HaProxy => haproxy::start(lab, *settings)?,
        Peer::Nginx | Peer::NginxLua => nginx::start(peer, lab, *settings)?,
        Peer::Tokio | Peer::TokioUring | Peer::TokioUringCoop => vec![baseline::start(peer, lab, *settings)?],
    };
    for address in listeners(lab, settings.hops) {
        await_listening(address, &mut processes).await?;
    }
    Ok(processes)
}

/// The endpoint whose scheme is an HMAC of the body in a header, which all of them can check.
pub(crate) fn endpoint(lab: &Lab) -> Endpoint {
    let found = lab.endpoints.iter().find(|endpoint| endpoint.scheme == SchemeName::Hmac);
    found.expect("the lab has an endpoint of each scheme").clone()
}

fn listeners(lab: &Lab, hops: Hops) -> Vec<SocketAddr> {
    match hops {
        Hops::Ingest => vec![lab.public],
        Hops::Both => vec![lab.public, hop::second(lab)],
    }
}

/// Peers may share a port that is in use, and would then have half of its connections.
fn check_free(address: SocketAddr) -> Result<(), LabError> {
    let free = std::net::TcpListener::bind(address).map(drop);
    free.map_err(|source| LabError::Tool {
        what: format!("port {} of {}", address.port(), address.ip()),
        reason: format!("{source}; stop what listens there (`ss -ltnp`), or name another lab with --dir"),
    })
}

async fn await_listening(address: SocketAddr, processes: &mut [Process]) -> Result<(), LabError> {
    let begun = Instant::now();
    while begun.elapsed() < READY_TIMEOUT {
        for process in &mut *processes {
            process.check()?;
        }
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(processes[0].not_ready())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_remedy() {
        let address = zen_ports::free_address();
        let listener = std::net::TcpListener::bind(address).unwrap();
        let words = check_free(address).unwrap_err().to_string();
        assert!(words.contains(&format!("port {} of 127.0.0.1", address.port())), "{words}");
        assert!(words.contains("stop what listens there"), "{words}");
        drop(listener);
        check_free(address).unwrap();
    }
}
