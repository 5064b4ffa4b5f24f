//! The `account` command: what was accepted against what arrived, by the files of `load --record` and `sink --record`.
//!
//! Out: what was lost, changed, duplicated and reordered. Lost or changed events fail; with `--strict` the others do, too:
//! a mesh delivers at least once, and connections overtake each other. Refused: a line of another form.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::error::LabError;
use crate::record::{Accepted, Arrivals, Comparison};
use crate::signature::hex;

/// Options of `account`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What `zen-perf load --record` wrote.
    #[arg(long, value_name = "FILE")]
    sent: PathBuf,
    /// What `zen-perf sink --record` wrote.
    #[arg(long, value_name = "FILE")]
    arrived: PathBuf,
    /// Fail for duplicates and reorderings, too.
    #[arg(long)]
    strict: bool,
}

/// A delivery that a target answered with 200.
#[derive(Debug)]
struct Arrival {
    event_id: String,
    body_sha256: [u8; 32],
    target: String,
}

/// Compares and prints; the exit code is the verdict.
pub(crate) fn run(options: &Options) -> Result<ExitCode, LabError> {
    let sent = read(&options.sent, SENT_FORM, sent_line)?;
    let arrived = read(&options.arrived, ARRIVED_FORM, arrived_line)?;
    let account = Account::new(sent, &arrived);
    account.lines().iter().for_each(|line| println!("{line}"));
    let good = account.comparison.complaints().is_empty() && !(options.strict && account.is_loose());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Both files held against each other.
#[derive(Debug)]
struct Account {
    comparison: Comparison,
    /// Sendings of an event that had been accepted before, answered with its id.
    repeated: u64,
    arrivals: usize,
    /// Arrivals of an event at a target where it had arrived before.
    duplicates: u64,
    /// First arrivals at a target behind an event with a higher number.
    reordered: u64,
    /// By how many numbers at most.
    reordered_by_max: u64,
}

impl Account {
    fn new(sent: Vec<Accepted>, arrived: &[Arrival]) -> Self {
        let all = sent.len() as u64;
        let sent = without_repeats(sent);
        let numbers: HashMap<&str, u64> =
            sent.iter().map(|event| (event.event_id.as_str(), event.number)).collect();
        let mut arrivals = Arrivals::default();
        let mut seen: HashSet<(&str, &str)> = HashSet::new();
        let mut highest: HashMap<&str, u64> = HashMap::new();
        let (mut duplicates, mut reordered, mut reordered_by_max) = (0, 0, 0);
        for arrival in arrived {
            arrivals.add(&arrival.event_id, hex(&arrival.body_sha256), None);
            if !seen.insert((&arrival.target, &arrival.event_id)) {
                duplicates += 1;
                continue;
            }
            let Some(&number) = numbers.get(arrival.event_id.as_str()) else { continue };
            let highest = highest.entry(&arrival.target).or_insert(number);
            if number < *highest {
                reordered += 1;
                reordered_by_max = reordered_by_max.max(*highest - number);
            }
            *highest = number.max(*highest);
        }
        let comparison = Comparison::new(&sent, &arrivals);
        Self {
            repeated: all - sent.len() as u64,
            comparison,
            arrivals: arrived.len(),
            duplicates,
            reordered,
            reordered_by_max,
        }
    }

    fn is_loose(&self) -> bool {
        self.duplicates > 0 || self.reordered > 0
    }

    fn lines(&self) -> Vec<String> {
        let comparison = &self.comparison;
        let mut lines = vec![
            format!("accepted {} events, and {} repeats of them", comparison.accepted, self.repeated),
            format!(
                "arrived {} of them, in {} deliveries; {} events arrived whose answer nobody got",
                comparison.delivered, self.arrivals, comparison.unanswered
            ),
            format!("lost {}", comparison.lost.len()),
            format!("duplicated {} (more than once at a target)", self.duplicates),
            format!("reordered {} (by {} numbers at most)", self.reordered, self.reordered_by_max),
        ];
        lines.extend(comparison.complaints());
        lines
    }
}

/// A repeat is answered with the id of its event: the same id and the same body. Only the first counts.
fn without_repeats(sent: Vec<Accepted>) -> Vec<Accepted> {
    let mut seen: HashSet<(String, [u8; 32])> = HashSet::with_capacity(sent.len());
    sent.into_iter().filter(|event| seen.insert((event.event_id.clone(), event.body_sha256))).collect()
}

const SENT_FORM: &str = "`number TAB event-id TAB sha256`, as `zen-perf load --record` writes them";
const ARRIVED_FORM: &str =
    "`event-id TAB sha256 TAB target TAB unix-us`, as `zen-perf sink --record` writes them";

/// Every line of a file; the first that is not of the form is named.
fn read<T>(path: &Path, form: &str, parse: fn(&[&str]) -> Option<T>) -> Result<Vec<T>, LabError> {
    let file = BufReader::new(File::open(path).map_err(LabError::file(path))?);
    let mut all = Vec::new();
    for (at, line) in file.lines().enumerate() {
        let line = line.map_err(LabError::file(path))?;
        let fields: Vec<&str> = line.split('\t').collect();
        let parsed = parse(&fields).ok_or_else(|| LabError::Tool {
            what: format!("{}, line {}", path.display(), at + 1),
            reason: format!("this is not {form}; let both programs end before the files are read"),
        })?;
        all.push(parsed);
    }
    Ok(all)
}

fn sent_line(fields: &[&str]) -> Option<Accepted> {
    let [number, event_id, body] = fields else { return None };
    Some(Accepted {
        number: number.parse().ok()?,
        event_id: (!event_id.is_empty()).then(|| (*event_id).to_owned())?,
        body_sha256: digest(body)?,
    })
}

fn arrived_line(fields: &[&str]) -> Option<Arrival> {
    let [event_id, body, target, unix_us] = fields else { return None };
    unix_us.parse::<u64>().ok()?;
    Some(Arrival {
        event_id: (*event_id).to_owned(),
        body_sha256: digest(body)?,
        target: (*target).to_owned(),
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    zen_core::id::decode_hex(text.as_bytes(), &mut bytes).ok().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: u64, event_id: &str, body: u8) -> String {
        format!("{number}\t{event_id}\t{}\n", hex(&[body; 32]))
    }

    fn arrived(event_id: &str, body: u8, target: &str) -> String {
        format!("{event_id}\t{}\t{target}\t1790000000000000\n", hex(&[body; 32]))
    }

    fn files(sent: &str, arrived: &str) -> (tempfile::TempDir, Options) {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = [("sent", sent), ("arrived", arrived)].map(|(name, text)| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        (directory, Options { sent: one, arrived: two, strict: false })
    }

    fn account(sent: &str, arrived: &str) -> Account {
        let (_directory, options) = files(sent, arrived);
        let sent = read(&options.sent, SENT_FORM, sent_line).unwrap();
        Account::new(sent, &read(&options.arrived, ARRIVED_FORM, arrived_line).unwrap())
    }

    #[test]
    fn each_fault_of_a_delivery_is_found() {
        let four = [sent(0, "a", 0), sent(1, "b", 1), sent(2, "c", 2), sent(3, "d", 3)].concat();
        let all =
            |order: &[(&str, u8)]| order.iter().map(|(id, body)| arrived(id, *body, "t")).collect::<String>();
        let numbers = |account: &Account| {
            (account.comparison.lost.len(), account.duplicates, account.reordered, account.reordered_by_max)
        };
        let in_order = [("a", 0), ("b", 1), ("c", 2), ("d", 3)];
        for (order, expected) in [
            (&in_order[..], (0, 0, 0, 0)),
            (&in_order[..3], (1, 0, 0, 0)),
            (&[("a", 0), ("c", 2), ("b", 1), ("d", 3)], (0, 0, 1, 1)),
            (&[("d", 3), ("a", 0), ("b", 1), ("c", 2)], (0, 0, 3, 3)),
            (&[("a", 0), ("b", 1), ("a", 0), ("c", 2), ("d", 3)], (0, 1, 0, 0)),
        ] {
            let found = account(&four, &all(order));
            assert_eq!(numbers(&found), expected, "{order:?}");
        }
        let changed = account(&four, &all(&[("a", 0), ("b", 9), ("c", 2), ("d", 3), ("x", 7)]));
        assert_eq!((changed.comparison.wrong_body.len(), changed.comparison.unanswered), (1, 1));
    }

    #[test]
    fn order_and_duplicates_are_counted_at_each_target() {
        let two = [sent(0, "a", 0), sent(1, "b", 1)].concat();
        let fanned = [("b", 1, "t"), ("a", 0, "u"), ("b", 1, "u"), ("a", 0, "t")];
        let found = account(&two, &fanned.map(|(id, body, target)| arrived(id, body, target)).concat());
        assert_eq!((found.duplicates, found.reordered, found.arrivals), (0, 1, 4));
    }

    #[test]
    fn a_repeat_is_no_fault_and_a_shared_id_is() {
        let repeated = account(&[sent(0, "a", 0), sent(7, "a", 0)].concat(), &arrived("a", 0, "t"));
        assert_eq!((repeated.repeated, repeated.comparison.complaints().len()), (1, 0));
        let shared = account(&[sent(0, "a", 0), sent(7, "a", 1)].concat(), &arrived("a", 0, "t"));
        assert_eq!(shared.comparison.shared_ids.len(), 1);
    }

    #[test]
    fn the_exit_code_is_the_verdict() {
        let two = [sent(0, "a", 0), sent(1, "b", 1)].concat();
        let swapped = [arrived("b", 1, "t"), arrived("a", 0, "t")].concat();
        for (arrivals, strict, expected) in [
            (swapped.as_str(), false, ExitCode::SUCCESS),
            (swapped.as_str(), true, ExitCode::FAILURE),
            (&arrived("b", 1, "t"), false, ExitCode::FAILURE),
        ] {
            let (_directory, options) = files(&two, arrivals);
            assert_eq!(run(&Options { strict, ..options }).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let good = sent(0, "a", 0);
        for bad in ["", "0\ta", "x\ta\t00", &good.replace("00\n", "0\n"), &good.replace('\n', "\tmore\n")] {
            let (_directory, options) = files(&format!("{good}{bad}\n"), "");
            let words = run(&options).unwrap_err().to_string();
            assert!(words.contains("sent, line 2") && words.contains("--record"), "{words}");
        }
    }
}
