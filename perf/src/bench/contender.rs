//! A mesh to look into: two hops with a sink of their own, and a load of this process through them.
//!
//! In: its reactor, and a cell. Out: processes, their CPU, and their counts. CPU counts until the last event is delivered.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_rustls::TlsConnector;

use super::cpu::CpuTimes;
use crate::error::LabError;
use crate::lab::{Io, Lab, Metrics, Process, Shape, TARGET_IDENTITY, Tuning, wait_ready};
use crate::load::{LoadPlan, LoadReport, LoadState, Record, Repeats, run_load};
use crate::peers;
use crate::random::system_seed;
use crate::samples::{Endpoint, Samples, Sizes};
use crate::tls::{KeyExchange, client_config};

pub(super) const WARM_UP: Duration = Duration::from_secs(1);
/// Answers for each connection until no handshake is in the measured span any more.
const WARM_UP_ANSWERS: u64 = 10;
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(30);
const BACKLOG_TIMEOUT: Duration = Duration::from_mins(2);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
const DELIVERED: &str = "zen_deliveries_total";
const DELIVERED_LABEL: &str = "=\"delivered\"";
const ENTERS: &str = "zen_ring_enters_total";

/// What drives the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The nodes on `io_uring`.
    Uring,
    /// The nodes on epoll.
    Epoll,
}

impl Kind {
    /// As a table shows it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Uring => "zen, io_uring",
            Self::Epoll => "zen, epoll",
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// Bytes of each body.
    pub(super) body_bytes: usize,
    /// Connections at once.
    pub(super) connections: u32,
}

/// The programs that are started.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The node.
    pub(crate) node: PathBuf,
}

/// A running contender.
pub(crate) struct Contender {
    /// Which.
    pub(super) kind: Kind,
    /// Its files and ports.
    pub(crate) lab: Lab,
    /// First and second hop.
    pub(super) hops: [Process; 2],
    sink: Process,
}

impl Contender {
    /// Starts one below `directory`; call it on the main thread.
    pub(super) async fn start(
        kind: Kind,
        directory: &Path,
        workers: u32,
        programs: &Programs,
    ) -> Result<Self, LabError> {
        Self::start_shaped(kind, directory, workers, programs, Shape::BENCH).await
    }

    /// As [`Self::start`], with a lab of another shape.
    pub(crate) async fn start_shaped(
        kind: Kind,
        directory: &Path,
        workers: u32,
        programs: &Programs,
        shape: Shape,
    ) -> Result<Self, LabError> {
        Self::start_tuned(kind, directory, workers, programs, shape, Tuning::NONE).await
    }

    /// As [`Self::start_shaped`], with changes to the lab.
    pub(crate) async fn start_tuned(
        kind: Kind,
        directory: &Path,
        workers: u32,
        programs: &Programs,
        shape: Shape,
        tuning: Tuning,
    ) -> Result<Self, LabError> {
        let mut lab = Lab::make_tuned(&directory.join(kind.directory()), shape, workers, tuning)?;
        lab.io = if kind == Kind::Epoll { Io::Epoll } else { Io::Uring };
        let sink = start_sink(&lab)?;
        let mut egress = lab.start(&lab.egresses[0], &programs.node)?;
        let mut ingester = lab.start(&lab.ingester, &programs.node)?;
        wait_ready(&lab.egresses[0], &mut egress).await?;
        wait_ready(&lab.ingester, &mut ingester).await?;
        Ok(Self { kind, lab, hops: [ingester, egress], sink })
    }

    /// CPU of each hop for an event, µs.
    pub(super) async fn measure(&mut self, cell: Cell, length: Duration) -> Result<[f64; 2], LabError> {
        let state = Arc::new(LoadState::default());
        let sending = tokio::spawn(run_load(self.plan(cell)?, Arc::clone(&state)));
        let delivered_before = self.delivered().await;
        let accepted = || state.accepted.load(Ordering::Relaxed);
        let warming = Instant::now();
        let warm = WARM_UP_ANSWERS * u64::from(cell.connections);
        while warming.elapsed() < WARM_UP || (accepted() < warm && warming.elapsed() < WARM_UP_TIMEOUT) {
            tokio::time::sleep(POLL).await;
        }
        let (accepted_before, delivered_at_start) = (accepted(), self.delivered().await);
        let before = self.cpu();
        tokio::time::sleep(length).await;
        state.stop();
        let report = sending.await.expect("the load does not panic");
        check_answers(self.kind, &report)?;
        self.await_delivered(delivered_before + accepted() as f64).await?;
        let used = self.cpu().since(&before);
        let delivered_in_span = self.delivered().await - delivered_at_start;
        let accepted_in_span = (accepted() - accepted_before) as f64;
        Ok([used.first / accepted_in_span.max(1.0), used.second / delivered_in_span.max(1.0)])
    }

