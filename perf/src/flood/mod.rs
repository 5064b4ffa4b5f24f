//! The `flood` command: what is left for events while a prefix of addresses sends SYNs and junk at their listener.
//!
//! Sources and flood are in a namespace of their own. The flood's pace is what one thread reaches while nobody guards; with the
//! guard on it sends as many packets a second, since a flood from elsewhere would not get faster either. Its thread goes before
//! all else, as packets from elsewhere would. What sending takes of these cores is not what is asked: so undisturbed is the phase in
//! which as much is sent to somebody else's hardware address. Phases take turns; each has nodes of its own.

mod network;
mod packets;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use self::network::{INSIDE, Outside};
use self::packets::FloodState;
use crate::bench::{Contender, Kind, Programs, machine};
use crate::error::LabError;
use crate::lab::{Metrics, Shape, Tuning, node_program};
use crate::load::{LoadPlan, LoadState, run_load};
use crate::pairs::Rounds;

const PHASES: usize = 6;
/// Places in [`Phase::ALL`].
const ELSEWHERE: usize = 1;
const UNGUARDED: usize = 2;
/// The hardware address of nobody.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 9];
const KEPT_MIN: f64 = 0.80;
const UNGUARDED_MAX: f64 = 0.60;
const WARM_UP: Duration = Duration::from_secs(1);
const BODY_BYTES: usize = 1024;
const REFUSED: &str = "zen_guard_packets_total";

/// By its /24 the flood may try 200 connections a second; its junk passes.
const BUDGETS: &str =
    "[ebpf.guard]\nmode = \"enforce\"\nrequired = true\nsource_bits_v4 = 24\nsyn_per_second = 200\n";
const DENIED: &str = "[ebpf.guard]\nmode = \"enforce\"\nrequired = true\ndeny = [\"10.79.0.0/24\"]\n";
const DENIED_EARLY: &str = "[ebpf.guard]\nmode = \"enforce\"\nrequired = true\ndeny = [\"10.79.0.0/24\"]\n\
    interfaces = [\"zen-flood\"]\n";

/// Options of `flood`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rounds over all phases.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that are measured, of each phase.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections of the sources, kept alive.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Packets per second of the flood [default: as many as one thread sends while nobody guards].
    #[arg(long)]
    packets: Option<u64>,
    /// Directory of the labs; made anew each time.
    #[arg(long, default_value = "lab/flood")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Fail if a goal is missed.
    #[arg(long)]
    strict: bool,
}

/// What a phase has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Quiet,
    Elsewhere,
    Unguarded,
    Budgets,
    Denied,
    DeniedEarly,
}

impl Phase {
    const ALL: [Self; PHASES] =
        [Self::Quiet, Self::Elsewhere, Self::Unguarded, Self::Budgets, Self::Denied, Self::DeniedEarly];

    fn label(self) -> &'static str {
        match self {
            Self::Quiet => "nothing is sent",
            Self::Elsewhere => "undisturbed: as much is sent, to somebody else",
            Self::Unguarded => "flood, guard off",
            Self::Budgets => "flood, budget of SYNs",
            Self::Denied => "flood, denied at the sockets",
            Self::DeniedEarly => "flood, denied at the interface (generic XDP)",
        }
    }

    fn sections(self) -> &'static str {
        match self {
            Self::Quiet | Self::Elsewhere | Self::Unguarded => "",
            Self::Budgets => BUDGETS,
            Self::Denied => DENIED,
            Self::DeniedEarly => DENIED_EARLY,
        }
    }
}

/// What one phase came to, a second.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    events: f64,
    packets: f64,
    refused: f64,
}

