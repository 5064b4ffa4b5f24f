//! The `power` command: takes the power from nodes at random moments under load, together with what
//! their drives had not flushed, then looks for every promised event.
//!
//! In the ordinary run each node's `data_dir` is an ext4 on a [`drive`] through a loop device. With
//! `--guest` the ingester is a machine of its own, in QEMU with such a drive. Out: seed, cuts, accepted,
//! delivered, duplicates and LOST; success if nothing was lost, or with `--expect-loss` or
//! `--lying-drive` only if something was.

mod drive;
mod guest;
mod mount;
mod site;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::drive::{Cut, Flushes};
use self::guest::GuestSite;
use self::site::Site;
pub(crate) use self::volume::enter_namespace;
use crate::crash::{ANSWER_WAIT, LAST_LOAD, await_arrivals, load_plan, print_complaints, serve_targets};
use crate::error::LabError;
use crate::lab::{Lab, Shape, node_program};
use crate::load::{LoadReport, LoadState, run_load};
use crate::random::{Random, system_seed};
use crate::record::Comparison;
use crate::stop::StopSignal;

const CALM_MS_MIN: u64 = 50;
const CALM_MS_MAX: u64 = 800;
const LOAD_WAIT: Duration = Duration::from_secs(30);
const PROGRESS_CUTS: u32 = 10;

/// Options of `power`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often the power is cut.
    #[arg(long, default_value_t = 10)]
    cuts: u32,
    /// Repeats a run's choice of victims, moments and lost writes [default: random, printed].
    #[arg(long)]
    seed: Option<u64>,
    /// The ingester runs in a QEMU guest, which is killed.
    #[arg(long)]
    guest: bool,
    /// Connections of the load.
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Events per second; 0 is as fast as the answers come.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Succeed only if events were lost and nothing else was wrong: for a node that answers too early.
    #[arg(long)]
    expect_loss: bool,
    /// Drives answer flushes and ignore them: succeed only if events or a whole file system were lost.
    #[arg(long)]
    lying_drive: bool,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/power")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Builds and boots guests.
    #[arg(long, default_value = "scripts/vm")]
    vm: PathBuf,
}

impl Options {
    /// Beside the lab, which is made later.
    fn initramfs(&self) -> Result<PathBuf, LabError> {
        let path = self.dir.with_extension("initramfs");
        std::path::absolute(&path).map_err(LabError::file(&path))
    }
}

/// What loses power.
enum Arena {
    Site(Site),
    Guest(Box<GuestSite>),
}

/// Cuts and counts; the exit code is the verdict. The process is in a mount namespace of its own.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let seed = options.seed.unwrap_or_else(system_seed);
    let what = if options.guest { "cuts of a guest" } else { "cuts" };
    println!("power: seed {seed}, {} {what}", options.cuts);
    let shape = if options.guest { Shape::POWER_GUEST } else { Shape::POWER };
    if options.guest {
        // Before the lab, whose ports should not lie idle for long.
        guest::build(&options.vm, &node_program(options.node.as_deref())?, &options.initramfs()?)?;
    }
    let lab = Lab::make(&options.dir, shape, 1)?;
    let sink = serve_targets(&lab).await?;
    let mut arena = tokio::select! {
        arena = Arena::start(&lab, &options) => arena?,
        () = stop.wait() => return Ok(ExitCode::FAILURE),
    };
    let load = Arc::new(LoadState::default());
    let plan = load_plan(&lab, options.connections, options.rate)?;
    let sending = tokio::spawn(run_load(plan, Arc::clone(&load)));
    let mut lost = Cut::default();
    let mut random = Random::new(seed);
    tokio::select! {
        cut = arena.cut_all(&lab, options.cuts, &load, &mut random, &mut lost) => match cut {
            Err(error @ LabError::FileSystem(_)) if options.lying_drive => {
                println!("power: caught, {error}");
                return Ok(ExitCode::SUCCESS);
            }
            cut => cut?,
        },
        () = stop.wait() => {
            println!("power: stopped by a signal");
            return Ok(ExitCode::FAILURE);
        }
    }
    load.stop();
    let report = sending.await.expect("the load does not panic");
    await_arrivals(&report.accepted, &sink, || arena.check()).await?;
    let complaints = arena.stop().await;
    let comparison = Comparison::new(&report.accepted, &sink.arrivals());
    println!("power: {} unflushed writes met, {} sectors of them lost", lost.writes, lost.sectors_lost);
    Ok(arena.judge(&options, seed, &report, &comparison, complaints))
}

