//! A lab under a steady load: nodes, sources, targets and the relays between them.
//!
//! In: a [`Setting`]. Out, at its end: a [`Verdict`], what was accepted, delivered and lost, and how much
//! memory each node took of its bound.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::process::{Memory, memory_bound_kib};
use crate::crash::{await_arrivals, load_plan, serve_targets};
use crate::error::LabError;
use crate::lab::{Lab, Metrics, Node, Process, Shape, Tuning, wait_ready};
use crate::load::{LoadPlan, LoadReport, LoadState, run_load};
use crate::record::{Accepted, Comparison};
use crate::relay::Relay;
use crate::sink::SinkState;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
const FLOWING_SECONDS_MAX: u64 = 20;
const POLL: Duration = Duration::from_millis(50);
/// The target and the link that faults strike; the others must not notice.
pub(crate) const VICTIM_TARGET: &str = "billing";
/// The egress of that link and that target.
pub(crate) const VICTIM_EGRESS: &str = "inside";

/// Deadlines short enough to see them pass, and retries that outlast every fault.
pub(crate) const TUNING: Tuning = Tuning {
    relayed: &["inside", "branch", "billing"],
    segment_bytes: Some(8 * 1024 * 1024),
    ingester: "connections_max = 10500\nrequest_timeout_ms = 3000",
    target: "attempt_timeout_ms = 2000\nretry_schedule_ms = [500, 1000, 2000, 4000, 4000, 4000, 4000, 4000, \
             4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, \
             4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000]\nbreaker = { pause_ms = 500, pause_ms_max = 4000 }",
    ..Tuning::NONE
};
/// `request_timeout_ms` of [`TUNING`].
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// What an arena is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Directory of the lab.
    pub(crate) directory: PathBuf,
    /// The node.
    pub(crate) program: PathBuf,
    /// Workers per node.
    pub(crate) workers: u32,
    /// Connections of the load.
    pub(crate) connections: u32,
    /// Events per second.
    pub(crate) rate: u32,
}

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Its place in the lab.
    pub(crate) node: Node,
    /// Its process.
    pub(crate) process: Process,
    peak_kib: u64,
    bound_kib: u64,
    command: Vec<OsString>,
}

impl Running {
    /// The most memory that it took, over all its processes.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.peak_kib.max(Memory::of(self.process.id()).peak_kib)
    }
}

/// A running lab.
pub(crate) struct Arena {
    /// Its files.
    pub(crate) lab: Lab,
    /// The ingester first.
    pub(crate) nodes: Vec<Running>,
    /// The load's switches and counts.
    pub(crate) load: Arc<LoadState>,
    /// What the targets saw.
    pub(crate) sink: Arc<SinkState>,
    relays: HashMap<&'static str, Relay>,
    program: PathBuf,
    sending: JoinHandle<LoadReport>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Accepted against delivered.
    comparison: Comparison,
    /// What is wrong.
    pub(crate) complaints: Vec<String>,
    /// Name, most memory and its bound of each node, MiB.
    memory: String,
}

impl Verdict {
    /// `accepted 1, delivered 1, ..., peak MiB edge-1 1 of 2`.
    pub(crate) fn line(&self) -> String {
        let counts = &self.comparison;
        format!(
            "accepted {}, delivered {}, duplicates {}, LOST {}, peak MiB {}",
            counts.accepted,
            counts.delivered,
            counts.duplicates,
            counts.lost.len(),
            self.memory
        )
    }
}

impl Arena {
    /// Makes the lab, starts everything, and waits until events come to every target.
    pub(crate) async fn start(
        setting: &Setting,
        tuning: Tuning,
        command_of: impl Fn(&Lab, &Node) -> Result<Vec<OsString>, LabError>,
    ) -> Result<Self, LabError> {
        let lab = Lab::make_tuned(&setting.directory, Shape::CRASH, setting.workers, tuning)?;
        let sink = serve_targets(&lab).await?;
        let relays =
            lab.routes.iter().map(|route| (route.name, Relay::start(route.listen, route.to))).collect();
        let mut nodes = Vec::new();
        for node in std::iter::once(&lab.ingester).chain(&lab.egresses) {
            let command = command_of(&lab, node)?;
            let process = lab.start_under(&command, node, &setting.program)?;
            let bound_kib = memory_bound_kib(&setting.program, &node.config)?;
            nodes.push(Running { node: node.clone(), process, peak_kib: 0, bound_kib, command });
        }
        for running in &mut nodes {
            wait_ready(&running.node, &mut running.process).await?;
        }
        let load = Arc::new(LoadState::default());
        let plan = load_plan(&lab, setting.connections, setting.rate)?;
        let sending = tokio::spawn(run_load(plan, Arc::clone(&load)));
        let program = setting.program.clone();
        let arena = Self { lab, nodes, load, sink, relays, program, sending };
        let flows = || arena.targets().iter().all(|target| arena.sink.count_of(target) > 0);
        within(FLOWING_SECONDS_MAX, "events come to every target", async || flows()).await?;
        Ok(arena)
    }

