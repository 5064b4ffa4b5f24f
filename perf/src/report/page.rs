//! The page: what is in its tables, as text. Everything is escaped by the template but the plots, which escape themselves.

use askama::Template;

use super::canvas::{Mark, Plot};
use super::group::{Group, accepted_per_s, cpu, is_held, latency_us, offered_text, rounds_that};
use super::spread::{Spread, number};
use super::{bars, lines};
use crate::results::{CpuPerEvent, Load, Row, Run, Stages};

const NOT_MEASURED: &str = "–";
const GIB: f64 = 1_073_741_824.0;

/// The whole report.
#[derive(Template)]
#[template(path = "report.html")]
pub(super) struct Page {
    pub(super) runs: Vec<RunPart>,
}

impl Page {
    /// Of runs in the order in which they were named.
    pub(super) fn new(runs: &[Run]) -> Self {
        let mut systems: Vec<&str> = Vec::new();
        for system in runs.iter().flat_map(|run| &run.rows).map(|row| row.system.as_str()) {
            if !systems.contains(&system) {
                systems.push(system);
            }
        }
        let mark_of = |system: &str| {
            Mark::of(systems.iter().position(|known| *known == system).unwrap_or(systems.len()))
        };
        let alone = runs.len() == 1;
        let prefix = |at: usize| if alone { String::new() } else { format!("run{}-", at + 1) };
        Self {
            runs: runs.iter().enumerate().map(|(at, run)| RunPart::new(run, &mark_of, &prefix(at))).collect(),
        }
    }

    /// All plots of all runs.
    pub(super) fn plots(&self) -> impl Iterator<Item = &Plot> {
        self.runs
            .iter()
            .flat_map(|run| run.groups.iter().flat_map(|group| &group.plots).chain(&run.stage_plot))
    }
}

