//! The `crash` command: SIGKILLs nodes at random moments under load, then looks for every promised event.
//!
//! Half of the kills come right behind a 202, when a promise that is not on disk would break. Out: seed,
//! kills, accepted, delivered, duplicates and LOST; success if nothing was lost, nothing accepted twice, and each delivery has its one receipt,
//! or with `--expect-loss` only if something was lost.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::LabError;
use crate::lab::{Io, Lab, Node, Process, Shape, TARGET_IDENTITY, Tuning, node_program, wait_ready};
use crate::load::{LoadPlan, LoadReport, LoadState, Record, Repeats, run_load};
use crate::random::{Random, system_seed};
use crate::receipts;
use crate::record::{Accepted, Comparison};
use crate::samples::{Samples, Sizes};
use crate::sink::{Sink, SinkState};
use crate::stop::StopSignal;
use crate::tls::{source_config, target_config};

const CALM_MS_MIN: u64 = 50;
const CALM_MS_MAX: u64 = 1000;
const DOWN_MS_MAX: u64 = 200;
/// How long a moment behind an answer is waited for.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Load behind the last fault.
pub(crate) const LAST_LOAD: Duration = Duration::from_secs(1);
/// Longer than the third pause of the retry schedule, 30 s with its jitter.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(45);
/// How long a node may take to stop.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
const PROGRESS_KILLS: u32 = 10;

/// Options of `crash`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often a node is killed.
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// Repeats a run's choice of victims and moments [default: random, printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Connections of the load.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Events per second; 0 is as fast as the answers come.
    #[arg(long, default_value_t = 400)]
    rate: u32,
    /// Succeed only if events were lost and nothing else was wrong: for a build that answers too early.
    #[arg(long)]
    expect_loss: bool,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/crash")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// What drives the nodes' sockets and files.
    #[arg(long, value_enum, default_value_t)]
    io: Io,
}

/// A lab whose nodes may be killed.
pub(crate) struct Arena {
    pub(crate) lab: Lab,
    program: PathBuf,
    /// The ingester first; each beside its process.
    pub(crate) nodes: Vec<(Node, Process)>,
    pub(crate) kills: Vec<u32>,
    pub(crate) load: Arc<LoadState>,
}

/// Kills and counts; the exit code is the verdict.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let seed = options.seed.unwrap_or_else(system_seed);
    println!("crash: seed {seed}, {} kills", options.kills);
    let program = node_program(options.node.as_deref())?;
    let tuning = Tuning { sections: ["", receipts::SECTION], ..Tuning::NONE };
    let mut lab = Lab::make_tuned(&options.dir, Shape::CRASH, options.workers, tuning)?;
    lab.io = options.io;
    let sink = serve_targets(&lab).await?;
    let plan = load_plan(&lab, options.connections, options.rate)?;
    let mut arena = Arena::start(lab, program).await?;
    let sending = tokio::spawn(run_load(plan, Arc::clone(&arena.load)));
    let mut random = Random::new(seed);
    tokio::select! {
        killed = arena.kill_all(options.kills, &mut random) => killed?,
        () = stop.wait() => println!("crash: stopped by a signal; what was accepted until now is checked"),
    }
    arena.load.stop();
    let report = sending.await.expect("the load does not panic");
    await_arrivals(&report.accepted, &sink, || arena.check()).await?;
    let mut complaints = arena.stop().await;
    let arrivals = sink.arrivals();
    let (lines, faults) = receipts::check(&arena.lab, &arrivals)?;
    println!("crash: {lines} lines of receipts");
    complaints.extend(faults);
    let comparison = Comparison::new(&report.accepted, &arrivals);
    Ok(arena.judge(&options, seed, &report, &comparison, complaints))
}

impl Arena {
    pub(crate) async fn start(lab: Lab, program: PathBuf) -> Result<Self, LabError> {
        let mut nodes = Vec::new();
        for node in std::iter::once(&lab.ingester).chain(&lab.egresses) {
            let process = lab.start(node, &program)?;
            nodes.push((node.clone(), process));
        }
        for (node, process) in &mut nodes {
            wait_ready(node, process).await?;
        }
        let kills = vec![0; nodes.len()];
        Ok(Self { lab, program, nodes, kills, load: Arc::new(LoadState::default()) })
    }

    pub(crate) async fn kill_all(&mut self, kills: u32, random: &mut Random) -> Result<(), LabError> {
        for kill in 1..=kills {
            self.kill_one(random).await?;
            if kill % PROGRESS_KILLS == 0 {
                let accepted = self.load.accepted.load(Ordering::Relaxed);
                println!("crash: {kill} kills, {accepted} events accepted");
            }
        }
        tokio::time::sleep(LAST_LOAD).await;
        Ok(())
    }

