//! CPU by thread: those of the hops, the kernel's workers for their rings among them, and threads of the kernel itself.

use std::collections::BTreeMap;
use std::fs::read_to_string;

use crate::bench::{KERNEL_THREAD, TICK_US, family};

/// Microseconds by the name of a group of threads.
pub(super) type ByName = BTreeMap<String, f64>;

/// A snapshot: each thread by its id, so that one that ends does not count as negative.
#[derive(Clone, Debug, Default)]
pub(super) struct Threads(BTreeMap<u32, (String, f64)>);

impl Threads {
    /// Reads all threads of the processes in `hops`, of what they have forked, and of the kernel.
    pub(super) fn read(hops: &[u32]) -> Self {
        let mut all = BTreeMap::new();
        for (at, &hop) in hops.iter().enumerate() {
            for process in family(hop) {
                // `/proc/<thread>/stat` would have the times of its whole process.
                let tasks = format!("/proc/{process}/task");
                for thread in numbers(&tasks) {
                    if let Some(stat) = Stat::of(&tasks, thread) {
                        all.insert(thread, (format!("hop {}: {}", at + 1, stat.name), stat.us));
                    }
                }
            }
        }
        for process in numbers("/proc") {
            if let Some(stat) = Stat::of("/proc", process).filter(|stat| stat.is_kernel) {
                all.insert(process, (format!("kernel: {}", stat.name), stat.us));
            }
        }
        Self(all)
    }

    /// Microseconds used since `before`, those of one name together.
    pub(super) fn since(&self, before: &Self) -> ByName {
        let mut groups = ByName::new();
        for (id, (name, us)) in &self.0 {
            let then = before.0.get(id).map_or(0.0, |before| before.1);
            *groups.entry(name.clone()).or_default() += (us - then).max(0.0);
        }
        groups.retain(|_, us| *us > 0.0);
        groups
    }
}

/// Names in a directory that are numbers.
fn numbers(directory: &str) -> Vec<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[derive(Debug, PartialEq)]
struct Stat {
    name: String,
    us: f64,
    is_kernel: bool,
}

impl Stat {
    fn of(directory: &str, id: u32) -> Option<Self> {
        Self::parse(&read_to_string(format!("{directory}/{id}/stat")).ok()?)
    }

    /// The name in parentheses, and fields 9, 14 and 15 behind it.
    fn parse(stat: &str) -> Option<Self> {
        let (head, fields) = stat.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let field = |at: usize| fields.split_ascii_whitespace().nth(at - 3)?.parse::<u64>().ok();
        Some(Self {
            name: group(name).to_owned(),
            us: (field(14)? + field(15)?) as f64 * TICK_US,
            is_kernel: field(9)? & KERNEL_THREAD != 0,
        })
    }
}

/// What threads of one kind share: `iou-wrk-1234` and `kworker/0:1-events` without what tells one from the next.
fn group(name: &str) -> &str {
    let name = name.split('/').next().unwrap_or(name);
    let short = name
        .trim_end_matches(|letter: char| letter.is_ascii_digit() || matches!(letter, '-' | '_' | ':' | '.'));
    if short.is_empty() { name } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_kind_have_one_name() {
        for (name, expected) in [
            ("iou-wrk-1234", "iou-wrk"),
            ("kworker/0:1-events", "kworker"),
            ("ksoftirqd/1", "ksoftirqd"),
            ("zen-worker-3", "zen-worker"),
            ("kdamond.0", "kdamond"),
            ("7", "7"),
            ("haproxy", "haproxy"),
        ] {
            assert_eq!(group(name), expected);
        }
        let stat = Stat::parse("7 (a) b-9) S 1 7 7 0 -1 69238880 100 0 0 0 30 12 5 6 20 0 1 0 99").unwrap();
        assert_eq!(stat, Stat { name: "a) b".to_owned(), us: 420_000.0, is_kernel: true });
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn what_a_thread_used_is_found_under_its_name() {
        let whole_before = crate::bench::CpuTimes::read([std::process::id(), 0, 0, 0]);
        let before = Threads::read(&[std::process::id()]);
        let spin = || {
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_millis(80) {
                std::hint::spin_loop();
            }
            Threads::read(&[std::process::id()])
        };
        let spinning = std::thread::Builder::new().name("spinner-1".to_owned()).spawn(spin).unwrap();
        let used = spinning.join().unwrap().since(&before);
        assert!(used["hop 1: spinner"] > 0.0, "{used:?}");
        let all: f64 = used.iter().filter(|(name, _)| name.starts_with("hop")).map(|(_, us)| us).sum();
        let whole = crate::bench::CpuTimes::read([std::process::id(), 0, 0, 0]).since(&whole_before).first;
        assert!(all <= whole, "threads {all}, and the whole process {whole}");
    }

    #[test]
    fn a_thread_that_began_later_counts_whole_and_one_that_ended_not() {
        let at = |threads: &[(u32, &str, f64)]| {
            Threads(threads.iter().map(|(id, name, us)| (*id, ((*name).to_owned(), *us))).collect())
        };
        let used = at(&[(1, "a", 5.0), (3, "a", 2.0), (4, "idle", 1.0)]).since(&at(&[
            (1, "a", 1.0),
            (2, "b", 9.0),
            (4, "idle", 1.0),
        ]));
        assert_eq!(used, ByName::from([("a".to_owned(), 6.0)]));
    }
}