/// One run.
pub(super) struct RunPart {
    id: String,
    revision: String,
    begun: String,
    command: String,
    facts: Vec<(&'static str, String)>,
    remarks: Vec<String>,
    goals: Vec<GoalRow>,
    lacks: Vec<(String, String)>,
    groups: Vec<GroupPart>,
    stage_plot: Option<Plot>,
    stages: Vec<StageTable>,
    loads: Vec<String>,
}

struct GoalRow {
    name: String,
    value: String,
    wanted: String,
    verdict: &'static str,
}

struct GroupPart {
    title: String,
    plots: Vec<Plot>,
    rows: Vec<TableRow>,
}

/// A row of a group's table: the same cells in the same order as the template's headings.
struct TableRow {
    system: String,
    cells: Vec<String>,
    notes: String,
}

struct StageTable {
    title: String,
    rows: Vec<(String, String)>,
}

impl RunPart {
    fn new(run: &Run, mark_of: &dyn Fn(&str) -> Mark, prefix: &str) -> Self {
        let mut loads: Vec<String> = Vec::new();
        for round in run.rows.iter().filter_map(|row| row.rounds.first()) {
            if !loads.contains(&round.load.command) {
                loads.push(round.load.command.clone());
            }
        }
        Self {
            id: format!("{prefix}run"),
            revision: run.revision.clone(),
            begun: time_text(run.begun_unix_s),
            command: run.command.clone(),
            facts: facts(run),
            remarks: run.remarks.clone(),
            goals: run.goals.iter().map(GoalRow::new).collect(),
            lacks: lacks(run),
            groups: Group::all(run).iter().map(|group| GroupPart::new(group, mark_of, prefix)).collect(),
            stage_plot: bars::stages(&run.stages, prefix),
            stages: run.stages.iter().map(StageTable::new).collect(),
            loads,
        }
    }
}

impl GoalRow {
    fn new(goal: &crate::results::Goal) -> Self {
        Self {
            name: goal.name.clone(),
            value: goal.value.map_or_else(|| "not measured".to_owned(), |value| number(value, digits(value))),
            wanted: goal.wanted.clone(),
            verdict: if goal.met { "met" } else { "missed" },
        }
    }
}

impl GroupPart {
    fn new(group: &Group<'_>, mark_of: &dyn Fn(&str) -> Mark, prefix: &str) -> Self {
        let plots = [
            lines::percentiles(group, mark_of, prefix),
            lines::hockey(group, mark_of, prefix),
            bars::hops(group, mark_of, prefix),
        ];
        Self {
            title: group.title(),
            plots: plots.into_iter().flatten().collect(),
            rows: group.rows.iter().map(|row| TableRow::new(row)).collect(),
        }
    }
}

impl TableRow {
    fn new(row: &Row) -> Self {
        let text = |spread: Option<Spread>, digits| {
            spread.map_or_else(|| NOT_MEASURED.to_owned(), |spread| spread.text(digits))
        };
        let ms = |quantile| {
            text(
                latency_us(row, quantile).map(|us| Spread {
                    median: us.median / 1000.0,
                    least: us.least / 1000.0,
                    most: us.most / 1000.0,
                }),
                2,
            )
        };
        let of = |part: fn(&CpuPerEvent) -> f64| text(cpu(row, part), 1);
        let cells = vec![
            offered_text(row),
            text(accepted_per_s(row), 0),
            ms(0.5),
            ms(0.99),
            ms(0.999),
            of(|cpu| cpu.machine),
            of(|cpu| cpu.first),
            of(|cpu| cpu.second),
            of(|cpu| cpu.kernel),
            of(|cpu| cpu.sink),
            of(|cpu| cpu.sender),
            of(|cpu| cpu.strangers),
        ];
        Self { system: row.system.clone(), cells, notes: notes(row) }
    }
}

impl StageTable {
    fn new(one: &Stages) -> Self {
        let sum: f64 = one.stages.iter().map(|stage| stage.1).sum();
        let share = |us: f64| format!("{us:.2} ({:.0} %)", 100.0 * us / sum.max(f64::MIN_POSITIVE));
        Self {
            title: format!("{}, {}, {}", one.system, one.hop, one.scenario),
            rows: one.stages.iter().map(|(name, us)| (name.clone(), share(*us))).collect(),
        }
    }
}

/// A count of a load, to be summed over rounds.
type Count = fn(&Load) -> u64;

/// What a reader of the row has to know.
fn notes(row: &Row) -> String {
    let rounds = row.rounds.len();
    let mut notes = vec![if rounds == 1 { "1 round".to_owned() } else { format!("{rounds} rounds") }];
    let behind = rounds_that(row, |round| round.load.client_fell_behind);
    if behind > 0 {
        notes.push(format!("the client itself fell behind in {behind}"));
    }
    if !is_held(row) {
        notes.push("the rate was not held".to_owned());
    }
    let counts: [(Count, &str); 4] = [
        (|load| load.failed, "requests failed"),
        (|load| load.unsent, "events were due and never sent"),
        (
            |load| load.refused.values().sum::<u64>().saturating_sub(load.expected_refusals),
            "events were refused",
        ),
        (|load| load.wrongly_accepted, "WRONG SIGNATURES WERE ACCEPTED"),
    ];
    for (count, what) in counts {
        let sum: u64 = row.rounds.iter().map(|round| count(&round.load)).sum();
        if sum > 0 {
            notes.push(format!("{} {what}", number(sum as f64, 0)));
        }
    }
    if let Some(bytes) = Spread::of(row.rounds.iter().filter_map(|round| round.idle_connection_bytes)) {
        notes.push(format!("{} bytes for each idle connection", bytes.text(0)));
    }
    if let Some(slowdown) = Spread::of(row.rounds.iter().filter_map(|round| round.slowdown)) {
        notes.push(format!("machine {} times slower than the reference", slowdown.text(2)));
    }
    notes.join("; ")
}

fn lacks(run: &Run) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for row in &run.rows {
        if all.iter().all(|(system, _)| *system != row.system) {
            let text =
                if row.lacks.is_empty() { "nothing of the work".to_owned() } else { row.lacks.join(", ") };
            all.push((row.system.clone(), text));
        }
    }
    all
}

fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let machine = &run.machine;
    let facts = [
        ("Processor", machine.processor.clone()),
        ("Cores", machine.cores.to_string()),
        ("Instructions", machine.features.join(", ")),
        ("Memory", format!("{:.1} GiB", machine.memory_bytes as f64 / GIB)),
        ("Linux", machine.kernel.clone()),
        ("Disk", machine.disk.clone()),
        ("Versions", machine.versions.join(", ")),
        ("Placement", machine.placement.join("; ")),
        ("Took", format!("{} s", number(run.took_s, 0))),
    ];
    facts.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

/// Three digits that say something.
fn digits(value: f64) -> usize {
    match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    }
}

fn time_text(unix_s: u64) -> String {
    let time = i64::try_from(unix_s)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map_or_else(
        || format!("{unix_s} s since 1970"),
        |time| {
            let (date, hour, minute) = (time.date(), time.hour(), time.minute());
            format!(
                "{}-{:02}-{:02} {hour:02}:{minute:02} UTC",
                date.year(),
                u8::from(date.month()),
                date.day()
            )
        },
    )
}
