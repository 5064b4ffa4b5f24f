//! Rows as a Markdown table: medians over rounds, with the least and the most.

use super::goals::median;
use crate::results::{CpuPerEvent, Round, Row};

const HEAD: &str = "| scenario | body | connections | offered/s | who | events/s | machine | hop 1 | hop 2 | kernel | sink | sender | strangers | answer p50 ms | p99 | p999 | bytes/idle connection |";
const COLUMNS: usize = 17;

/// One line for each row.
pub(super) fn print(rows: &[Row]) {
    println!(
        "\nMedian (least to most) over interleaved rounds. CPU is µs per event; \"machine\": all processors less sender, sink and\n\
         strangers' processes; \"kernel\": kernel threads; \"strangers\": processes that have nothing to do with the run.\n"
    );
    println!("{HEAD}\n|{}", "---|".repeat(COLUMNS));
    for row in rows {
        println!("| {} |", cells(row).join(" | "));
    }
    println!();
}

fn cells(row: &Row) -> [String; COLUMNS] {
    let of =
        |pick: &dyn Fn(&Round) -> Option<f64>, digits| spread(row.rounds.iter().filter_map(pick), digits);
    let cpu = |pick: fn(&CpuPerEvent) -> f64, digits| of(&|round| round.cpu_us.as_ref().map(pick), digits);
    let ms = |quantile: f64, digits| {
        of(&|round| Some(round.load.latency.at(quantile) / 1000.0).filter(|ms| ms.is_finite()), digits)
    };
    [
        row.scenario.clone(),
        row.body_bytes.to_string(),
        row.connections.to_string(),
        row.offered_per_s.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
        row.system.clone(),
        of(&|round| Some(round.load.accepted_per_s).filter(|rate| *rate > 0.0), 0),
        cpu(|cpu| cpu.machine, 1),
        cpu(|cpu| cpu.first, 1),
        cpu(|cpu| cpu.second, 1),
        cpu(|cpu| cpu.kernel, 1),
        cpu(|cpu| cpu.sink, 1),
        cpu(|cpu| cpu.sender, 1),
        cpu(|cpu| cpu.strangers, 1),
        ms(0.5, 2),
        ms(0.99, 1),
        ms(0.999, 1),
        of(&|round| round.idle_connection_bytes, 0),
    ]
}

/// `median (least to most)` with `digits` after the point.
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let values: Vec<f64> = values.collect();
    let ends = |fold: fn(f64, f64) -> f64| values.iter().copied().reduce(fold);
    match (ends(f64::min), ends(f64::max)) {
        (Some(least), Some(most)) if values.len() > 1 => {
            format!("{:.digits$} ({least:.digits$} to {most:.digits$})", median(values))
        }
        (Some(one), _) => format!("{one:.digits$}"),
        (None, _) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_median_and_range() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter(), 0), "2 (1 to 3)");
        assert_eq!(spread([1.25].into_iter(), 2), "1.25");
        assert_eq!(spread([].into_iter(), 0), "-");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let row = Row {
            scenario: "a".to_owned(),
            system: "b".to_owned(),
            lacks: Vec::new(),
            body_bytes: 1,
            connections: 2,
            offered_per_s: None,
            rounds: Vec::new(),
        };
        assert_eq!(HEAD.matches('|').count(), COLUMNS + 1);
        assert_eq!(cells(&row).join(" "), "a 1 2 - b - - - - - - - - - - - -");
    }
}
