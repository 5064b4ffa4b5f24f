//! CPU times from `/proc` (proc(5)), and a line about the machine. What cannot be read counts as zero.

use std::collections::BTreeMap;
use std::fs::read_to_string;

/// `/proc` counts in ticks of 1/100 s on every Linux architecture (`USER_HZ`).
const TICK_US: f64 = 10_000.0;
/// A thread of the kernel, in the flags of `/proc/<id>/stat` (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// CPU microseconds, of a span or of one event in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// The first hop's process.
    pub(super) first: f64,
    /// The second hop's process.
    pub(super) second: f64,
    /// The sink.
    pub(super) sink: f64,
    /// The sender.
    pub(super) sender: f64,
    /// Threads of the kernel: workers of the block layer, of the network, and so on.
    pub(super) kernel: f64,
    /// Processes that have nothing to do with the run.
    pub(super) others: f64,
    /// All processors, without time stolen by the hypervisor.
    pub(crate) busy: f64,
}

impl Cpu {
    /// What the two hops cost the machine: all that was busy, less sender, sink and processes of others.
    pub(crate) fn machine(&self) -> f64 {
        self.busy - self.sender - self.sink - self.others
    }

    /// The same, divided by `events`.
    pub(crate) fn per(&self, events: f64) -> Self {
        let [first, second, sink, sender, kernel, others, busy] = self.fields().map(|us| us / events);
        Self { first, second, sink, sender, kernel, others, busy }
    }

    fn fields(&self) -> [f64; 7] {
        [self.first, self.second, self.sink, self.sender, self.kernel, self.others, self.busy]
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub(crate) struct CpuTimes {
    total: Cpu,
    /// Each by its id: one that ends between two snapshots must not count as negative.
    kernel: BTreeMap<u32, f64>,
}

impl CpuTimes {
    /// Reads `/proc`; `processes` are first hop, second hop, sink and sender.
    pub(crate) fn read(processes: [u32; 4]) -> Self {
        let mut own: BTreeMap<u32, f64> = processes.iter().map(|&id| (id, 0.0)).collect();
        let mut times = Cpu::default();
        let mut kernel = BTreeMap::new();
        let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for id in ids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let Some(stat) = Stat::parse(&read_to_string(format!("/proc/{id}/stat")).unwrap_or_default())
            else {
                continue;
            };
            if let Some(slot) = own.get_mut(&id) {
                *slot = stat.own_ticks as f64 * TICK_US;
            } else if stat.is_kernel {
                kernel.insert(id, stat.own_ticks as f64 * TICK_US);
            } else {
                // A compiler that began and ended between two snapshots shows in its parent's children.
                times.others += (stat.own_ticks + stat.children_ticks) as f64 * TICK_US;
            }
        }
        [times.first, times.second, times.sink, times.sender] = processes.map(|id| own[&id]);
        times.busy = machine_ticks(&read_to_string("/proc/stat").unwrap_or_default()) as f64 * TICK_US;
        Self { total: times, kernel }
    }

    /// Microseconds used since `before`.
    pub(crate) fn since(&self, before: &Self) -> Cpu {
        let [now, then] = [self.total.fields(), before.total.fields()];
        let used: [f64; 7] = std::array::from_fn(|at| now[at] - then[at]);
        let [first, second, sink, sender, _, others, busy] = used;
        let before_of = |id| before.kernel.get(id).copied().unwrap_or(0.0);
        let kernel = self.kernel.iter().map(|(id, us)| us - before_of(id)).sum();
        Cpu { first, second, sink, sender, kernel, others, busy }
    }
}

/// Busy ticks of all processors: everything but idle, I/O wait and stolen; guests are in `user` already.
fn machine_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_ascii_whitespace().skip(1).take(7).enumerate();
    fields.filter(|(at, _)| !matches!(at, 3 | 4)).filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum()
}

/// What is read of `/proc/<id>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    own_ticks: u64,
    children_ticks: u64,
    is_kernel: bool,
}

impl Stat {
    /// Fields 9 and 14 to 17, counted behind the name in parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let field = |at: usize| fields.split_ascii_whitespace().nth(at - 3)?.parse::<u64>().ok();
        Some(Self {
            own_ticks: field(14)? + field(15)?,
            children_ticks: field(16)? + field(17)?,
            is_kernel: field(9)? & KERNEL_THREAD != 0,
        })
    }
}

/// Processor, cores and kernel.
pub(crate) fn machine() -> String {
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
        assert_eq!(machine_ticks("cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 9"), 31);
        let stat = Stat::parse("7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 5 6 20 0 1 0 99");
        assert_eq!(stat, Some(Stat { own_ticks: 42, children_ticks: 11, is_kernel: false }));
        let kernel =
            Stat::parse("2 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 7 0 0 20 0 1 0 99").unwrap();
        assert!(kernel.is_kernel);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_machine_is_what_sender_sink_and_strangers_did_not_use() {
        let then = CpuTimes { total: Cpu::default(), kernel: BTreeMap::from([(7, 1.0), (8, 90.0)]) };
        let total =
            Cpu { first: 10.0, second: 20.0, sink: 5.0, sender: 6.0, kernel: 0.0, others: 50.0, busy: 100.0 };
        let used = CpuTimes { total, kernel: BTreeMap::from([(7, 3.0), (9, 1.0)]) }.since(&then);
        assert_eq!(used.kernel.round() as u64, 3);
        assert_eq!(used.machine().round() as u64, 39);
        assert_eq!(used.per(10.0).first.round() as u64, 1);
    }

    #[test]
    fn this_process_uses_processor_time() {
        let own = std::process::id();
        let before = CpuTimes::read([own, 1, 1, 1]);
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        assert!(CpuTimes::read([own, 1, 1, 1]).since(&before).busy > 0.0);
    }
}
