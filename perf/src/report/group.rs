//! Rows of a run that belong beside each other, and which of them stands for a system.

use super::spread::Spread;
use crate::results::{CpuPerEvent, Load, Round, Row, Run};

/// Where a system is looked at when several rates were offered: this share of the most that it took.
const REPRESENTATIVE_SHARE: f64 = 0.7;
/// A rate is held if so much of it is accepted.
const HELD_SHARE: f64 = 0.98;

/// One scenario with one size of body and one count of connections: every system did the same.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) rows: Vec<&'a Row>,
}

impl<'a> Group<'a> {
    /// In the order of the run.
    pub(super) fn all(run: &'a Run) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for row in &run.rows {
            let key = |row: &'a Row| (row.scenario.as_str(), row.body_bytes, row.connections);
            match groups.iter_mut().find(|group| key(group.rows[0]) == key(row)) {
                Some(group) => group.rows.push(row),
                None => groups.push(Self { rows: vec![row] }),
            }
        }
        groups
    }

    /// As a heading.
    pub(super) fn title(&self) -> String {
        let row = self.rows[0];
        let bytes = super::spread::number(row.body_bytes as f64, 0);
        let connections = super::spread::number(f64::from(row.connections), 0);
        format!("{}: bodies of {bytes} bytes, {connections} connections", row.scenario)
    }

    /// Words for a file's name and an HTML id.
    pub(super) fn slug(&self) -> String {
        let row = self.rows[0];
        slug(&format!("{} {} {}", row.scenario, row.body_bytes, row.connections))
    }

    /// Systems in the order in which they appear.
    pub(super) fn systems(&self) -> Vec<&'a str> {
        let mut systems: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !systems.contains(&row.system.as_str()) {
                systems.push(&row.system);
            }
        }
        systems
    }

    /// Rows of a system with an offered rate, the lowest rate first.
    pub(super) fn open_loop(&self, system: &str) -> Vec<&'a Row> {
        let mut rows: Vec<&Row> = self.of(system).filter(|row| row.offered_per_s.is_some()).collect();
        rows.sort_by(|left, right| {
            left.offered_per_s.partial_cmp(&right.offered_per_s).expect("rates are numbers")
        });
        rows
    }

    /// The row whose latency is shown: at seven tenths of the most the system took, else the closed loop.
    pub(super) fn representative(&self, system: &str) -> Option<&'a Row> {
        let most = self.of(system).filter_map(accepted_per_s).map(|rate| rate.median).fold(0.0, f64::max);
        let distance =
            |row: &&Row| (row.offered_per_s.unwrap_or(f64::INFINITY) - REPRESENTATIVE_SHARE * most).abs();
        let nearest = self.of(system).min_by(|left, right| distance(left).total_cmp(&distance(right)));
        nearest.filter(|row| !row.rounds.is_empty())
    }

    /// The row whose CPU is shown: the closed loop, else as [`Self::representative`].
    pub(super) fn busiest(&self, system: &str) -> Option<&'a Row> {
        let closed =
            self.of(system).find(|row| row.offered_per_s.is_none() && cpu(row, |cpu| cpu.machine).is_some());
        closed.or_else(|| self.representative(system).filter(|row| cpu(row, |cpu| cpu.machine).is_some()))
    }

    fn of<'s>(&'s self, system: &'s str) -> impl Iterator<Item = &'a Row> + 's {
        self.rows.iter().copied().filter(move |row| row.system == system)
    }
}

/// Events that were accepted in a second, over the rounds.
pub(super) fn accepted_per_s(row: &Row) -> Option<Spread> {
    let rate = |load: &Load| {
        if load.accepted_per_s > 0.0 { load.accepted_per_s } else { load.accepted as f64 / load.seconds }
    };
    Spread::of(row.rounds.iter().map(|round| rate(&round.load)))
}

/// A quantile of the latency in µs, over the rounds.
pub(super) fn latency_us(row: &Row, quantile: f64) -> Option<Spread> {
    Spread::of(row.rounds.iter().map(|round| round.load.latency.at(quantile)))
}

/// A part of the CPU for each event, over the rounds that looked at it.
pub(super) fn cpu(row: &Row, part: impl Fn(&CpuPerEvent) -> f64) -> Option<Spread> {
    Spread::of(row.rounds.iter().filter_map(|round| round.cpu_us.as_ref()).map(part))
}

/// Whether the offered rate was taken, in the middle round; a closed loop holds by its nature.
pub(super) fn is_held(row: &Row) -> bool {
    let rate = accepted_per_s(row).map_or(0.0, |rate| rate.median);
    row.offered_per_s.is_none_or(|offered| rate >= HELD_SHARE * offered)
}

/// `closed loop`, or the rate that was offered.
pub(super) fn offered_text(row: &Row) -> String {
    row.offered_per_s.map_or_else(
        || "closed loop".to_owned(),
        |rate| format!("{} events/s", super::spread::number(rate, 0)),
    )
}

/// How many rounds fulfil something.
pub(super) fn rounds_that(row: &Row, fulfil: impl Fn(&Round) -> bool) -> usize {
    row.rounds.iter().filter(|round| fulfil(round)).count()
}

/// Lower-case words joined by hyphens.
pub(super) fn slug(text: &str) -> String {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn rows_of_one_load_are_one_group() {
        let run = sample::run();
        let groups = Group::all(&run);
        assert_eq!(
            groups.iter().map(Group::slug).collect::<Vec<_>>(),
            ["keep-alive-1024-256", "github-mix-8192-32"]
        );
        assert_eq!(groups[0].systems(), ["zen, io_uring", "HAProxy", "tokio-uring, default flags"]);
    }

    #[test]
    fn latency_is_shown_at_seven_tenths_and_cpu_when_busiest() {
        let run = sample::run();
        let group = &Group::all(&run)[0];
        let row = group.representative("zen, io_uring").unwrap();
        assert_eq!(row.offered_per_s, Some(70_000.0));
        assert_eq!(group.busiest("zen, io_uring").unwrap().offered_per_s, None);
        assert!(group.representative("nobody").is_none());
        assert!(!is_held(group.open_loop("HAProxy").last().unwrap()));
        assert!(is_held(row));
    }
}
