//! The listener for agents: TLS 1.3 with a certificate on both sides, HTTP/1.1, a bounded number of both.
//!
//! A connection ends with the client's certificate, with the first answer after its identity was denied, locked or
//! superseded (a request that waits is answered then), and when it is idle. What is not HTTP is answered by hyper with a bare 400; everything else that is no success is a problem (RFC 9457).

mod audit;
mod connection;
mod issuer;
mod notes;
mod places;
mod recovery;
mod relay;
mod routes;
mod scrape;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch as channel};
use tokio_rustls::TlsAcceptor;
use zen_identity::{PrivateKeySource, SpiffeId, SvidFiles, SvidStore, TrustDomain};

use self::connection::ended;
pub(crate) use self::connection::{log_refusal, serve_until_end};
use self::notes::{Notes, Waiting};
pub(crate) use self::places::Places;
use self::places::Shed;
use self::scrape::Scraped;
use crate::audit::accept_truncation;
use crate::directory::{self, Directory};
use crate::metrics::{Counter, Metrics};
use crate::news::News;
use crate::{Control, ControlError, MetricsPlace, PeopleListening, Refusal, RunSettings, WebListening};

/// Most connections at a time; more are closed as they come. An agent has one that waits, and for a moment one that reports.
pub(crate) const CONNECTIONS_MAX: usize = 8192;
/// Most of them that one identity has.
pub(crate) const IDENTITY_CONNECTIONS_MAX: usize = 8;
/// Most that are in their handshake, beside them.
pub(crate) const HANDSHAKES_MAX: usize = 128;
/// Most that are in their handshake or wait for it; more are closed as they come. All agents come at once after a restart.
pub(crate) const ARRIVALS_MAX: usize = 4096;
/// Most of them that hold a bundle's key only, for a minute at most.
pub(crate) const ENROLLING_MAX: usize = 64;
/// Most of them that hold a key only, which is no bundle's.
pub(crate) const STRANGERS_MAX: usize = 16;
/// Most requests that write the database at a time.
const WORK_MAX: usize = 16;
/// How long a request waits for its turn.
const WORK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new connection may wait for its handshake, and then take to show who it is.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests on their way may take once the server is to end.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const ALPN: &[u8] = b"http/1.1";

/// How to listen.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where.
    pub listen: SocketAddr,
    /// How long a request for a configuration waits; a tenth more or less is drawn.
    pub long_poll: Duration,
}

/// A listener that has its address.
pub struct Listening {
    server: Arc<Server>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    unwritten: mpsc::Receiver<Waiting>,
    scraped: Option<Scraped>,
}

/// Somebody who connected.
struct Arrived {
    stream: TcpStream,
    source: SocketAddr,
    place: OwnedSemaphorePermit,
}

/// What all connections share.
pub(crate) struct Server {
    control: Control,
    directory: Directory,
    store: Arc<SvidStore>,
    long_poll: Duration,
    /// What agents wait for.
    news: channel::Sender<Arc<News>>,
    /// Becomes true once.
    ending: channel::Sender<bool>,
    notes: Notes,
    work: Semaphore,
    arrivals: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    connections_max: usize,
    metrics: Metrics,
    by_identity: Places<SpiffeId>,
    shed: Shed,
    handshakes: Semaphore,
    enrolling: Semaphore,
    strangers: Semaphore,
}

impl Listening {
    /// Opens the directory, makes the listener's certificate if need be, and takes the address.
    pub async fn bind(directory: Directory, settings: &Settings) -> Result<Self, ControlError> {
        Self::bind_with(directory, settings, CONNECTIONS_MAX, None).await
    }

    /// The same with another number of connections, and metrics.
    pub async fn bind_with(
        directory: Directory,
        settings: &Settings,
        connections_max: usize,
        metrics: Option<&MetricsPlace>,
    ) -> Result<Self, ControlError> {
        let control = Control::open(&directory)?;
        Self::bind_control(control, directory, settings, connections_max, metrics).await
    }

