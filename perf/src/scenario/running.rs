//! A system that runs: its lab, its hops and its sink, and what it counts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::file::Hops;
use super::placement::{Placement, Role};
use super::system::System;
use crate::bench::{CpuTimes, start_sink};
use crate::error::LabError;
use crate::faults::process::Memory;
use crate::lab::{Lab, Metrics, Process, Shape, Tuning, wait_ready};
use crate::peers::{self, Peer, Settings};
use crate::tls::KeyExchange;

const BACKLOG_TIMEOUT: Duration = Duration::from_mins(2);
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
const SCRAPES_MAX: u64 = 3;
/// For one answer.
const SCRAPE_SECONDS_MAX: u64 = 2;

/// What is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup<'a> {
    /// Who.
    pub(super) system: System,
    /// How far events go.
    pub(super) hops: Hops,
    /// Of each hop.
    pub(super) workers: u32,
    /// Changes to the nodes' configuration.
    pub(super) tuning: Tuning,
    /// A body that a peer must take, and refuse where its signature is wrong.
    pub(super) body_bytes: usize,
    /// Below which its lab is made.
    pub(super) directory: &'a Path,
    /// The node.
    pub(super) node: &'a Path,
    /// Which cores do what.
    pub(super) placement: &'a Placement,
}

/// A system that runs.
pub(super) struct Running {
    /// Who.
    pub(super) system: System,
    /// Its files and ports.
    pub(super) lab: Lab,
    /// Of each hop.
    pub(super) workers: u32,
    hops: Vec<Process>,
    sink: Process,
}

/// Totals of the nodes since their start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Events that were taken, each to be delivered once.
    pub(super) accepted: f64,
    /// Requests that were answered with 200 or 202.
    pub(super) answered: f64,
    /// Events that their target has.
    pub(super) delivered: f64,
    /// Calls that wait for and submit work, of each hop's workers.
    pub(super) enters: [f64; 2],
    /// Sizes of the batches in which sources' signatures were verified: upper bounds and cumulative counts.
    pub(super) batches: Vec<(f64, f64)>,
}

impl Running {
    /// Starts it and shows that it does the work; call it on the main thread.
    pub(super) async fn start(setup: &Setup<'_>) -> Result<Self, LabError> {
        let directory = setup.directory.join(format!("{}-{}", setup.system.name(), setup.workers));
        let mut lab = Lab::make_tuned(&directory, Shape::BENCH, setup.workers, setup.tuning)?;
        let mut sink = start_sink(&lab)?;
        await_listening(lab.target, &mut sink).await?;
        let hops = match setup.system {
            System::Peer(peer) => start_peer(peer, &lab, setup).await?,
            System::Zen | System::ZenEpoll => {
                lab.io = setup.system.io().expect("the mesh has a reactor");
                let mut egress = lab.start(&lab.egresses[0], setup.node)?;
                let mut ingester = lab.start(&lab.ingester, setup.node)?;
                wait_ready(&lab.egresses[0], &mut egress).await?;
                wait_ready(&lab.ingester, &mut ingester).await?;
                vec![ingester, egress]
            }
        };
        for (at, hop) in hops.iter().enumerate() {
            setup.placement.pin(hop, Role::Hop(at, setup.workers))?;
        }
        setup.placement.pin(&sink, Role::Sink)?;
        Ok(Self { system: setup.system, lab, workers: setup.workers, hops, sink })
    }

    /// As tables and plots show it.
    pub(super) fn label(&self) -> String {
        let label = self.system.label();
        if self.workers == 1 { label.to_owned() } else { format!("{label}, {} workers", self.workers) }
    }

    /// Whether it takes events before they are delivered.
    pub(super) fn is_mesh(&self) -> bool {
        self.system.io().is_some()
    }

