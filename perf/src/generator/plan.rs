//! A load, checked and ready: what the client needs to know, and nothing of the command line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use zen_uring::Io;

use super::arrivals::Arrivals;
use super::connection::Reuse;
use super::draw::Draw;
use super::requests::Catalogue;

/// What to send, where, and for how long.
pub(super) struct Plan {
    /// The server.
    pub(super) address: SocketAddr,
    /// Its TLS; plain without.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The events.
    pub(super) catalogue: Option<Catalogue>,
    /// What is sent if there are none.
    pub(super) raw: Vec<u8>,
    /// Connections at once.
    pub(super) connections: u32,
    /// How many requests each carries.
    pub(super) reuse: Reuse,
    /// The schedule of an open loop.
    pub(super) pace: Option<Pace>,
    /// Load before the span.
    pub(super) warm_up: Duration,
    /// The span.
    pub(super) length: Duration,
    /// It ends after so many.
    pub(super) events_max: Option<u64>,
    /// What each sending is.
    pub(super) draw: Draw,
    /// Of arrivals, shares and ids.
    pub(super) seed: u64,
    /// What drives the sockets.
    pub(super) io: Io,
    /// Whether latencies are kept second by second.
    pub(super) keeps_seconds: bool,
    /// Whether phases are announced.
    pub(super) says_phases: bool,
    /// Whether there is a line each second.
    pub(super) shows_progress: bool,
    /// How the program was called.
    pub(super) command: String,
}

/// When events are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Events per second.
    pub(super) rate_per_s: f64,
    /// How they are spread.
    pub(super) arrivals: Arrivals,
}
