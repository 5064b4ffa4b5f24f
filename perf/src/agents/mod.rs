//! The `agents` command: what thousands of agents cost one control plane, and how fast a change reaches all of them.
//!
//! Agents are simulated in this process over real TLS, each with a key, a certificate and connections of its own; it and the
//! control plane share the machine, so each number is the sum of both ends.

mod agent;
mod crowd;
mod revocation;
mod site;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use self::crowd::Crowd;
use self::site::{Cost, Site};
use crate::bench::machine;
use crate::error::LabError;
use crate::lab::Process;
use crate::pairs::Rounds;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// After all agents have told what they run, their connections end.
const SETTLE: Duration = Duration::from_secs(2);

/// Options of `agents`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many agents, each of a cluster of its own.
    #[arg(long, default_value_t = 200)]
    count: usize,
    /// Changes that every agent gets: a denial, which is in every cluster's configuration.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds without a change.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/agents")]
    dir: PathBuf,
    /// The control plane [default: zen-control beside this program].
    #[arg(long)]
    control: Option<PathBuf>,
    /// Deny one of them each round, and a node with a live link in a lab beside them: how long until both are out.
    #[arg(long)]
    revocation: bool,
}

/// What the rounds came to.
#[derive(Default)]
struct Changes {
    command_ms: Rounds,
    p50_ms: Rounds,
    p99_ms: Rounds,
    max_ms: Rounds,
    cpu_s: Rounds,
}

/// Measures, and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    if options.revocation {
        return revocation::run(&options).await;
    }
    let site = Site::make(&options.dir, options.control.as_deref())?;
    println!("{}; {} agents and the control plane on it", machine(), options.count);
    let mut control = site.start().await?;
    let begun = Instant::now();
    let mut crowd = Crowd::enroll(&site, options.count).await?;
    println!("enrolled, with bundles and configurations by commands: {:.1} s", begun.elapsed().as_secs_f64());
    control.stop(STOP_TIMEOUT).await;

    let mut control = site.start().await?;
    let before = Cost::of(control.id());
    println!("control plane without agents: {:.1} MiB", before.resident_mib);
    let begun = Instant::now();
    crowd.start();
    crowd.wait_for(1, &mut control).await?;
    let took = begun.elapsed().as_secs_f64();
    let cost = Cost::of(control.id());
    println!(
        "all at once after a start: {took:.2} s until all have a configuration and said so, {:.2} CPU s, {} failed attempts",
        cost.cpu_s - before.cpu_s,
        crowd.take_failures()
    );
    println!("  {:.0} handshakes/s", 2.0 * options.count as f64 / took);
    tokio::time::sleep(SETTLE).await;
    rest(&options, &mut control).await?;
    let mut changes = Changes::default();
    for round in 0..options.rounds {
        changes.measure(&site, &mut crowd, &mut control, round as u64 + 2).await?;
    }
    changes.print();
    let end = Cost::of(control.id());
    println!("at the end: {:.1} MiB, at most {:.1} MiB", end.resident_mib, end.peak_mib);
    control.stop(STOP_TIMEOUT).await;
    Ok(ExitCode::SUCCESS)
}

/// What waiting and reporting cost.
async fn rest(options: &Options, control: &mut Process) -> Result<(), LabError> {
    let (before, begun) = (Cost::of(control.id()), Instant::now());
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    control.check()?;
    let (after, took) = (Cost::of(control.id()), begun.elapsed().as_secs_f64());
    let share = (after.cpu_s - before.cpu_s) / took;
    println!(
        "at rest: {:.1} MiB resident; {:.2} % of a core, {:.1} µs a second and agent",
        after.resident_mib,
        share * 100.0,
        share * 1e6 / options.count as f64
    );
    Ok(())
}

impl Changes {
    /// One change, from the command's start to each agent that has it.
    async fn measure(
        &mut self,
        site: &Site,
        crowd: &mut Crowd,
        control: &mut Process,
        version: u64,
    ) -> Result<(), LabError> {
        let (before, begun) = (Cost::of(control.id()), Instant::now());
        site.deny(&format!("spiffe://{}/nobody/{version}", crate::pki::TRUST_DOMAIN))?;
        self.command_ms.0.push(begun.elapsed().as_secs_f64() * 1e3);
        let arrivals = crowd.wait_for(version, control).await?;
        let mut times = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("bounds are in order");
        for at in arrivals {
            times.saturating_record(at.saturating_duration_since(begun).as_micros() as u64);
        }
        self.cpu_s.0.push(Cost::of(control.id()).cpu_s - before.cpu_s);
        let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        self.p50_ms.0.push(ms(0.5));
        self.p99_ms.0.push(ms(0.99));
        self.max_ms.0.push(ms(1.0));
        eprintln!("version {version}: p99 {:.0} ms, {} failed attempts", ms(0.99), crowd.take_failures());
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    fn print(&self) {
        println!(
            "a change that reaches all, from the command's start to what each agent has, ms; CPU of the control plane, s:"
        );
        println!("| the command | p50 | p99 | max | CPU s |\n|---|---|---|---|---|");
        let [command, p50, p99, max] =
            [&self.command_ms, &self.p50_ms, &self.p99_ms, &self.max_ms].map(|rounds| rounds.text(0));
        println!("| {command} | {p50} | {p99} | {max} | {} |", self.cpu_s.text(2));
    }
}
