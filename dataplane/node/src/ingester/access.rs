//! Who may try, and how often, as a connection meets it: first bytes, head and verified request enter,
//! refusals leave.
//!
//! Rates are of the node: all workers share three tables of [`SHARDS`] parts, each locked for one step.
//! Unverified requests are charged to buckets of their own when they fail, so that they cannot take anything
//! of the quota of verified ones.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use zen_core::access::{
    HeaderVerdict, NetworkVerdict, Origin, ProxyHeader, ProxyHeaderError, Rate, RateHasher, RateKey,
    RateTable, check_headers, forwarded_client,
};
use zen_core::hops::received_hops;
use zen_core::http1::{RequestHead, Status};
use zen_core::verify::ShownCertificate;
use zen_identity::SpiffeId;

use super::Ingester;
use super::refused::Refused;
use super::source::View;
use crate::config::{Endpoint, ProxyProtocol, ProxySettings, SourceCertificates};
use crate::entropy::Entropy;
use crate::metrics::WorkerMetrics;
use crate::tls::{Tls, TlsError};

/// Parts of a table, so that workers meet rarely.
const SHARDS: usize = 16;
/// Endpoints whose rates are remembered.
pub const RATE_ENDPOINTS_MAX: usize = 16_384;
/// Tables with an entry for each source: verified and unverified requests.
pub const SOURCE_TABLES: usize = 2;
/// A rule that only logs says so at most this often.
const WARN_INTERVAL_MS: u64 = 60_000;

/// Why a connection cannot go on, before any request.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What a proxy says first.
    #[error(transparent)]
    Proxy(#[from] ProxyHeaderError),
}

impl ConnectionError {
    /// The metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls",
            Self::Proxy(_) => "proxy",
        }
    }
}

/// Who is at the other end of a connection.
pub struct Client {
    /// The peer, or whom a PROXY header names.
    address: IpAddr,
    way: Way,
    certificate: Option<Box<Certificate>>,
}

/// How the client came here.
enum Way {
    /// By itself, or a PROXY header has said who it is.
    Known,
    /// By a proxy whose header is not whole yet.
    Announced(Box<ProxyHeader>),
    /// By a proxy that says in each request who it is for.
    Forwarded(Arc<ProxySettings>),
}

/// What the client has shown in its handshake.
struct Certificate {
    spiffe_id: Option<SpiffeId>,
    dns_names: Vec<String>,
    not_after_ms: u64,
}

impl Client {
    /// A connection from `peer`, just accepted. Only from a proxy's network is a proxy's word listened to.
    pub fn new(peer: IpAddr, proxies: Option<&Arc<ProxySettings>>) -> Self {
        let way = match proxies.filter(|proxies| proxies.networks.contains(peer)) {
            None => Way::Known,
            Some(proxies) => match proxies.protocol {
                ProxyProtocol::ProxyV2 => Way::Announced(Box::default()),
                ProxyProtocol::XForwardedFor => Way::Forwarded(Arc::clone(proxies)),
            },
        };
        Self { address: peer.to_canonical(), way, certificate: None }
    }

    /// Takes what is not TLS off a connection's first bytes.
    pub fn handle_bytes(&mut self, bytes: &mut &[u8]) -> Result<(), ProxyHeaderError> {
        let Way::Announced(header) = &mut self.way else { return Ok(()) };
        let Some(origin) = header.handle_bytes(bytes)? else { return Ok(()) };
        if let Origin::Client(address) = origin {
            self.address = address;
        }
        self.way = Way::Known;
        Ok(())
    }

    /// The address behind a request.
    fn address(&self, head: &RequestHead) -> Result<IpAddr, Refused> {
        let Way::Forwarded(proxies) = &self.way else { return Ok(self.address) };
        let named = head.headers().filter(|header| header.0.eq_ignore_ascii_case("x-forwarded-for"));
        let lines: Vec<&str> = named.map(|header| header.1).collect();
        forwarded_client(&lines, &proxies.networks, proxies.hops)
            .map_err(|error| Refused::new(Status::BadRequest400, "proxy", error.to_string()))
    }