/// Prints a table and a line for the goal.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let program = node_program(options.node.as_deref())?;
    println!("{}", machine());
    let outside = Arc::new(Outside::make()?);
    let pace = match options.packets {
        Some(pace) => pace,
        None => phase(&options, &program, &outside, Phase::Unguarded, 0).await?.packets as u64,
    };
    println!(
        "{} rounds, {} s each phase, {pace} packets/s, three quarters of them SYNs",
        options.rounds, options.seconds
    );
    let mut rounds: Vec<[Figures; PHASES]> = Vec::new();
    for round in 0..options.rounds {
        let mut figures = [Figures::default(); PHASES];
        for turn in 0..Phase::ALL.len() {
            let at = (round + turn) % Phase::ALL.len();
            figures[at] = phase(&options, &program, &outside, Phase::ALL[at], pace).await?;
        }
        let events = figures.map(|figures| format!("{:.0}", figures.events));
        eprintln!("round {}: {} events/s", round + 1, events.join(", "));
        rounds.push(figures);
    }
    let met = report(&rounds);
    Ok(if met || !options.strict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Nodes with the phase's sections, load and flood beside each other; `pace` 0 is as fast as can be.
async fn phase(
    options: &Options,
    program: &std::path::Path,
    outside: &Arc<Outside>,
    phase: Phase,
    pace: u64,
) -> Result<Figures, LabError> {
    let programs = Programs { node: program.to_owned() };
    let tuning = Tuning { public: Some(INSIDE), sections: [phase.sections(), ""], ..Tuning::NONE };
    let (directory, workers) = (&options.dir, options.workers);
    let mut mesh =
        Contender::start_tuned(Kind::Uring, directory, workers, &programs, Shape::BENCH, tuning).await?;
    let plan = LoadPlan {
        connections: options.connections,
        ..mesh.load_plan(mesh.lab.endpoints[..1].to_vec().into(), BODY_BYTES)?
    };
    let (load, flood) = (Arc::new(LoadState::default()), Arc::new(FloodState::default()));
    let to = mesh.lab.public;
    let mac = if phase == Phase::Elsewhere { NOBODY } else { outside.mac()? };
    let sending = outside_thread(outside, {
        let load = Arc::clone(&load);
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime =
                runtime.map_err(|source| LabError::Socket { what: "the sources' runtime", source })?;
            runtime.block_on(run_load(plan, load));
            Ok(())
        }
    });
    tokio::time::sleep(WARM_UP).await;
    let flooding = (phase != Phase::Quiet).then(|| {
        let flood = Arc::clone(&flood);
        outside_thread(outside, move || packets::send(to, mac, pace, &flood))
    });
    tokio::time::sleep(WARM_UP).await;
    let counts = async |mesh: &Contender| {
        let refused = Metrics::scrape(mesh.lab.ingester.admin).await.sum(REFUSED, "refused");
        (load.accepted.load(Ordering::Relaxed) as f64, flood.sent.load(Ordering::Relaxed) as f64, refused)
    };
    let (before, begun) = (counts(&mesh).await, Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (after, seconds) = (counts(&mesh).await, begun.elapsed().as_secs_f64());
    flood.stopping.store(true, Ordering::Relaxed);
    load.stop();
    for thread in std::iter::once(sending).chain(flooding) {
        thread.join().expect("neither load nor flood panics")?;
    }
    mesh.stop().await;
    Ok(Figures {
        events: (after.0 - before.0) / seconds,
        packets: (after.1 - before.1) / seconds,
        refused: (after.2 - before.2) / seconds,
    })
}

fn outside_thread(
    outside: &Arc<Outside>,
    work: impl FnOnce() -> Result<(), LabError> + Send + 'static,
) -> std::thread::JoinHandle<Result<(), LabError>> {
    let outside = Arc::clone(outside);
    std::thread::spawn(move || {
        outside.enter()?;
        work()
    })
}

fn report(rounds: &[[Figures; PHASES]]) -> bool {
    println!("\n| | events/s | of undisturbed | packets/s sent | refused |\n|---|---|---|---|---|");
    let mut kept = [0.0; PHASES];
    for (at, phase) in Phase::ALL.into_iter().enumerate() {
        let of = |pick: fn(&Figures) -> f64| Rounds(rounds.iter().map(|round| pick(&round[at])).collect());
        let ratio = |round: &[Figures; PHASES]| round[at].events / round[ELSEWHERE].events;
        let ratios = Rounds(rounds.iter().map(ratio).collect());
        kept[at] = ratios.median();
        println!(
            "| {} | {} | {} | {:.0} | {:.0} |",
            phase.label(),
            of(|figures| figures.events).text(0),
            ratios.text(2),
            of(|figures| figures.packets).median(),
            of(|figures| figures.refused).median(),
        );
    }
    let counts = kept[UNGUARDED] < UNGUARDED_MAX;
    let best = kept[UNGUARDED + 1..].iter().copied().fold(0.0, f64::max);
    let verdict = match (counts, best >= KEPT_MIN) {
        (false, _) => "does not count: without a guard more than 0.60 is left",
        (true, true) => "met",
        (true, false) => "missed",
    };
    println!(
        "\ngoal flood: {best:.2} kept with the guard (wanted >= {KEPT_MIN:.2}), {:.2} without: {verdict}",
        kept[UNGUARDED]
    );
    counts && best >= KEPT_MIN
}