    /// Names of the targets.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.lab.targets.iter().map(|target| target.name.clone()).collect()
    }

    /// The relay of a link or target.
    pub(crate) fn relay(&self, name: &str) -> &Relay {
        self.relays.get(name).expect("the tuning names what is relayed")
    }

    /// The ingester.
    pub(crate) fn ingester(&self) -> &Running {
        &self.nodes[0]
    }

    /// The node with this name.
    pub(crate) fn node(&self, name: &str) -> &Running {
        self.nodes.iter().find(|running| running.node.name == name).expect("a node of the lab")
    }

    /// Whether all nodes run.
    pub(crate) fn check(&mut self) -> Result<(), LabError> {
        self.nodes.iter_mut().try_for_each(|running| running.process.check())
    }

    /// SIGKILL for a node, and its start `down` later.
    pub(crate) async fn restart(&mut self, index: usize, down: Duration) -> Result<(), LabError> {
        let running = &mut self.nodes[index];
        running.process.check()?;
        running.peak_kib = running.peak_kib();
        running.process.kill();
        tokio::time::sleep(down).await;
        running.process = self.lab.start_under(&running.command, &running.node, &self.program)?;
        wait_ready(&running.node, &mut running.process).await
    }

    /// The sum of a counter of `running` over the labels that contain `label`.
    pub(crate) async fn counter(running: &Running, name: &str, label: &str) -> f64 {
        Metrics::scrape(running.node.admin).await.sum(name, label)
    }

    /// Ends the load; what became of it.
    pub(crate) async fn pause_load(&mut self) -> LoadReport {
        self.load.stop();
        let done = tokio::spawn(async { LoadReport::new() });
        std::mem::replace(&mut self.sending, done).await.expect("the load does not panic")
    }

    /// Ends the load and starts another; what became of the first.
    pub(crate) async fn next_load(&mut self, plan: LoadPlan) -> LoadReport {
        let report = self.pause_load().await;
        self.load = Arc::new(LoadState::default());
        self.sending = tokio::spawn(run_load(plan, Arc::clone(&self.load)));
        report
    }

    /// Waits until all of `accepted` have come, or none has come for long.
    pub(crate) async fn await_all(&mut self, accepted: &[Accepted]) -> Result<(), LabError> {
        let nodes = &mut self.nodes;
        let check = || nodes.iter_mut().try_for_each(|running| running.process.check());
        await_arrivals(accepted, &self.sink, check).await
    }

    /// Drains the nodes; the most memory that each took, and what was wrong.
    pub(crate) async fn stop(&mut self) -> (String, Vec<String>) {
        let (mut complaints, mut memory) = (Vec::new(), Vec::new());
        for running in &mut self.nodes {
            let (name, peak_kib, bound_kib) = (&running.node.name, running.peak_kib(), running.bound_kib);
            memory.push(format!("{name} {} of {}", peak_kib.div_ceil(1024), bound_kib / 1024));
            if peak_kib == 0 || peak_kib > bound_kib {
                complaints.push(format!("{name} took {peak_kib} KiB of {bound_kib}"));
            }
            if !running.process.stop(DRAIN_TIMEOUT).await.is_some_and(|status| status.success()) {
                complaints.push(format!("{name} did not stop well on SIGTERM"));
            }
        }
        (memory.join(", "), complaints)
    }

    /// Ends the load, waits for what is on the way, drains the nodes; `allowed` answers are no complaint.
    pub(crate) async fn finish(mut self, allowed: &[u16]) -> Result<Verdict, LabError> {
        let report = self.pause_load().await;
        self.await_all(&report.accepted).await?;
        let (memory, mut complaints) = self.stop().await;
        let comparison = Comparison::new(&report.accepted, &self.sink.arrivals());
        if comparison.accepted == 0 {
            complaints.push("nothing was accepted".to_owned());
        }
        let refused = report.refused.iter().filter(|(status, _)| !allowed.contains(status));
        complaints.extend(refused.map(|(status, count)| format!("{count} refused with {status}")));
        complaints.extend(comparison.complaints());
        if !complaints.is_empty() {
            self.nodes.iter().for_each(|running| println!("{}", running.process.log_tail()));
        }
        Ok(Verdict { comparison, complaints, memory })
    }
}

/// Waits until `is_so`; an error names `what` did not come.
pub(crate) async fn within(
    seconds: u64,
    what: &'static str,
    is_so: impl AsyncFn() -> bool,
) -> Result<(), LabError> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        if is_so().await {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(LabError::Late { what, seconds })
}

/// The path of a node's journals, as the node itself sees it, whatever is mounted there for it alone.
pub(crate) fn seen_by(running: &Running, path: &Path) -> PathBuf {
    let inside = path.strip_prefix("/").unwrap_or(path);
    Path::new("/proc").join(running.process.id().to_string()).join("root").join(inside)
}