    /// What an endpoint that wants a certificate sees of this connection's.
    pub fn shown(
        &mut self,
        tls: &Tls,
        wanted: Option<&SourceCertificates>,
        wall_ms: u64,
    ) -> ShownCertificate {
        let Some(wanted) = wanted else { return ShownCertificate::None };
        let Some(not_after_ms) = tls.peer_not_after_ms() else { return ShownCertificate::None };
        let read = || {
            Box::new(Certificate { spiffe_id: tls.peer_id(), dns_names: tls.peer_dns_names(), not_after_ms })
        };
        let shown = self.certificate.get_or_insert_with(read);
        if wall_ms > shown.not_after_ms {
            return ShownCertificate::Expired;
        }
        let any = wanted.spiffe_ids.is_empty() && wanted.dns_names.is_empty();
        let id =
            || shown.spiffe_id.as_ref().is_some_and(|id| wanted.spiffe_ids.iter().any(|one| one.matches(id)));
        let name = || shown.dns_names.iter().any(|name| wanted.dns_names.contains(name));
        if any || id() || name() { ShownCertificate::Allowed } else { ShownCertificate::Other }
    }
}

/// What a request owes if it turns out not to be verified.
#[derive(Debug)]
pub struct Charge {
    key: RateKey,
    rate: Rate,
}

/// What the head of a request has come to.
pub struct Admitted {
    /// The client's address.
    pub address: IpAddr,
    /// To be paid if the request is not verified.
    pub charge: Option<Charge>,
}

/// Whether a request may go on to its proofs: by its address, and by how many from there failed before.
pub fn admit(
    client: &Client,
    head: &RequestHead,
    endpoint: &Endpoint,
    ingester: &Ingester,
) -> Result<Admitted, Refused> {
    let address = client.address(head)?;
    match endpoint.networks.check(address) {
        NetworkVerdict::Passed => {}
        NetworkVerdict::Observed => ingester.metrics().requests_observed.add("network"),
        NetworkVerdict::Refused => {
            let detail = "the endpoint does not take requests from this address";
            return Err(Refused::new(Status::Forbidden403, "network", detail));
        }
    }
    let Some(rate) = endpoint.rates.unverified else { return Ok(Admitted { address, charge: None }) };
    let key = ingester.access().hasher.key(endpoint.id, Some(address.into()));
    ingester
        .access()
        .unverified()
        .poll_token(key, rate, ingester.steady_us())
        .map_err(|wait_us| Refused::rate("unverified_rate", wait_us))?;
    Ok(Admitted { address, charge: Some(Charge { key, rate }) })
}

/// What a verified request says of its event beside what its endpoint forwards.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'e> {
    /// Nodes that it has passed.
    pub hops: u8,
    /// The header whose rule holds it back.
    pub quarantine: Option<&'e str>,
}

/// Whether a verified request may be an event: by its headers, and by how many there were before.
pub fn check_verified<'e>(
    address: IpAddr,
    head: &RequestHead,
    endpoint: &'e Endpoint,
    ingester: &Ingester,
) -> Result<Marks<'e>, Refused> {
    let mut marks = Marks { hops: check_hops(head, endpoint)?, quarantine: None };
    match check_headers(&endpoint.header_rules, &View(head)) {
        HeaderVerdict::Passed => {}
        HeaderVerdict::Logged => {
            ingester.metrics().requests_observed.add("header");
            ingester.access().warn_logged(endpoint, ingester.steady_us() / 1000);
        }
        HeaderVerdict::Quarantined(header) => marks.quarantine = Some(header),
        HeaderVerdict::Rejected => {
            let detail = "a header is missing, or not what the endpoint takes";
            return Err(Refused::new(Status::Forbidden403, "header", detail).and_stays());
        }
    }
    let (access, metrics, now_us) = (ingester.access(), ingester.metrics(), ingester.steady_us());
    if let Some(rate) = endpoint.rates.source {
        let key = access.hasher.key(endpoint.id, Some(address.into()));
        let taken = access.sources().handle_request(key, rate, now_us, metrics);
        taken.map_err(|wait_us| Refused::rate("source_rate", wait_us).and_stays())?;
    }
    if let Some(rate) = endpoint.rates.endpoint {
        let key = access.hasher.key(endpoint.id, None);
        let taken = access.endpoints().handle_request(key, rate, now_us, metrics);
        taken.map_err(|wait_us| Refused::rate("endpoint_rate", wait_us).and_stays())?;
    }
    Ok(marks)
}

