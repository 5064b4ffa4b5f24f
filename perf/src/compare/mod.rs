//! The `compare` command: two nodes, or two systems, in interleaved rounds, and whether the difference stands out.
//!
//! In: who, and a load. In each round both are started anew, each with a lab of its own, and take turns as A B, B A, so that
//! both meet the same machine. Out: medians, ratios of each round, CPU by thread, and verdicts. Refused: who does less work by refusing it.

mod outcome;
mod threads;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::outcome::{Outcome, Quantity, SideOutcome};
use self::threads::{ByName, Threads};
use self::verdict::ROUNDS_MIN;
use crate::bench::machine;
use crate::error::LabError;
use crate::lab::{Io, node_program};
use crate::report::spread::number;
use crate::results::{self, FORMAT, Round};
use crate::scenario::{Side, SideLoad, SideSetup, WARM_UP_S};

/// Options of `compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A node's program by its path, or a system: zen, zen-epoll, haproxy, nginx, ...
    #[arg(long)]
    first: String,
    /// The other one.
    #[arg(long)]
    second: String,
    /// What tables call the first [default: its file, or the system's name].
    #[arg(long)]
    first_name: Option<String>,
    /// What tables call the second.
    #[arg(long)]
    second_name: Option<String>,
    /// Rounds, each with a turn of both; with fewer than six no difference can stand out.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(i64::from(ROUNDS_MIN)..=200))]
    rounds: u32,
    /// Seconds of each turn that are measured.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Bytes of each body.
    #[arg(long, default_value_t = 1024)]
    body: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Events per second for both [default: as fast as they are answered].
    #[arg(long)]
    rate: Option<f64>,
    /// What drives nodes that are named by their paths.
    #[arg(long, value_enum, default_value_t = Io::Uring)]
    io: Io,
    /// Workers of each hop.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    workers: u32,
    /// Only the ingest hop of peers, for those that have no second one.
    #[arg(long)]
    ingest: bool,
    /// The node of `zen` and `zen-epoll` [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Directory of the labs; made anew each time. Its disk is what is measured.
    #[arg(long, default_value = "lab/compare")]
    dir: PathBuf,
    /// Write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn load(&self) -> SideLoad {
        SideLoad {
            body_bytes: self.body,
            connections: self.connections,
            rate_per_s: self.rate,
            seconds: self.seconds,
        }
    }

    /// Who side number `at` is, with its lab below `directory`.
    fn setup<'a>(&'a self, at: usize, node: &'a Path, directory: &'a Path) -> SideSetup<'a> {
        SideSetup {
            named: [&self.first, &self.second][at],
            io: self.io,
            node,
            directory,
            workers: self.workers,
            has_two_hops: !self.ingest,
            body_bytes: self.body,
        }
    }

    fn describe(&self) -> String {
        let rate = self
            .rate
            .map_or_else(|| "closed loop".to_owned(), |rate| format!("{} events/s", number(rate, 0)));
        format!(
            "bodies of {} bytes, {} connections, {rate}; {} rounds of {} s each, A B then B A; median (least to most)",
            number(self.body as f64, 0),
            number(f64::from(self.connections), 0),
            self.rounds,
            self.seconds
        )
    }

    /// The given names, or what tells the sides apart.
    fn names(&self, labels: [String; 2]) -> [String; 2] {
        let given = [&self.first_name, &self.second_name];
        let is_told_apart = labels[0] != labels[1];
        let [first, second] = labels;
        let name = |at: usize, label: String, place: &str| {
            given[at].clone().unwrap_or(if is_told_apart { label } else { place.to_owned() })
        };
        [name(0, first, "first"), name(1, second, "second")]
    }
}