impl Arena {
    async fn start(lab: &Lab, options: &Options) -> Result<Self, LabError> {
        let program = node_program(options.node.as_deref())?;
        let flushes = if options.lying_drive { Flushes::Ignored } else { Flushes::Honoured };
        if options.guest {
            let guest = GuestSite::start(lab, &options.vm, &program, &options.initramfs()?, flushes).await?;
            return Ok(Self::Guest(Box::new(guest)));
        }
        Site::start(lab, program, flushes).await.map(Self::Site)
    }

    async fn cut_all(
        &mut self,
        lab: &Lab,
        cuts: u32,
        load: &LoadState,
        random: &mut Random,
        lost: &mut Cut,
    ) -> Result<(), LabError> {
        for number in 1..=cuts {
            if matches!(self, Self::Guest(_)) {
                // Sources need long to come back to an emulated processor; without load a cut shows nothing.
                drop(tokio::time::timeout(LOAD_WAIT, load.answered.notified()).await);
            }
            let calm = random.below(CALM_MS_MAX - CALM_MS_MIN) + CALM_MS_MIN;
            let behind_answer = random.below(2) == 0;
            tokio::time::sleep(Duration::from_millis(calm)).await;
            self.check()?;
            if behind_answer {
                // No answer within the time is as good a moment as any.
                drop(tokio::time::timeout(ANSWER_WAIT, load.answered.notified()).await);
            }
            let cut = match self {
                Self::Site(site) => site.cut(lab, random).await?,
                Self::Guest(guest) => guest.cut(random).await?,
            };
            *lost += cut;
            if number % PROGRESS_CUTS == 0 {
                println!("power: {number} cuts, {} events accepted", load.accepted.load(Ordering::Relaxed));
            }
        }
        tokio::time::sleep(LAST_LOAD).await;
        Ok(())
    }

    fn check(&mut self) -> Result<(), LabError> {
        match self {
            Self::Site(site) => site.check(),
            Self::Guest(guest) => guest.check(),
        }
    }

    async fn stop(&mut self) -> Vec<String> {
        match self {
            Self::Site(site) => site.stop().await,
            Self::Guest(guest) => guest.stop().await,
        }
    }

    fn judge(
        &self,
        options: &Options,
        seed: u64,
        report: &LoadReport,
        comparison: &Comparison,
        complaints: Vec<String>,
    ) -> ExitCode {
        let (cuts, logs) = match self {
            Self::Site(site) => (site.cuts(), site.logs()),
            Self::Guest(guest) => (guest.cuts(), guest.logs()),
        };
        if let Self::Guest(guest) = self {
            let (shortest, longest) = guest.boot_times();
            println!(
                "power: boots of {:.1} to {:.1} s to a ready node",
                shortest.as_secs_f64(),
                longest.as_secs_f64()
            );
        }
        let by_node: Vec<String> = cuts.iter().map(|(name, cuts)| format!("{name} {cuts}")).collect();
        println!(
            "power: seed {seed}, cuts {} ({}), accepted {}, delivered {}, duplicates {}, unanswered {}, LOST {}",
            options.cuts,
            by_node.join(", "),
            comparison.accepted,
            comparison.delivered,
            comparison.duplicates,
            comparison.unanswered,
            comparison.lost.len()
        );
        let has_lost = !comparison.lost.is_empty();
        let only_lost = print_complaints("power", report, comparison, complaints);
        let expects_loss = options.expect_loss || options.lying_drive;
        let is_good = has_lost == expects_loss && (only_lost || options.lying_drive);
        if !is_good && !expects_loss {
            println!("{logs}");
        }
        if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
