//! `zen-sim`: runs seeds one after the other; stops at the first broken promise and says how to see it again.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use zen_sim::{Failure, Planted, Summary, run, trace};

/// Simulates the data plane under faults; a seed fixes everything.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Events that sources make in each run.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    events: u32,
    /// Plants a bug; `docs/simulation.md` lists them.
    #[arg(long)]
    fault: Option<Planted>,
    /// Prints the last steps also of a run in which all went well.
    #[arg(long)]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let mut total = Summary::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        match run(seed, arguments.events as usize, arguments.fault) {
            Ok(summary) => {
                total.add(&summary);
                if arguments.trace {
                    show(&trace(seed, arguments.events as usize, arguments.fault));
                }
            }
            Err(failure) => {
                report(&arguments, &failure);
                return ExitCode::FAILURE;
            }
        }
    }
    let Summary { steps, accepted, duplicates, delivered, dead_letters, sent_again, lost, crashes } = total;
    let seconds = begun.elapsed().as_secs_f64();
    let (first, last) = (arguments.seed, arguments.seed.saturating_add(arguments.seeds) - 1);
    println!(
        "seeds {first} to {last}: {accepted} accepted, {duplicates} duplicates, {delivered} delivered, \
         {dead_letters} dead letters, {sent_again} sent again, {lost} lost to rot, {crashes} crashes, {steps} steps, 0 broken promises, {:.0} seeds/s",
        arguments.seeds as f64 / seconds
    );
    ExitCode::SUCCESS
}

fn report(arguments: &Arguments, failure: &Failure) {
    show(&failure.trace);
    let Failure { seed, step, violation, .. } = failure;
    println!("seed {seed}, step {step}: {violation}");
    let fault = arguments.fault.map(|fault| format!(" --fault {fault}")).unwrap_or_default();
    let events = arguments.events;
    println!("again: cargo run --release -p zen-sim -- --seed {seed} --events {events}{fault}");
}

fn show(trace: &[String]) {
    for line in trace {
        println!("{line}");
    }
}