/// Measures, judges and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let named = [&options.first, &options.second];
    let needs_node = named.iter().any(|named| named.starts_with("zen"));
    let node = if needs_node { node_program(options.node.as_deref())? } else { PathBuf::new() };
    // Both are looked at before either is started.
    let who = [
        Side::identify(&options.setup(0, &node, &options.dir))?,
        Side::identify(&options.setup(1, &node, &options.dir))?,
    ];
    let [(first, first_lacks), (second, second_lacks)] = who;
    let names = options.names([first, second]);
    let measured = rounds(&options, &node, &names).await?;
    let outcome = outcome(&options, names, [first_lacks, second_lacks], measured);
    outcome.lines().iter().for_each(|line| println!("{line}"));
    if let Some(path) = &options.json {
        results::write(path, &outcome)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Of one side.
#[derive(Default)]
struct Measured {
    rounds: Vec<Round>,
    threads: ByName,
    events: f64,
}

/// Both sides are started anew for each round, and whoever goes first has the first place, too: what a process was given by
/// chance, such as its memory, stays with it for as long as it runs, and would look like a difference.
async fn rounds(options: &Options, node: &Path, names: &[String; 2]) -> Result<[Measured; 2], LabError> {
    let places = ["one", "two"].map(|place| options.dir.join(place));
    for place in &places {
        std::fs::create_dir_all(place).map_err(LabError::file(place))?;
    }
    let mut all = [Measured::default(), Measured::default()];
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut sides = Vec::new();
        for (place, at) in places.iter().zip(order) {
            sides.push((at, Side::start(&options.setup(at, node, place)).await?));
        }
        for (at, side) in &mut sides {
            turn(side, &options.load(), &names[*at], &mut all[*at]).await?;
        }
        for (_, side) in sides {
            side.stop().await;
        }
        let us = [0, 1].map(|at: usize| all[at].rounds.last().map_or(f64::NAN, |one| Quantity::Cpu.of(one)));
        let of = options.rounds;
        eprintln!("round {} of {of}: {} {:.2} µs, {} {:.2} µs", round + 1, names[0], us[0], names[1], us[1]);
    }
    Ok(all)
}

/// One side's part of a round.
async fn turn(side: &mut Side, load: &SideLoad, name: &str, own: &mut Measured) -> Result<(), LabError> {
    let before = Threads::read(&side.hop_ids());
    let measured = side.measure(load).await?;
    let used = Threads::read(&side.hop_ids()).since(&before);
    check(name, &measured)?;
    for (name, us) in used {
        *own.threads.entry(name).or_default() += us;
    }
    own.events += measured.load.accepted_per_s * (measured.load.seconds + WARM_UP_S as f64);
    own.rounds.push(measured);
    Ok(())
}

/// A refused event was not carried: the figures would flatter whoever refused it.
fn check(name: &str, round: &Round) -> Result<(), LabError> {
    let load = &round.load;
    if load.refused.is_empty() && load.failed == 0 {
        return Ok(());
    }
    Err(LabError::Unequal(format!(
        "{name} refused events, by status: {:?}, and {} requests failed; both must carry all, so offer less (--rate)",
        load.refused, load.failed
    )))
}

fn outcome(
    options: &Options,
    names: [String; 2],
    lacks: [Vec<String>; 2],
    measured: [Measured; 2],
) -> Outcome {
    let mut remarks = Vec::new();
    let mut parts = names.into_iter().zip(lacks).zip(measured).map(|((name, lacks), measured)| {
        let behind = measured.rounds.iter().filter(|round| round.load.client_fell_behind).count();
        if behind > 0 {
            remarks.push(format!(
                "{name}: the load generator itself fell behind in {behind} rounds; latencies are its own"
            ));
        }
        let threads = measured.threads.into_iter().map(|(name, us)| (name, us / measured.events.max(1.0)));
        SideOutcome { name, lacks, rounds: measured.rounds, threads: threads.collect() }
    });
    let mut next = || parts.next().expect("there are two sides");
    let sides = [next(), next()];
    drop(parts);
    let mut outcome = Outcome {
        format: FORMAT,
        machine: machine(),
        command: std::env::args().collect::<Vec<_>>().join(" "),
        load: options.describe(),
        sides,
        verdicts: Vec::new(),
        remarks,
    };
    outcome.judge();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Load;

    #[test]
    fn who_refuses_events_is_not_compared() {
        let round = |load| Round { load, cpu_us: None, idle_connection_bytes: None, slowdown: None };
        assert!(check("a", &round(Load::default())).is_ok());
        let refused = Load { refused: [(503, 4)].into(), ..Load::default() };
        let words = check("a", &round(refused)).unwrap_err().to_string();
        assert!(words.contains("by status: {503: 4}") && words.contains("--rate"), "{words}");
        assert!(check("a", &round(Load { failed: 1, ..Load::default() })).is_err());
    }
}