    /// What the nodes have counted; nothing of peers.
    pub(super) async fn counts(&self) -> Result<Counts, LabError> {
        if !self.is_mesh() {
            return Ok(Counts::default());
        }
        let (first, second) =
            (scrape(self.lab.ingester.admin).await?, scrape(self.lab.egresses[0].admin).await?);
        let accepted = first.sum("zen_events_accepted_total", "");
        Ok(Counts {
            accepted,
            answered: accepted + first.sum("zen_idempotency_duplicates_total", ""),
            delivered: second.sum("zen_deliveries_total", "=\"delivered\""),
            enters: [&first, &second].map(|metrics| metrics.sum("zen_ring_enters_total", "")),
            batches: first.buckets("zen_hmac_batch_messages", "use=\"source\""),
        })
    }

    /// Waits until all that was taken is delivered; peers answer behind the delivery.
    pub(super) async fn settle(&mut self) -> Result<(), LabError> {
        let begun = Instant::now();
        while self.is_mesh() {
            self.check()?;
            let counts = self.counts().await?;
            if counts.accepted > 0.0 && counts.delivered >= counts.accepted {
                break;
            }
            if begun.elapsed() > BACKLOG_TIMEOUT {
                let seconds = BACKLOG_TIMEOUT.as_secs();
                return Err(LabError::Late { what: "all that was accepted is delivered", seconds });
            }
            tokio::time::sleep(POLL).await;
        }
        self.check()
    }

    /// Process ids of the hops, the first one first.
    pub(super) fn hop_ids(&self) -> Vec<u32> {
        self.hops.iter().map(Process::id).collect()
    }

    /// What all have used until now.
    pub(super) fn cpu(&self, sender: u32) -> CpuTimes {
        let second = self.hops.get(1).map_or(0, Process::id);
        CpuTimes::read([self.hops[0].id(), second, self.sink.id(), sender])
    }

    /// Resident bytes of the first hop's processes.
    pub(super) fn first_resident_bytes(&self) -> u64 {
        let kib = |id: u32| Memory::of(id).resident_kib;
        crate::bench::family(self.hops[0].id()).into_iter().map(kib).sum::<u64>() * 1024
    }

    /// An error if one of them has ended.
    pub(super) fn check(&mut self) -> Result<(), LabError> {
        self.hops.iter_mut().chain([&mut self.sink]).try_for_each(Process::check)
    }

    /// Stops all.
    pub(super) async fn stop(mut self) {
        for process in self.hops.iter_mut().chain([&mut self.sink]) {
            if process.stop(STOP_TIMEOUT).await.is_none() {
                eprintln!("{} had to be killed", process.name);
            }
        }
    }
}

/// A proxy that does not reach its target at first may not try again for a while.
async fn await_listening(address: SocketAddr, process: &mut Process) -> Result<(), LabError> {
    let begun = Instant::now();
    while begun.elapsed() < READY_TIMEOUT {
        process.check()?;
        if TcpStream::connect(address).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(process.not_ready())
}

/// What a node says; one that is too busy for an answer is asked again.
async fn scrape(admin: SocketAddr) -> Result<Metrics, LabError> {
    for _ in 0..SCRAPES_MAX {
        let metrics = Metrics::scrape(admin).await;
        if metrics.sum("zen_ring_enters_total", "") > 0.0 {
            return Ok(metrics);
        }
    }
    Err(LabError::Late { what: "a node's metrics", seconds: SCRAPES_MAX * SCRAPE_SECONDS_MAX })
}

async fn start_peer(peer: Peer, lab: &Lab, setup: &Setup<'_>) -> Result<Vec<Process>, LabError> {
    let hops = match setup.hops {
        Hops::Ingest => peers::Hops::Ingest,
        Hops::Both if peer.hops() == 2 => peers::Hops::Both,
        Hops::Both => {
            let reason = "it has one hop; name it only in scenarios with hops = \"ingest\"".to_owned();
            return Err(LabError::Tool { what: peer.label().to_owned(), reason });
        }
    };
    let settings = Settings { threads: setup.workers, key_exchange: KeyExchange::X25519, hops };
    let started = peers::start(peer, lab, &settings).await?;
    peers::check(peer, lab, &settings, &[setup.body_bytes]).await?;
    Ok(started)
}