    async fn bind_control(
        control: Control,
        directory: Directory,
        settings: &Settings,
        connections_max: usize,
        metrics: Option<&MetricsPlace>,
    ) -> Result<Self, ControlError> {
        let store = watch::own_identity(&control, &directory, now_ms())?;
        let acceptor = TlsAcceptor::from(store.agent_server_config(&[ALPN])?);
        let listener = listener(settings.listen).map_err(ControlError::file(settings.listen.to_string()))?;
        let scraped = match metrics {
            Some(place) => Some(Scraped::bind(place).await?),
            None => None,
        };
        let (notes, unwritten) = Notes::new();
        let server = Server {
            control,
            directory,
            store,
            long_poll: settings.long_poll,
            news: channel::Sender::new(Arc::default()),
            ending: channel::Sender::new(false),
            notes,
            work: Semaphore::new(WORK_MAX),
            arrivals: Arc::new(Semaphore::new(ARRIVALS_MAX)),
            connections: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            metrics: Metrics::default(),
            by_identity: Places::of_each(IDENTITY_CONNECTIONS_MAX),
            shed: Shed::default(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            enrolling: Semaphore::new(ENROLLING_MAX),
            strangers: Semaphore::new(STRANGERS_MAX),
        };
        Ok(Self { server: Arc::new(server), listener, acceptor, unwritten, scraped })
    }

    /// The control plane's identity, with the deny list as it is.
    pub fn identity(&self) -> &Arc<SvidStore> {
        &self.server.store
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        self.run_until(std::future::pending()).await;
    }

    /// Answers until `end`; then takes nobody in, answers who waits, and closes what is open.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        let Self { server, listener, acceptor, unwritten, scraped } = self;
        let _scraping = scraped.map(|scraped| AbortOnDrop(tokio::spawn(scraped.run(server.clone()))));
        let _watching = AbortOnDrop(tokio::spawn(watch::watch(server.clone())));
        let _writing = AbortOnDrop(tokio::spawn(notes::write_down(server.clone(), unwritten)));
        let _signing = AbortOnDrop(tokio::spawn(audit::keep(server.clone())));
        tokio::select! {
            () = accept_all(&server, &listener, &acceptor) => {}
            () = end => {}
        }
        drop(listener);
        server.ending.send_replace(true);
        let all = server.connections.acquire_many(server.connections_max as u32);
        if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
            tracing::warn!("some connections were closed before they were answered");
        }
        audit::sign(&server).await;
    }
}

async fn accept_all(server: &Arc<Server>, listener: &TcpListener, acceptor: &TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let Ok(arrival) = server.arrivals.clone().try_acquire_owned() else {
                    server.shed("arrivals", "too many come at once");
                    continue;
                };
                let arrived = Arrived { stream, source, place: arrival };
                tokio::spawn(connection::serve(server.clone(), acceptor.clone(), arrived));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection could be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The kernel keeps as many arrivals as we do, while we are busy with others.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ARRIVALS_MAX as u32)
}

/// Listens and answers until the process is told to end.
pub async fn serve(settings: &RunSettings) -> Result<(), ControlError> {
    let directory = Directory::open(&settings.directory)?;
    let (bound, metrics) = (settings.connections_max, settings.metrics.as_ref());
    if settings.accept_truncation && accept_truncation(&directory, &settings.audit, now_ms())? {
        tracing::error!("ALARM: the audit log goes on without entries that were signed for, as was said");
    }
    let control = Control::open_with(&directory, &settings.audit)?;
    let agents = &settings.agents;
    let listening = Listening::bind_control(control, directory.clone(), agents, bound, metrics).await?;
    let people = PeopleListening::bind(directory.clone(), settings.people, listening.identity()).await?;
    let web = match &settings.web {
        Some(web) => Some(WebListening::bind(directory, web).await?),
        None => None,
    };
    let address = people.address().map_err(ControlError::file("listener for people"))?;
    tracing::info!(%address, "listening for people");
    if let Some(web) = &web {
        let address = web.address().map_err(ControlError::file("listener for browsers"))?;
        tracing::info!(%address, "listening for browsers");
    }
    let address = listening.address().map_err(ControlError::file("listener"))?;
    tracing::info!(%address, trust_domain = listening.server.control.trust_domain(), "listening for agents");
    let mut ending = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(ControlError::file("SIGTERM"))?;
    let end = async {
        tokio::select! {
            _ = ending.recv() => tracing::info!("ending: SIGTERM"),
            _ = tokio::signal::ctrl_c() => tracing::info!("ending: SIGINT"),
        }
    };
    let (told, mut heard) = channel::channel(false);
    let mut also = heard.clone();
    let people = tokio::spawn(people.run_until(async move { ended(&mut heard).await }));
    let web = tokio::spawn(async move {
        if let Some(web) = web {
            web.run_until(async move { ended(&mut also).await }).await;
        }
    });
    let end = async {
        end.await;
        told.send_replace(true);
    };
    listening.run_until(end).await;
    // All drain at the same time, and none for longer than its bound.
    let _ = people.await;
    let _ = web.await;
    Ok(())
}

impl Server {
    /// Closed for want of a place.
    fn shed(&self, place: &'static str, reason: &'static str) {
        self.metrics.count_as(Counter::Shed, place);
        self.shed.note(reason);
    }

    /// Runs what only reads the database, here and now: that takes less than a handshake, and waits for nobody.
    pub(crate) fn look<T>(
        &self,
        step: impl FnOnce(&Control, u64) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        step(&self.control, now_ms())
    }

    /// Runs what uses the database where it may block, when it is its turn.
    pub(crate) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&Control, u64) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = tokio::time::timeout(WORK_TIMEOUT, self.work.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Ending)?;
        let server = self.clone();
        let done = tokio::task::spawn_blocking(move || step(&server.control, now_ms())).await;
        done.map_err(|_| Refusal::Ending)?
    }
}

/// Unix ms.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn svid_files(control: &Control, directory: &Directory) -> Result<SvidFiles, ControlError> {
    let trust_domain = TrustDomain::parse(control.trust_domain()).map_err(ControlError::TrustDomain)?;
    let file = directory.path(directory::SERVER);
    Ok(SvidFiles {
        certificate_file: file.clone(),
        private_key: PrivateKeySource::File(file),
        trust_bundle_file: directory.path(directory::ROOTS),
        trust_domain,
    })
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
