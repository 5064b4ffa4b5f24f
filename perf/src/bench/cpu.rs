//! CPU times from `/proc` (proc(5)), and a line about the machine. What cannot be read counts as zero.

use std::fs::read_to_string;

/// `/proc` counts in ticks of 1/100 s on every Linux architecture (`USER_HZ`).
const TICK_US: f64 = 10_000.0;

/// A snapshot, microseconds: the whole machine, then four processes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CpuTimes([f64; 5]);

impl CpuTimes {
    /// Reads `/proc/stat` and `/proc/<id>/stat`.
    pub(super) fn read(processes: [u32; 4]) -> Self {
        let [first, second, third, fourth] = processes
            .map(|id| process_ticks(&read_to_string(format!("/proc/{id}/stat")).unwrap_or_default()));
        let machine = machine_ticks(&read_to_string("/proc/stat").unwrap_or_default());
        Self([machine, first, second, third, fourth].map(|ticks| ticks as f64 * TICK_US))
    }

    /// Microseconds used since `before`: machine, the processes, and the machine less the processes.
    pub(super) fn since(&self, before: &Self) -> [f64; 6] {
        let mut used = [0.0; 6];
        for (slot, (now, then)) in used.iter_mut().zip(self.0.iter().zip(before.0)) {
            *slot = now - then;
        }
        used[5] = used[0] - used[1..5].iter().sum::<f64>();
        used
    }
}

/// Busy ticks of all processors: everything but idle and I/O wait; guests are in `user` already.
fn machine_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_ascii_whitespace().skip(1).take(8).enumerate();
    fields.filter(|(at, _)| !matches!(at, 3 | 4)).filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

/// User and system ticks: fields 14 and 15, counted behind the name in parentheses.
fn process_ticks(stat: &str) -> u64 {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return 0;
    };
    fields.split_ascii_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Processor, cores and kernel.
pub(super) fn machine() -> String {
    let processors = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Machine: {model}, {cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_the_documented_fields() {
        assert_eq!(machine_ticks("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9"), 63);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 5 6 20 0 1 0 99";
        assert_eq!(process_ticks(stat), 42);
        assert_eq!(process_ticks(""), 0);
    }

    #[test]
    fn the_rest_is_what_no_process_used() {
        let used = CpuTimes([100.0, 10.0, 20.0, 30.0, 5.0]).since(&CpuTimes([0.0; 5]));
        assert_eq!(used.map(|us| us as u64), [100, 10, 20, 30, 5, 35]);
    }
}
