//! The `faults` command: one fault after the other, each under a steady load in a lab of its own.
//!
//! Out: a line per fault. It fails if an accepted event was lost, if what the fault does not touch stood
//! still, if a node took more memory than its bound, or if the node did not answer the fault as its
//! documentation says.

pub(crate) mod arena;
mod clients;
mod flow;
mod host;
pub(crate) mod process;
mod strike;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use self::arena::{Arena, Setting, TUNING, VICTIM_EGRESS, Verdict};
use self::flow::FlowWatch;
use self::host::ClockTraces;
use crate::error::LabError;
use crate::lab::{Tuning, node_program};
use crate::stop::StopSignal;

const CALM: Duration = Duration::from_millis(500);
/// Small enough for a small disk to fill within seconds.
const SMALL_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const EVERY_TARGET: &[&str] = &["billing", "builds", "alerts", "archive"];
const OTHER_TARGETS: &[&str] = &["builds", "alerts", "archive"];
const OTHER_EGRESS: &[&str] = &["alerts", "archive"];

/// Options of `faults`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only this fault; repeatable [default: all].
    #[arg(long)]
    only: Vec<Fault>,
    /// How long each fault lasts at least.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many connections idle in `idle-connections`.
    #[arg(long, default_value_t = 10_000)]
    idle_connections: usize,
    /// Connections of the load.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Events per second of the load.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Directory of the lab; made anew for each fault.
    #[arg(long, default_value = "lab/faults")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// A target refuses connections.
    TargetDown,
    /// A target accepts connections and never answers.
    TargetSilent,
    /// A link is reset and refused, then held, then slow.
    LinkCut,
    /// An egress is away and the ingester's disk fills; then space returns.
    DiskFull,
    /// A target is away and the egress's disk fills; then space returns.
    DiskFullEgress,
    /// The ingester's wall clock goes an hour forward, back, an hour backward, and back.
    ClockStep,
    /// The same at an egress.
    ClockStepEgress,
    /// Sources send a byte a second.
    SlowClients,
    /// Thousands of connections say nothing.
    IdleConnections,
    /// Bodies over the bound, announced or in chunks without an end.
    EndlessBodies,
    /// What is no TLS 1.3 comes to the listeners.
    Garbage,
    /// Connections stop in mid-handshake.
    HalfHandshakes,
}

/// What must be true while a fault lasts.
struct Expected {
    accepts: bool,
    healthy: &'static [&'static str],
    refused: &'static [u16],
    /// A node, a counter and a label that tell an operator of the fault.
    told: Option<(&'static str, &'static str, &'static str)>,
}

const REFUSED: &str = "zen_requests_refused_total";

impl Fault {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn expected(self) -> Expected {
        let edge = crate::lab::INGESTER;
        let (healthy, told) = match self {
            Self::TargetDown => {
                (OTHER_TARGETS, Some((VICTIM_EGRESS, "zen_deliveries_total", "\"connect_refused\"")))
            }
            Self::TargetSilent => {
                (OTHER_TARGETS, Some((VICTIM_EGRESS, "zen_deliveries_total", "\"timed_out\"")))
            }
            Self::LinkCut => (OTHER_EGRESS, Some((VICTIM_EGRESS, "zen_link_errors_total", "\"connect\""))),
            Self::DiskFull => (&[][..], Some((edge, REFUSED, "\"journal\""))),
            Self::DiskFullEgress => (OTHER_EGRESS, None),
            Self::ClockStep => (&[][..], Some((VICTIM_EGRESS, "zen_link_errors_total", "\"stale\""))),
            Self::ClockStepEgress => {
                (OTHER_EGRESS, Some((VICTIM_EGRESS, "zen_link_errors_total", "\"stale\"")))
            }
            Self::SlowClients => (EVERY_TARGET, Some((edge, REFUSED, "\"timeout\""))),
            Self::IdleConnections => (EVERY_TARGET, None),
            Self::EndlessBodies => (EVERY_TARGET, Some((edge, REFUSED, "\"too_large\""))),
            Self::Garbage => (EVERY_TARGET, Some((edge, REFUSED, "\"tls\""))),
            Self::HalfHandshakes => (EVERY_TARGET, Some((edge, REFUSED, "\"handshake\""))),
        };
        // Sources sign with their own clocks: to an ingester an hour off they are stale.
        let refused: &[u16] = if self == Self::ClockStep { &[401] } else { &[] };
        Expected { accepts: self != Self::DiskFull, healthy, refused, told }
    }

    fn tuning(self) -> Tuning {
        match self {
            Self::DiskFull | Self::DiskFullEgress => {
                Tuning { segment_bytes: Some(SMALL_SEGMENT_BYTES), ..TUNING }
            }
            _ => TUNING,
        }
    }

    async fn start(self, setting: &Setting) -> Result<Arena, LabError> {
        Arena::start(setting, self.tuning(), |lab, node| match self {
            Self::DiskFull if node.name == crate::lab::INGESTER => host::on_small_disk(lab, node),
            Self::DiskFullEgress if node.name == VICTIM_EGRESS => host::on_small_disk(lab, node),
            Self::ClockStep if node.name == crate::lab::INGESTER => host::with_clock(lab, node),
            Self::ClockStepEgress if node.name == VICTIM_EGRESS => host::with_clock(lab, node),
            _ => Ok(Vec::new()),
        })
        .await
    }

    /// The whole of one fault: calm, fault, calm, and the count of what was lost.
    async fn run(self, options: &Options, setting: &Setting) -> Result<(Verdict, String), LabError> {
        let expected = self.expected();
        let mut arena = self.start(setting).await?;
        let _traces = ClockTraces::of(&arena.nodes);
        tokio::time::sleep(CALM).await;
        let watch = FlowWatch::start(arena.load.clone(), arena.sink.clone(), arena.targets());
        let struck = strike::strike(self, &mut arena, options).await;
        let gaps = watch.stop();
        arena.check()?;
        let mut struck = struck?;
        struck.complaints.extend(gaps.complaints(expected.accepts, expected.healthy));
        if let Some((node, metric, label)) = expected.told
            && Arena::counter(arena.node(node), metric, label).await < 1.0
        {
            struck.complaints.push(format!("{node} does not count {metric} {label}"));
        }
        tokio::time::sleep(CALM).await;
        let mut verdict = arena.finish(expected.refused).await?;
        verdict.complaints.extend(struck.complaints);
        Ok((verdict, struck.note))
    }
}

/// Runs the faults; the exit code is the verdict over all of them.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let setting = Setting {
        directory: options.dir.clone(),
        program: node_program(options.node.as_deref())?,
        workers: options.workers,
        connections: options.connections,
        rate: options.rate,
    };
    let faults = if options.only.is_empty() { Fault::value_variants() } else { &options.only };
    let mut failed = 0;
    for fault in faults {
        let begun = Instant::now();
        let outcome = tokio::select! {
            outcome = fault.run(&options, &setting) => outcome,
            () = stop.wait() => return Ok(ExitCode::FAILURE),
        };
        let head = format!("fault {}: {} s", fault.name(), begun.elapsed().as_secs());
        let complaints = match outcome {
            Ok((verdict, note)) => {
                println!("{head}, {}{note}", verdict.line());
                verdict.complaints
            }
            Err(error) => vec![error.to_string()],
        };
        for complaint in &complaints {
            println!("fault {} FAILED: {complaint}", fault.name());
        }
        failed += u32::from(!complaints.is_empty());
    }
    println!("faults: {} run, {failed} failed", faults.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
