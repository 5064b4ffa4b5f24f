//! The `soak` command: hours of mixed load with a fault now and then, checked minute by minute.
//!
//! Each minute is a load of its own, with repeats of a tenth of its events. Out: a line a minute. It fails
//! if an accepted event never comes, or if memory, descriptors or journals of a node are still growing
//! at the end, or if a node went over its memory bound.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::crash::load_plan;
use crate::error::LabError;
use crate::faults::arena::{Arena, Setting, TUNING, VICTIM_EGRESS, VICTIM_TARGET};
use crate::faults::process::{Memory, descriptors};
use crate::lab::{Metrics, node_program};
use crate::load::{LoadReport, LoadState, run_load};
use crate::random::{Random, system_seed};
use crate::record::{Accepted, Arrivals, Comparison};
use crate::relay::Way;
use crate::sink::SinkState;
use crate::stop::StopSignal;

const ROUND: Duration = Duration::from_mins(1);
/// Incidents begin in the first half of a round, so that it ends in calm.
const INCIDENT_SECONDS_MAX: u64 = 25;
const DOWN_MS_MAX: u64 = 2000;
const REPEATS_PER_CENT: u32 = 10;
const REPEAT_CONNECTIONS: u32 = 4;
/// Growth that is still noise: the allocator's, a cache's, a segment's.
const MEMORY_GROWTH_KIB_MAX: u64 = 32 * 1024;
const DESCRIPTORS_GROWTH_MAX: u64 = 64;
const JOURNAL_GROWTH_KIB_MAX: u64 = 64 * 1024;

/// Options of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Repeats a run's choice of incidents and moments [default: random, printed].
    #[arg(long)]
    seed: Option<u64>,
    /// Connections of the load.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Events per second in the busiest minutes.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Directory of the lab; made anew.
    #[arg(long, default_value = "lab/soak")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
}

/// What happens in a round.
#[derive(Clone, Copy, Debug)]
enum Incident {
    Nothing,
    Kill(usize),
    TargetDown,
    LinkCut,
    LinkHeld,
    Reload,
}

impl Incident {
    /// Every third round on average is calm.
    fn choose(random: &mut Random, nodes: usize) -> Self {
        match random.below(9) {
            0 => Self::Kill(0),
            1 => Self::Kill(1 + random.below(nodes as u64 - 1) as usize),
            2 => Self::TargetDown,
            3 => Self::LinkCut,
            4 => Self::LinkHeld,
            5 => Self::Reload,
            _ => Self::Nothing,
        }
    }
}

/// Something that must not grow for ever, a sample a minute.
#[derive(Debug)]
struct Trend {
    what: String,
    samples: Vec<u64>,
    growth_max: u64,
}

impl Trend {
    /// The last quarter against the second; the first is for warming up.
    fn complaint(&self) -> Option<String> {
        let quarter = self.samples.len() / 4;
        let early = self.samples.get(quarter..2 * quarter)?.iter().max()?;
        let late = self.samples.get(3 * quarter..)?.iter().max()?;
        (*late > early + self.growth_max).then(|| format!("{} grew from {early} to {late}", self.what))
    }
}

/// All counts of a soak.
struct Soak {
    arena: Arena,
    random: Random,
    trends: Vec<Trend>,
    /// Accepted, not delivered yet.
    waiting: Vec<Accepted>,
    accepted: u64,
    delivered: u64,
    repeated: u64,
    recognised: u64,
    complaints: Vec<String>,
}

/// Runs it; the exit code is the verdict.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let seed = options.seed.unwrap_or_else(system_seed);
    println!("soak: seed {seed}, {} minutes", options.minutes);
    let setting = Setting {
        directory: options.dir.clone(),
        program: node_program(options.node.as_deref())?,
        workers: options.workers,
        connections: options.connections,
        rate: options.rate,
    };
    let arena = Arena::start(&setting, TUNING, |_, _| Ok(Vec::new())).await?;
    let mut soak = Soak {
        arena,
        random: Random::new(seed),
        trends: Vec::new(),
        waiting: Vec::new(),
        accepted: 0,
        delivered: 0,
        repeated: 0,
        recognised: 0,
        complaints: Vec::new(),
    };
    for minute in 1..=options.minutes {
        tokio::select! {
            round = soak.round(&options, minute) => round?,
            () = stop.wait() => {
                println!("soak: stopped by a signal; what was accepted until now is checked");
                break;
            }
        }
    }
    soak.finish(seed).await
}

