//! The options of `load`, and what they come to: a [`Plan`], checked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use zen_uring::Io;

use super::arrivals::Arrivals;
use super::connection::Reuse;
use super::draw::Draw;
use super::plan::{Pace, Plan};
use super::requests::Catalogue;
use super::tickets::Tickets;
use super::wire::HOST;
use crate::error::LabError;
use crate::lab::read_json;
use crate::random::system_seed;
use crate::samples::{Endpoint, Samples, SchemeName, Sizes};
use crate::signature::secret_bytes;
use crate::tls::{KeyExchange, client_config};

/// Most connections; as many sockets a process may well be allowed.
const CONNECTIONS_MAX: u32 = 100_000;
/// Fastest schedule, per second: a gap of 100 ns.
const RATE_MAX: f64 = 10_000_000.0;
/// Longest span or warm-up, a day.
const SECONDS_MAX: f64 = 86_400.0;
/// Smallest body that has its id, and the largest that a node takes.
const SIZES: std::ops::RangeInclusive<usize> = 66..=1_048_576;

/// Options of `load`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Options {
    /// The server, as IP:PORT; its certificate must name localhost.
    #[arg(long)]
    pub(super) address: SocketAddr,
    /// CA of its certificate, PEM.
    #[arg(long, required_unless_present = "plain")]
    pub(super) ca: Option<PathBuf>,
    /// JSON list of endpoints: id, scheme, secret (a lab has one as `endpoints.json`).
    #[arg(long, required_unless_present = "get")]
    pub(super) endpoints: Option<PathBuf>,
    /// Only these of them, by id.
    #[arg(long, value_delimiter = ',')]
    pub(super) only: Vec<String>,
    /// Connections at once, each with one request on the way.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    pub(super) connections: u32,
    /// A connection of its own for each event.
    #[arg(long)]
    pub(super) new_connections: bool,
    /// A full handshake for each connection.
    #[arg(long)]
    pub(super) no_resumption: bool,
    /// Key exchanges to offer: what every peer has, or post-quantum first.
    #[arg(long, default_value = "default")]
    pub(super) key_exchange: Exchange,
    /// Events per second on a schedule that waits for no answer (open loop); without it, each connection sends
    /// when it has its answer (closed loop).
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// How arrivals are spread: poisson, uniform, or burst:N.
    #[arg(long, default_value = "poisson", requires = "rate")]
    pub(super) arrivals: Arrivals,
    /// Length of the measured span, seconds.
    #[arg(long)]
    pub(super) seconds: f64,
    /// Length of the same load before it, which does not count, seconds.
    #[arg(long, default_value_t = 1.0)]
    pub(super) warm_up_seconds: f64,
    /// End the span after so many.
    #[arg(long)]
    pub(super) events_max: Option<u64>,
    /// Bytes of each body [default: 1024].
    #[arg(long, conflicts_with = "mix")]
    pub(super) size: Option<usize>,
    /// Bodies of many sizes: those of GitHub's events, median 8 KB, largest 26 KB.
    #[arg(long)]
    pub(super) mix: Option<Mix>,
    /// Share of sendings that are of an event accepted before, percent.
    #[arg(long, default_value_t = 0.0)]
    pub(super) duplicates: f64,
    /// Share of sendings with a wrong signature, percent.
    #[arg(long, default_value_t = 0.0)]
    pub(super) bad_signatures: f64,
    /// Share of sendings that are no HTTP, percent.
    #[arg(long, default_value_t = 0.0)]
    pub(super) junk: f64,
    /// Run on this core and no other.
    #[arg(long)]
    pub(super) core: Option<usize>,
    /// Write the result here.
    #[arg(long)]
    pub(super) json: Option<PathBuf>,
    /// Write a log of `HdrHistogram`s of the latencies here, an interval a second, µs.
    #[arg(long)]
    pub(super) hdr: Option<PathBuf>,
    /// Write a line for each event that was accepted, also before the span: number, event id, SHA-256 of the body.
    #[arg(long)]
    pub(super) record: Option<PathBuf>,
    /// Say on standard output when each phase begins.
    #[arg(long)]
    pub(super) phases: bool,
    /// No line of progress each second.
    #[arg(long)]
    pub(super) quiet: bool,
    /// Makes arrivals, shares and ids those of an earlier run; a server that knows the ids calls them duplicates.
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// What drives the sockets: auto, uring or epoll.
    #[arg(long, default_value = "auto")]
    pub(super) io: Io,
    /// No TLS: for the check against another generator alone.
    #[arg(long, hide = true)]
    pub(super) plain: bool,
    /// Get this path instead of sending events.
    #[arg(long, hide = true, conflicts_with_all = ["endpoints", "record", "duplicates", "bad_signatures"])]
    pub(super) get: Option<String>,
}

