//! The load client: keep-alive TLS 1.3 connections, each with one request on the way.
//!
//! In: endpoints, sizes, a rate or none. Out: what was accepted (event id and body digest) and how long
//! each 202 took. A 429, a 503 or a lost connection is tried again, with the same source id, after a
//! growing pause; any other answer is counted by status and given up. With [`Repeats`], one event in ten is
//! sent twice: while the first sending is under way, or up to two thousand events later.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::{Message, Wire};
use crate::record::Accepted;
use crate::samples::{Endpoint, Samples, Webhook, source_id};
use crate::signature::sha256;

const HOST: &str = "localhost";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
const LATENCY_US_MAX: u64 = 60_000_000;

/// Whether accepted events are remembered one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// Each, with the digest of its body.
    Events,
    /// Only how many.
    Counts,
}

/// Whether events are sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// Each once, unless it got no answer.
    None,
    /// One sending in ten is of an earlier event.
    Tenth,
}

/// One sending in so many is a repeat.
const REPEAT_EVERY: u64 = 10;
/// Every other repeat is this many tens of sendings behind its event at most.
const REPEAT_TENS_MAX: u64 = 200;

impl Repeats {
    /// The event of sending `number`.
    fn event(self, number: u64) -> u64 {
        if self == Self::None || number % REPEAT_EVERY != REPEAT_EVERY - 1 {
            return number;
        }
        // The event just before is most likely still under way, on another connection.
        let tens = number / REPEAT_EVERY;
        let far = if tens.is_multiple_of(2) { 0 } else { tens.wrapping_mul(0x9e37_79b9) % REPEAT_TENS_MAX };
        (number - 1).checked_sub(far * REPEAT_EVERY).unwrap_or(number - 1)
    }
}

/// What to send.
#[derive(Clone)]
pub(crate) struct LoadPlan {
    /// The ingester.
    pub(crate) address: SocketAddr,
    /// Its TLS.
    pub(crate) tls: TlsConnector,
    /// Taken in turn.
    pub(crate) endpoints: Arc<[Endpoint]>,
    /// Bodies.
    pub(crate) samples: Arc<Samples>,
    /// Connections at once.
    pub(crate) connections: u32,
    /// Events in all.
    pub(crate) events_max: u64,
    /// Events per second; 0 is as fast as the answers come.
    pub(crate) rate_per_s: u32,
    /// What to remember.
    pub(crate) record: Record,
    /// Makes the source ids of this run its own.
    pub(crate) run: u64,
    /// Whether events are sent twice.
    pub(crate) repeats: Repeats,
}

/// Live counts, and the switches of a running load.
#[derive(Debug, Default)]
pub(crate) struct LoadState {
    next: AtomicU64,
    stopping: AtomicBool,
    measuring: AtomicBool,
    /// Events with a 202, or a 200 that calls them duplicates.
    pub(crate) accepted: AtomicU64,
    /// Of them, how many were called duplicates.
    pub(crate) duplicates: AtomicU64,
    /// Attempts beyond the first.
    pub(crate) retries: AtomicU64,
    /// Connections opened.
    pub(crate) connects: AtomicU64,
    /// Wakes whoever waits for the next acceptance.
    pub(crate) answered: Notify,
}