impl Soak {
    async fn round(&mut self, options: &Options, minute: u32) -> Result<(), LabError> {
        // Quiet, middling and busy minutes take turns.
        let share = [4, 2, 1][minute as usize % 3];
        let plan = load_plan(&self.arena.lab, options.connections / share, options.rate / share)?;
        let mut repeats = plan.clone();
        (repeats.connections, repeats.rate_per_s) =
            (REPEAT_CONNECTIONS, plan.rate_per_s * REPEATS_PER_CENT / 100);
        let before = self.arena.next_load(plan).await;
        self.settle(before);
        let repeating = Arc::new(LoadState::default());
        let task = tokio::spawn(run_load(repeats, Arc::clone(&repeating)));
        let begun = tokio::time::Instant::now();
        let incident = self.incident().await?;
        tokio::time::sleep_until(begun + ROUND).await;
        self.arena.check()?;
        repeating.stop();
        let repeated = task.await.expect("the load does not panic");
        let main = self.arena.pause_load().await;
        self.settle_repeats(&main, repeated);
        self.settle(main);
        self.print(minute, options.minutes, incident).await;
        Ok(())
    }

    /// Something goes wrong, some time in the round.
    async fn incident(&mut self) -> Result<Incident, LabError> {
        let incident = Incident::choose(&mut self.random, self.arena.nodes.len());
        tokio::time::sleep(Duration::from_secs(self.random.below(INCIDENT_SECONDS_MAX))).await;
        let length = Duration::from_secs(2 + self.random.below(8));
        match incident {
            Incident::Nothing => {}
            Incident::Kill(index) => {
                let down = Duration::from_millis(self.random.below(DOWN_MS_MAX));
                self.arena.restart(index, down).await?;
            }
            Incident::TargetDown => self.way(VICTIM_TARGET, Way::Cut, length).await,
            Incident::LinkCut => self.way(VICTIM_EGRESS, Way::Cut, length).await,
            Incident::LinkHeld => self.way(VICTIM_EGRESS, Way::Held, length).await,
            Incident::Reload => {
                let nodes = self.arena.nodes.iter();
                nodes.for_each(|running| running.process.signal(nix::sys::signal::Signal::SIGHUP));
            }
        }
        Ok(incident)
    }

    async fn way(&self, name: &str, way: Way, length: Duration) {
        self.arena.relay(name).set(way);
        tokio::time::sleep(length).await;
        self.arena.relay(name).set(Way::Open);
    }

    /// A repeat that was called by the id of the first is done; another id is another event.
    fn settle_repeats(&mut self, main: &LoadReport, mut repeated: LoadReport) {
        let first: HashMap<u64, &str> =
            main.accepted.iter().map(|event| (event.number, event.event_id.as_str())).collect();
        let all = repeated.accepted.len();
        repeated.accepted.retain(|event| first.get(&event.number) != Some(&event.event_id.as_str()));
        self.repeated += all as u64;
        self.recognised += (all - repeated.accepted.len()) as u64;
        self.settle(repeated);
    }

    /// Takes a round's events over, and lets go of those that have come.
    fn settle(&mut self, report: LoadReport) {
        let refused = report.refused.iter();
        self.complaints.extend(refused.map(|(status, count)| format!("{count} refused with {status}")));
        self.accepted += report.accepted.len() as u64;
        self.waiting.extend(report.accepted);
        let arrived = take_arrived(&mut self.waiting, &self.arena.sink);
        self.count(&arrived);
    }

    fn count(&mut self, arrived: &Comparison) {
        self.delivered += arrived.delivered;
        self.complaints.extend(arrived.complaints());
    }