/// Values of `--key-exchange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Exchange {
    /// X25519 alone.
    X25519,
    /// Post-quantum first.
    Default,
}

/// Values of `--mix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mix {
    /// As GitHub sends them.
    #[value(name = "github")]
    GitHub,
}

impl Options {
    /// Checks all of it, and reads the files.
    pub(super) fn plan(&self) -> Result<Plan, LabError> {
        let seed = self.seed.unwrap_or_else(system_seed);
        let seconds = |what: &str, least: f64, value: f64| {
            let is_good = (least..=SECONDS_MAX).contains(&value);
            is_good.then(|| Duration::from_secs_f64(value)).ok_or_else(|| {
                refused(what, format!("must be from {least} to {SECONDS_MAX} seconds, not {value}"))
            })
        };
        let draw = Draw::new(seed, self.duplicates, self.bad_signatures, self.junk).ok_or_else(|| {
            refused(
                "--duplicates, --bad-signatures and --junk",
                "are shares in percent, together at most 100".to_owned(),
            )
        })?;
        Ok(Plan {
            address: self.address,
            tls: self.tls()?,
            catalogue: self.endpoints.as_deref().map(|path| self.catalogue(path, seed)).transpose()?,
            raw: self.get.as_deref().map(get).unwrap_or_default(),
            connections: self.connections,
            reuse: if self.new_connections { Reuse::Once } else { Reuse::KeepAlive },
            pace: self.pace()?,
            warm_up: seconds("--warm-up-seconds", 0.0, self.warm_up_seconds)?,
            length: seconds("--seconds", 0.001, self.seconds)?,
            events_max: self.events_max,
            draw,
            seed,
            io: self.io,
            keeps_seconds: self.hdr.is_some(),
            says_phases: self.phases,
            shows_progress: !self.quiet,
            command: command(),
        })
    }

    fn pace(&self) -> Result<Option<Pace>, LabError> {
        let Some(rate_per_s) = self.rate else { return Ok(None) };
        if !(rate_per_s > 0.0 && rate_per_s <= RATE_MAX) {
            return Err(refused(
                "--rate",
                format!("must be above 0 and at most {RATE_MAX}, not {rate_per_s}"),
            ));
        }
        Ok(Some(Pace { rate_per_s, arrivals: self.arrivals }))
    }

    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, LabError> {
        let (Some(ca), false) = (&self.ca, self.plain) else { return Ok(None) };
        let exchange = match self.key_exchange {
            Exchange::X25519 => KeyExchange::X25519,
            Exchange::Default => KeyExchange::All,
        };
        let mut config = client_config(ca, None, exchange)?;
        Arc::make_mut(&mut config).resumption = if self.no_resumption {
            Resumption::disabled()
        } else {
            Resumption::store(Arc::new(Tickets::default()))
        };
        Ok(Some(config))
    }

    fn catalogue(&self, path: &Path, seed: u64) -> Result<Catalogue, LabError> {
        let mut endpoints: Vec<Endpoint> = read_json(path)?;
        for id in &self.only {
            if !endpoints.iter().any(|endpoint| endpoint.id == *id) {
                return Err(refused("--only", format!("{id} is no endpoint of {}", path.display())));
            }
        }
        endpoints.retain(|endpoint| self.only.is_empty() || self.only.contains(&endpoint.id));
        if endpoints.is_empty() {
            return Err(refused("--endpoints", format!("{} has no endpoint", path.display())));
        }
        for endpoint in &endpoints {
            let is_bad =
                endpoint.scheme == SchemeName::StandardWebhooks && secret_bytes(&endpoint.secret).is_none();
            if is_bad {
                return Err(refused(
                    "--endpoints",
                    format!("the secret of {} is not whsec_ and base64", endpoint.id),
                ));
            }
        }
        let bytes = self.size.unwrap_or(1024);
        if !SIZES.contains(&bytes) {
            return Err(refused(
                "--size",
                format!("must be from {} to {} bytes", SIZES.start(), SIZES.end()),
            ));
        }
        let sizes = if self.mix == Some(Mix::GitHub) { Sizes::GitHub } else { Sizes::Fixed(bytes) };
        Ok(Catalogue::new(&endpoints, &Samples::new(sizes)?, seed))
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes()
}

/// How this process was called.
fn command() -> String {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    format!("zen-perf {}", words.join(" "))
}

fn refused(what: &str, reason: String) -> LabError {
    LabError::Tool { what: what.to_owned(), reason }
}