impl LoadState {
    /// No event is started or tried again after this.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Latencies count from here.
    pub(crate) fn measure(&self) {
        self.measuring.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct LoadReport {
    /// Accepted events, if they were to be remembered.
    pub(crate) accepted: Vec<Accepted>,
    /// Microseconds from the request to its 202, without attempts that were repeated.
    pub(crate) latency_us: Histogram<u64>,
    /// Other answers by status.
    pub(crate) refused: BTreeMap<u16, u64>,
}

impl LoadReport {
    /// Of nothing yet.
    pub(crate) fn new() -> Self {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds are in order");
        Self { accepted: Vec::new(), latency_us, refused: BTreeMap::new() }
    }

    fn merge(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.latency_us.add(&other.latency_us).expect("all histograms have the same bounds");
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
    }
}

/// Sends until the plan is done or the state is stopped.
pub(crate) async fn run_load(plan: LoadPlan, state: Arc<LoadState>) -> LoadReport {
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..plan.connections {
        let source =
            Source { plan: plan.clone(), state: Arc::clone(&state), wire: None, report: LoadReport::new() };
        tasks.spawn(source.run(started));
    }
    let mut report = LoadReport::new();
    while let Some(part) = tasks.join_next().await {
        report.merge(part.expect("a source does not panic"));
    }
    report
}

/// One connection's worth of load.
struct Source {
    plan: LoadPlan,
    state: Arc<LoadState>,
    wire: Option<Wire<TlsStream<TcpStream>>>,
    report: LoadReport,
}

impl Source {
    async fn run(mut self, started: Instant) -> LoadReport {
        let mut request = Vec::new();
        while !self.state.is_stopping() {
            let number = self.state.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.plan.events_max {
                break;
            }
            if self.plan.rate_per_s > 0 {
                let due = Duration::from_secs_f64(number as f64 / f64::from(self.plan.rate_per_s));
                sleep(due.saturating_sub(started.elapsed())).await;
            }
            self.send(self.plan.repeats.event(number), &mut request).await;
        }
        self.report
    }

    /// Sends one event until there is an answer that settles it, or the load is stopped.
    async fn send(&mut self, number: u64, request: &mut Vec<u8>) {
        let endpoints = Arc::clone(&self.plan.endpoints);
        let endpoint = &endpoints[(number % endpoints.len() as u64) as usize];
        // Endpoints and samples are stepped through apart, so that each pair comes up.
        let choice = number / endpoints.len() as u64;
        let webhook = self.plan.samples.webhook(endpoint, choice, &source_id(self.plan.run, number));
        let mut pause = PAUSE_MIN;
        let mut attempts = 0;
        while !self.state.is_stopping() {
            attempts += 1;
            webhook.write(endpoint, HOST, unix_ms() / 1000, request);
            let begun = Instant::now();
            match self.exchange(request).await {
                Ok(answer) if matches!(answer.status(), Some(200 | 202)) => {
                    if attempts == 1 && self.state.measuring.load(Ordering::Relaxed) {
                        self.report.latency_us.saturating_record(begun.elapsed().as_micros() as u64);
                    }
                    return self.accept(number, &webhook, &answer);
                }
                Ok(answer) if !matches!(answer.status(), Some(429 | 503)) => {
                    *self.report.refused.entry(answer.status().unwrap_or(0)).or_default() += 1;
                    return;
                }
                Ok(_) | Err(_) => {}
            }
            self.state.retries.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn accept(&mut self, number: u64, webhook: &Webhook, answer: &Message) {
        self.state.accepted.fetch_add(1, Ordering::Relaxed);
        self.state.duplicates.fetch_add(u64::from(answer.status() == Some(200)), Ordering::Relaxed);
        self.state.answered.notify_waiters();
        if self.plan.record == Record::Events {
            let event_id = answered_id(&answer.body).unwrap_or_default();
            self.report.accepted.push(Accepted { number, event_id, body_sha256: sha256(&webhook.body) });
        }
    }

    /// One request and its answer; a connection that failed is not used again.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<Message> {
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => self.connect().await?,
        };
        let answer = timeout(ANSWER_TIMEOUT, async {
            wire.write(request).await?;
            wire.read().await?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))
        });
        let answer = answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if !answer.closes() {
            self.wire = Some(wire);
        }
        Ok(answer)
    }