    /// Sends `events` and waits until all are delivered.
    pub(super) async fn send(&mut self, cell: Cell, events: u64) -> Result<(), LabError> {
        let state = Arc::new(LoadState::default());
        let before = self.delivered().await;
        let report = run_load(LoadPlan { events_max: events, ..self.plan(cell)? }, Arc::clone(&state)).await;
        check_answers(self.kind, &report)?;
        self.await_delivered(before + events as f64).await
    }

    /// A load without end, to be spawned.
    pub(super) fn plan(&self, cell: Cell) -> Result<LoadPlan, LabError> {
        let plan = self.load_plan(vec![peers::endpoint(&self.lab)].into(), cell.body_bytes)?;
        Ok(LoadPlan { connections: cell.connections, ..plan })
    }

    /// A load without end through one connection.
    pub(crate) fn load_plan(
        &self,
        endpoints: Arc<[Endpoint]>,
        body_bytes: usize,
    ) -> Result<LoadPlan, LabError> {
        let tls = client_config(&self.lab.pki.public_ca(), None, KeyExchange::X25519)?;
        Ok(LoadPlan {
            address: self.lab.public,
            tls: TlsConnector::from(tls),
            endpoints,
            samples: Arc::new(Samples::new(Sizes::Fixed(body_bytes))?),
            connections: 1,
            events_max: u64::MAX,
            rate_per_s: 0,
            record: Record::Counts,
            run: system_seed(),
            repeats: Repeats::None,
        })
    }

    /// How many events have been delivered.
    pub(crate) async fn delivered(&self) -> f64 {
        Metrics::scrape(self.lab.egresses[0].admin).await.sum(DELIVERED, DELIVERED_LABEL)
    }

    /// Waits for `count` deliveries.
    pub(crate) async fn await_delivered(&mut self, count: f64) -> Result<(), LabError> {
        let begun = Instant::now();
        while self.delivered().await < count {
            for process in self.hops.iter_mut().chain([&mut self.sink]) {
                process.check()?;
            }
            if begun.elapsed() >= BACKLOG_TIMEOUT {
                return Err(LabError::Unequal(format!(
                    "{}: the backlog was not delivered within {} s",
                    self.kind.label(),
                    BACKLOG_TIMEOUT.as_secs()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Calls that wait for and submit work, of each hop's workers since its start.
    pub(super) async fn enters(&self) -> [f64; 2] {
        let ingester = Metrics::scrape(self.lab.ingester.admin).await.sum(ENTERS, "");
        let egress = Metrics::scrape(self.lab.egresses[0].admin).await.sum(ENTERS, "");
        [ingester, egress]
    }

    /// Stops all processes.
    pub(crate) async fn stop(&mut self) {
        for process in self.hops.iter_mut().chain([&mut self.sink]) {
            if process.stop(STOP_TIMEOUT).await.is_none() {
                eprintln!("{} had to be killed", process.name);
            }
        }
    }

    /// What all have used until now.
    pub(crate) fn cpu(&self) -> CpuTimes {
        CpuTimes::read([self.hops[0].id(), self.hops[1].id(), self.sink.id(), std::process::id()])
    }
}

/// A refused event was not carried: the figures would flatter whoever refused it.
fn check_answers(kind: Kind, report: &LoadReport) -> Result<(), LabError> {
    if report.refused.is_empty() {
        return Ok(());
    }
    Err(LabError::Unequal(format!("{} refused events, by status: {:?}", kind.label(), report.refused)))
}

/// A sink that counts, for the targets of a lab.
pub(crate) fn start_sink(lab: &Lab) -> Result<Process, LabError> {
    let own = std::env::current_exe()
        .map_err(|source| LabError::Start { program: PathBuf::from("zen-perf"), source })?;
    let listen = lab.target.to_string();
    let (certificate, key) = (lab.pki.certificate(TARGET_IDENTITY), lab.pki.key(TARGET_IDENTITY));
    let (bundle, targets) = (lab.pki.bundle(), lab.directory.join("targets.json"));
    let arguments: [&OsStr; 13] = [
        "sink".as_ref(),
        "--count-only".as_ref(),
        "--x25519".as_ref(),
        "--listen".as_ref(),
        listen.as_ref(),
        "--certificate".as_ref(),
        certificate.as_ref(),
        "--key".as_ref(),
        key.as_ref(),
        "--client-ca".as_ref(),
        bundle.as_ref(),
        "--targets".as_ref(),
        targets.as_ref(),
    ];
    Process::start("sink", &own, &arguments, &lab.log("sink"))
}