/// An event that came here too often goes round in circles.
fn check_hops(head: &RequestHead, endpoint: &Endpoint) -> Result<u8, Refused> {
    let hops = received_hops(&View(head)).map_err(|error| {
        Refused::new(Status::BadRequest400, "malformed_hops", error.to_string()).and_stays()
    })?;
    if hops > endpoint.hops_max {
        let detail = "the event has passed more nodes than the endpoint allows; do its targets send it back?";
        return Err(Refused::new(Status::LoopDetected508, "loop", detail).and_stays());
    }
    Ok(hops)
}

/// What all workers share: buckets of endpoints and sources, taken in memory when a rate first needs them.
pub struct Access {
    hasher: RateHasher,
    sources_max: usize,
    endpoints: OnceLock<Shards>,
    sources: OnceLock<Shards>,
    unverified: OnceLock<Shards>,
    warned_at_ms: AtomicU64,
}

impl Access {
    /// Room for `sources_max` sources in each table.
    pub fn new(sources_max: usize) -> Self {
        Self {
            hasher: RateHasher::new(Entropy::default().bytes()),
            sources_max,
            endpoints: OnceLock::new(),
            sources: OnceLock::new(),
            unverified: OnceLock::new(),
            warned_at_ms: AtomicU64::new(0),
        }
    }

    /// A request was not verified.
    pub fn handle_unverified(&self, charge: &Charge, now_us: u64, metrics: &WorkerMetrics) {
        self.unverified().handle_debt(charge.key, charge.rate, now_us, metrics);
    }

    fn endpoints(&self) -> &Shards {
        self.endpoints.get_or_init(|| Shards::new(RATE_ENDPOINTS_MAX))
    }

    fn sources(&self) -> &Shards {
        self.sources.get_or_init(|| Shards::new(self.sources_max))
    }

    fn unverified(&self) -> &Shards {
        self.unverified.get_or_init(|| Shards::new(self.sources_max))
    }

    /// Once a minute for the whole node, whatever the rules see.
    fn warn_logged(&self, endpoint: &Endpoint, steady_ms: u64) {
        let due = |at_ms| (steady_ms >= at_ms).then_some(steady_ms + WARN_INTERVAL_MS);
        if self.warned_at_ms.fetch_update(Ordering::AcqRel, Ordering::Acquire, due).is_ok() {
            tracing::warn!(endpoint = %endpoint.id, "a request breaks a header rule whose action is log; it was taken");
        }
    }
}

/// One table in parts.
struct Shards([Mutex<RateTable>; SHARDS]);

impl Shards {
    fn new(buckets: usize) -> Self {
        Self(std::array::from_fn(|_| Mutex::new(RateTable::new(buckets.div_ceil(SHARDS)))))
    }

    fn poll_token(&self, key: RateKey, rate: Rate, now_us: u64) -> Result<(), u64> {
        self.with(key, |table| table.poll_token(key, rate, now_us))
    }

    fn handle_request(
        &self,
        key: RateKey,
        rate: Rate,
        now_us: u64,
        metrics: &WorkerMetrics,
    ) -> Result<(), u64> {
        self.counted(key, metrics, |table| table.handle_request(key, rate, now_us))
    }

    fn handle_debt(&self, key: RateKey, rate: Rate, now_us: u64, metrics: &WorkerMetrics) {
        self.counted(key, metrics, |table| table.handle_debt(key, rate, now_us));
    }

    fn counted<T>(&self, key: RateKey, metrics: &WorkerMetrics, step: impl FnOnce(&mut RateTable) -> T) -> T {
        self.with(key, |table| {
            let before = table.evicted();
            let result = step(table);
            metrics.rate_sources_evicted.add(table.evicted() - before);
            result
        })
    }

    fn with<T>(&self, key: RateKey, step: impl FnOnce(&mut RateTable) -> T) -> T {
        step(&mut self.0[key.shard(SHARDS)].lock().unwrap_or_else(PoisonError::into_inner))
    }
}
