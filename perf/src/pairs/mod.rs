//! The `pairs` command: what one thing costs another, in paired rounds at half load.
//!
//! Each comparison measures twice in a round, with and without, in an order that changes; what counts is the median of
//! the rounds' ratios. Half load is the rate at which the machine is half busy, sender and targets included: half of the
//! highest rate would not do, since batches are smaller then and each event costs more. A line for each goal.

mod costs;
mod ebpf;
mod flights;
mod isolation;
mod receipts;
mod replay;
mod stage;
mod switched;
mod targets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use self::isolation::nine_of_ten;
use crate::bench::machine;
use crate::error::LabError;
use crate::lab::node_program;

/// Options of `pairs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is compared.
    #[arg(value_enum, value_delimiter = ',', default_values_t = [Comparison::Isolation, Comparison::Replay, Comparison::Costs, Comparison::Ebpf, Comparison::Receipts])]
    comparisons: Vec<Comparison>,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Seconds that are measured, of each half of a round.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Connections of the load.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Events per second [default: those at which the machine is half busy].
    #[arg(long)]
    rate: Option<u32>,
    /// Dead letters that are replayed, over all rounds.
    #[arg(long, default_value_t = 100_000)]
    letters: u64,
    /// Directory of the labs; made anew each time.
    #[arg(long, default_value = "lab/pairs")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Fail if a goal is missed.
    #[arg(long)]
    strict: bool,
}

impl Options {
    /// What a scenario asks for.
    fn of(directory: &Path, (rounds, seconds): (usize, u64), connections: u32) -> Self {
        Self {
            comparisons: Vec::new(),
            rounds,
            seconds,
            connections,
            rate: None,
            letters: 0,
            dir: directory.to_owned(),
            node: None,
            workers: 1,
            strict: false,
        }
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Comparison {
    /// Deliveries to seventeen targets, while three others are dead, slow and lying.
    Isolation,
    /// Live deliveries, while dead letters are replayed.
    Replay,
    /// CPU per event with all BPF programs on, beside all off.
    Ebpf,
    /// CPU per event with receipts, beside none.
    Receipts,
    /// CPU per event of a condition, a transform and a fan-out beside the plain path.
    Costs,
}

/// Measures and prints.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let program = node_program(options.node.as_deref())?;
    println!("{}", machine());
    println!(
        "{} rounds, {} s each half, workers = {}, nothing pinned; median (least to most)\n",
        options.rounds, options.seconds, options.workers
    );
    let mut met = true;
    for comparison in &options.comparisons {
        met &= match comparison {
            Comparison::Isolation => isolation::run(&options, &program).await?,
            Comparison::Replay => replay::run(&options, &program).await?,
            Comparison::Ebpf => ebpf::run(&options, &program).await?,
            Comparison::Receipts => receipts::run(&options, &program).await?,
            Comparison::Costs => costs::run(&options, &program).await?,
        };
        println!();
    }
    Ok(if met || !options.strict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Values of the rounds.
#[derive(Debug, Default)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

impl Rounds {
    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// `median (least to most)` with `digits` after the point.
    pub(crate) fn text(&self, digits: usize) -> String {
        let ends = |fold: fn(f64, f64) -> f64, start| self.0.iter().copied().fold(start, fold);
        let (least, most) = (ends(f64::min, f64::INFINITY), ends(f64::max, f64::NEG_INFINITY));
        format!("{:.digits$} ({least:.digits$} to {most:.digits$})", self.median())
    }
}

/// What was not measured is not met.
fn goal(name: &str, ratios: &Rounds, most: f64) -> bool {
    let met = ratios.median() <= most;
    let verdict = if met { "met" } else { "missed" };
    println!("goal {name}: {} (wanted <= {most:.2}) {verdict}", ratios.text(3));
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_about_the_median() {
        let ratios = Rounds(vec![1.2, 0.9, 1.04]);
        assert_eq!(ratios.text(2), "1.04 (0.90 to 1.20)");
        assert!(goal("a", &ratios, 1.05));
        assert!(!goal("a", &ratios, 1.03));
        assert!(!goal("nothing", &Rounds::default(), 1.0));
    }
}