    /// One kill and the restart after it. Every second victim is the ingester, which makes the promises.
    async fn kill_one(&mut self, random: &mut Random) -> Result<(), LabError> {
        let calm = random.below(CALM_MS_MAX - CALM_MS_MIN) + CALM_MS_MIN;
        let behind_answer = random.below(2) == 0;
        let victim =
            if random.below(2) == 0 { 0 } else { 1 + random.below(self.nodes.len() as u64 - 1) as usize };
        let down = random.below(DOWN_MS_MAX);
        tokio::time::sleep(Duration::from_millis(calm)).await;
        self.check()?;
        if behind_answer {
            // No answer within the time is as good a moment as any.
            drop(tokio::time::timeout(ANSWER_WAIT, self.load.answered.notified()).await);
        }
        let (node, process) = &mut self.nodes[victim];
        process.kill();
        self.kills[victim] += 1;
        tokio::time::sleep(Duration::from_millis(down)).await;
        *process = self.lab.start(node, &self.program)?;
        wait_ready(node, process).await
    }

    /// An error if a node has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), LabError> {
        self.nodes.iter_mut().try_for_each(|(_, process)| process.check())
    }

    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (node, process) in &mut self.nodes {
            if !process.stop(DRAIN_TIMEOUT).await.is_some_and(|status| status.success()) {
                complaints.push(format!("{} did not stop well on SIGTERM", node.name));
            }
        }
        complaints
    }

    fn judge(
        &self,
        options: &Options,
        seed: u64,
        report: &LoadReport,
        comparison: &Comparison,
        complaints: Vec<String>,
    ) -> ExitCode {
        let kills: Vec<String> = self
            .nodes
            .iter()
            .zip(&self.kills)
            .map(|((node, _), kills)| format!("{} {kills}", node.name))
            .collect();
        println!(
            "crash: seed {seed}, kills {} ({}), accepted {}, delivered {}, duplicates {}, unanswered {}, retries {}, LOST {}",
            self.kills.iter().sum::<u32>(),
            kills.join(", "),
            comparison.accepted,
            comparison.delivered,
            comparison.duplicates,
            comparison.unanswered,
            self.load.retries.load(Ordering::Relaxed),
            comparison.lost.len()
        );
        let has_lost = !comparison.lost.is_empty();
        let only_lost = print_complaints("crash", report, comparison, complaints);
        let is_good = only_lost && has_lost == options.expect_loss;
        if !is_good && !options.expect_loss {
            self.nodes.iter().for_each(|(_, process)| println!("{}", process.log_tail()));
        }
        if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Prints, under the command's `name`, `complaints` and all that a run without refusals should not show. Returns
/// whether there is nothing but lost events.
pub(crate) fn print_complaints(
    name: &str,
    report: &LoadReport,
    comparison: &Comparison,
    mut complaints: Vec<String>,
) -> bool {
    complaints.extend(report.refused.iter().map(|(status, count)| format!("{count} refused with {status}")));
    if comparison.accepted == 0 {
        complaints.push("nothing was accepted".to_owned());
    }
    let only_lost = complaints.is_empty() && comparison.is_whole_but_lost();
    complaints.extend(comparison.complaints());
    for complaint in &complaints {
        println!("{name}: {complaint}");
    }
    only_lost
}

/// Waits until all accepted events have come, or none has come for long; `check` says whether the nodes live.
pub(crate) async fn await_arrivals(
    accepted: &[Accepted],
    sink: &SinkState,
    mut check: impl FnMut() -> Result<(), LabError>,
) -> Result<(), LabError> {
    let mut distinct = 0;
    let mut last_arrival = Instant::now();
    while last_arrival.elapsed() < ARRIVAL_TIMEOUT {
        check()?;
        if sink.distinct() != distinct {
            distinct = sink.distinct();
            last_arrival = Instant::now();
        }
        let has_all =
            distinct >= accepted.len() && Comparison::new(accepted, &sink.arrivals()).lost.is_empty();
        if has_all {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// All targets in one listener of this process.
pub(crate) async fn serve_targets(lab: &Lab) -> Result<Arc<SinkState>, LabError> {
    let (certificate, key) = (lab.pki.certificate(TARGET_IDENTITY), lab.pki.key(TARGET_IDENTITY));
    let state = Arc::new(SinkState::default());
    let tls = TlsAcceptor::from(target_config(&certificate, &key, &lab.pki.bundle())?);
    let sink = Sink::new(tls, &lab.targets, Record::Events, Arc::clone(&state));
    let listener =
        TcpListener::bind(lab.target).await.map_err(LabError::socket("cannot listen as the targets"))?;
    tokio::spawn(sink.serve(listener));
    Ok(state)
}

/// Realistic events for all endpoints, each remembered.
pub(crate) fn load_plan(lab: &Lab, connections: u32, rate_per_s: u32) -> Result<LoadPlan, LabError> {
    Ok(LoadPlan {
        address: lab.public,
        tls: TlsConnector::from(source_config(&lab.pki.public_ca())?),
        endpoints: Arc::clone(&lab.endpoints),
        samples: Arc::new(Samples::new(Sizes::Realistic)?),
        connections,
        events_max: u64::MAX,
        rate_per_s,
        record: Record::Events,
        run: system_seed(),
        repeats: Repeats::None,
    })
}