    async fn print(&mut self, minute: u32, minutes: u32, incident: Incident) {
        let mut columns = Vec::new();
        let mut samples = Vec::new();
        for running in &self.arena.nodes {
            let (name, id) = (&running.node.name, running.process.id());
            let (memory, files) = (Memory::of(id).resident_kib, descriptors(id) as u64);
            let metrics = Metrics::scrape(running.node.admin).await;
            let journal = metrics.sum("zen_journal_live_bytes", "") as u64 / 1024;
            columns.push(format!("{name} {} MiB {files} fd journal {} MiB", memory / 1024, journal / 1024));
            samples.push((format!("{name}: resident KiB"), memory, MEMORY_GROWTH_KIB_MAX));
            samples.push((format!("{name}: descriptors"), files, DESCRIPTORS_GROWTH_MAX));
            samples.push((format!("{name}: journal KiB"), journal, JOURNAL_GROWTH_KIB_MAX));
        }
        for (what, value, growth_max) in samples {
            match self.trends.iter_mut().find(|trend| trend.what == what) {
                Some(trend) => trend.samples.push(value),
                None => self.trends.push(Trend { what, samples: vec![value], growth_max }),
            }
        }
        println!(
            "soak: minute {minute} of {minutes}, {incident:?}, accepted {}, delivered {}, on the way {}, complaints {}; {}",
            self.accepted,
            self.delivered,
            self.waiting.len(),
            self.complaints.len(),
            columns.join(", ")
        );
    }

    async fn finish(mut self, seed: u64) -> Result<ExitCode, LabError> {
        let sink = Arc::clone(&self.arena.sink);
        let report = self.arena.pause_load().await;
        self.settle(report);
        self.arena.await_all(&self.waiting).await?;
        let arrived = take_arrived(&mut self.waiting, &sink);
        self.count(&arrived);
        let lost = Comparison::new(&self.waiting, &Arrivals::default());
        self.complaints.extend(lost.complaints());
        self.complaints.extend(self.trends.iter().filter_map(Trend::complaint));
        let (memory, complaints) = self.arena.stop().await;
        self.complaints.extend(complaints);
        println!(
            "soak: seed {seed}, accepted {}, delivered {}, LOST {}, repeated {} of which recognised {}, peak MiB {}",
            self.accepted,
            self.delivered,
            lost.lost.len(),
            self.repeated,
            self.recognised,
            memory
        );
        self.complaints.iter().for_each(|complaint| println!("soak FAILED: {complaint}"));
        let is_good = self.complaints.is_empty() && self.accepted > 0;
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Compares what has come with what was waited for, and forgets both.
fn take_arrived(waiting: &mut Vec<Accepted>, sink: &SinkState) -> Comparison {
    let mut arrivals = Arrivals::default();
    let (arrived, left): (Vec<Accepted>, Vec<Accepted>) =
        std::mem::take(waiting).into_iter().partition(|event| match sink.take(&event.event_id) {
            Some(arrival) => {
                arrivals.0.insert(event.event_id.clone(), arrival);
                true
            }
            None => false,
        });
    *waiting = left;
    Comparison::new(&arrived, &arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(samples: &[u64]) -> Option<String> {
        Trend { what: "m".to_owned(), samples: samples.to_vec(), growth_max: 10 }.complaint()
    }

    #[test]
    fn growth_is_told_apart_from_warming_up() {
        assert_eq!(trend(&[10, 90, 100, 100, 99, 100, 105, 110]), None);
        assert_eq!(trend(&[10, 20, 30, 40, 50, 60, 70, 80]).as_deref(), Some("m grew from 40 to 80"));
        assert_eq!(trend(&[1, 100]), None);
    }

    #[test]
    fn what_came_is_taken_once() {
        let accepted = |number: u64, event_id: &str| Accepted {
            number,
            event_id: event_id.to_owned(),
            body_sha256: [0; 32],
        };
        let sink = SinkState::default();
        sink.add("a", crate::signature::hex(&[0; 32]), None);
        sink.add("b", crate::signature::hex(&[1; 32]), None);
        let mut waiting = vec![accepted(0, "a"), accepted(1, "b"), accepted(2, "c")];
        let arrived = take_arrived(&mut waiting, &sink);
        assert_eq!((arrived.delivered, arrived.wrong_body.len(), arrived.lost.len()), (2, 1, 0));
        assert_eq!((waiting.len(), waiting[0].number, sink.distinct()), (1, 2, 0));
    }
}