    async fn connect(&self) -> io::Result<Wire<TlsStream<TcpStream>>> {
        self.state.connects.fetch_add(1, Ordering::Relaxed);
        let connecting = async {
            let stream = TcpStream::connect(self.plan.address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(HOST).expect("a valid name");
            self.plan.tls.connect(name, stream).await
        };
        let connected = timeout(ANSWER_TIMEOUT, connecting).await;
        Ok(Wire::new(connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}

/// The event id in `{"id": "..."}`.
pub(crate) fn answered_id(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        id: String,
    }
    serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.id)
}

#[cfg(test)]
mod tests {
    use rustls::ServerConfig;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::pki::Pki;
    use crate::samples::{SchemeName, Sizes};
    use crate::tls::source_config;

    /// One connection's answers; the connection is closed behind the last.
    type Answers = &'static [&'static str];

    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\n{\"id\":\"a\"}";
    const UNKNOWN: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

    fn acceptor(pki: &Pki) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_file(pki.certificate("public")).unwrap();
        let key = PrivateKeyDer::from_pem_file(pki.key("public")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Plays an ingester with a script of answers per connection; returns the requests' source ids.
    async fn play(listener: TcpListener, acceptor: TlsAcceptor, script: Vec<Answers>) -> Vec<String> {
        let mut ids = Vec::new();
        for answers in script {
            let (stream, _) = listener.accept().await.unwrap();
            let mut wire = Wire::new(acceptor.accept(stream).await.unwrap());
            for answer in answers {
                let request = wire.read().await.unwrap().unwrap();
                ids.push(request.header("x-github-delivery").unwrap().to_owned());
                if !answer.is_empty() {
                    wire.write(answer.as_bytes()).await.unwrap();
                }
            }
        }
        ids
    }

    fn plan(pki: &Pki, address: SocketAddr, events_max: u64) -> LoadPlan {
        let (id, secret) = ("e".to_owned(), "secret".to_owned());
        LoadPlan {
            address,
            tls: TlsConnector::from(source_config(&pki.public_ca()).unwrap()),
            endpoints: vec![Endpoint { id, scheme: SchemeName::GitHub, secret }].into(),
            samples: Arc::new(Samples::new(Sizes::Fixed(1024)).unwrap()),
            connections: 1,
            events_max,
            rate_per_s: 0,
            record: Record::Events,
            run: 1,
            repeats: Repeats::None,
        }
    }

    fn run(script: Vec<Answers>, events_max: u64) -> (LoadReport, Arc<LoadState>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::make(directory.path(), &[]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let plan = plan(&pki, listener.local_addr().unwrap(), events_max);
            let playing = tokio::spawn(play(listener, acceptor(&pki), script));
            let state = Arc::new(LoadState::default());
            let report = run_load(plan, Arc::clone(&state)).await;
            (report, state, playing.await.unwrap())
        })
    }

    #[test]
    fn one_sending_in_ten_is_of_an_earlier_event() {
        let events: Vec<u64> = (0..10_000).map(|number| Repeats::Tenth.event(number)).collect();
        let repeats: Vec<u64> =
            (0..).zip(&events).filter(|(n, event)| n != *event).map(|(n, e)| n - e).collect();
        assert_eq!(repeats.len(), 1000);
        assert!(repeats.iter().all(|behind| (1..2000).contains(behind)));
        assert!(repeats.iter().filter(|behind| **behind == 1).count() >= 500);
        assert!(repeats.iter().any(|behind| *behind > 1500));
        assert!((0..100).all(|number| Repeats::None.event(number) == number));
    }

    #[test]
    fn busy_and_broken_connections_are_tried_again_with_the_same_id() {
        // Busy; then no answer and a closed connection; then accepted on a new one.
        let (report, state, ids) = run(vec![&[BUSY, ""], &[ACCEPTED]], 1);
        assert_eq!(ids, [source_id(1, 0), source_id(1, 0), source_id(1, 0)]);
        assert_eq!((report.accepted.len(), report.refused.len()), (1, 0));
        assert_eq!(state.retries.load(Ordering::Relaxed), 2);
        assert_eq!(state.connects.load(Ordering::Relaxed), 2);
        assert_eq!(report.accepted[0].event_id, "a");
    }

    #[test]
    fn other_answers_are_counted_and_given_up() {
        let (report, state, ids) = run(vec![&[UNKNOWN, ACCEPTED]], 2);
        assert_eq!(ids, [source_id(1, 0), source_id(1, 1)]);
        assert_eq!(report.refused, BTreeMap::from([(404, 1)]));
        assert_eq!((report.accepted.len(), report.accepted[0].number), (1, 1));
        assert_eq!(state.retries.load(Ordering::Relaxed), 0);
    }
}
