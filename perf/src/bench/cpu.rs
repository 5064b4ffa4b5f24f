//! CPU times from `/proc` (proc(5)), and a line about the machine. What cannot be read counts as zero.

use std::collections::BTreeMap;
use std::fs::read_to_string;

/// `/proc` counts in ticks of 1/100 s on every Linux architecture (`USER_HZ`).
pub(crate) const TICK_US: f64 = 10_000.0;
/// A thread of the kernel, in the flags of `/proc/<id>/stat` (`PF_KTHREAD`).
pub(crate) const KERNEL_THREAD: u64 = 0x0020_0000;

/// CPU microseconds, of a span or of one event in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// The first hop's process.
    pub(crate) first: f64,
    /// The second hop's process.
    pub(crate) second: f64,
    /// The sink.
    pub(crate) sink: f64,
    /// The sender.
    pub(crate) sender: f64,
    /// Threads of the kernel: workers of the block layer, of the network, and so on.
    pub(crate) kernel: f64,
    /// Processes that have nothing to do with the run.
    pub(crate) others: f64,
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
    /// Reads `/proc`; `processes` are first hop, second hop, sink and sender, 0 for one that is not there. What a hop
    /// has forked counts as the hop.
    pub(crate) fn read(processes: [u32; 4]) -> Self {
        let mut times = Cpu::default();
        let mut own = [0.0; 4];
        let mut kernel = BTreeMap::new();
        let stats = Stat::all();
        for (&id, stat) in &stats {
            let us = stat.own_ticks as f64 * TICK_US;
            if let Some(at) = owner(id, processes, &stats) {
                own[at] += us;
            } else if stat.is_kernel {
                kernel.insert(id, us);
            } else {
                // A compiler that began and ended between two snapshots shows in its parent's children.
                times.others += us + stat.children_ticks as f64 * TICK_US;
            }
        }
        // One process may be two of them.
        let slot = |id| processes.iter().position(|&one| one == id).expect("it is one of these");
        [times.first, times.second, times.sink, times.sender] = processes.map(|id| own[slot(id)]);
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

/// The place in `processes` of whoever a process belongs to: itself, or the hop that it descends from.
fn owner(id: u32, processes: [u32; 4], stats: &BTreeMap<u32, Stat>) -> Option<usize> {
    if let Some(at) = processes.iter().position(|&one| one == id) {
        return Some(at);
    }
    let hops = &processes[..2];
    let mut parent = stats.get(&id)?.parent;
    while parent > 1 {
        if let Some(at) = hops.iter().position(|&one| one == parent) {
            return Some(at);
        }
        parent = stats.get(&parent)?.parent;
    }
    None
}

/// A process and all that descend from it.
pub(crate) fn family(id: u32) -> Vec<u32> {
    let stats = Stat::all();
    stats.keys().copied().filter(|&one| owner(one, [id, 0, 0, 0], &stats).is_some()).collect()
}

/// What is read of `/proc/<id>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own_ticks: u64,
    children_ticks: u64,
    is_kernel: bool,
}

impl Stat {
    /// Of all processes.
    fn all() -> BTreeMap<u32, Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let read =
            |id| Some((id, Self::parse(&read_to_string(format!("/proc/{id}/stat")).unwrap_or_default())?));
        ids.filter_map(read).collect()
    }

    /// Fields 4, 9 and 14 to 17, counted behind the name in parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let field = |at: usize| fields.split_ascii_whitespace().nth(at - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(field(4)?).ok()?,
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
        assert_eq!(stat, Some(Stat { parent: 1, own_ticks: 42, children_ticks: 11, is_kernel: false }));
        let kernel =
            Stat::parse("2 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 7 0 0 20 0 1 0 99").unwrap();
        assert!(kernel.is_kernel);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn what_a_hop_forked_is_the_hop_and_what_the_sender_forked_is_a_stranger() {
        let stat = |parent| Stat { parent, own_ticks: 0, children_ticks: 0, is_kernel: false };
        let tree = [(1, 0), (10, 1), (20, 10), (21, 20), (30, 10), (31, 30)];
        let stats: BTreeMap<u32, Stat> = tree.map(|(id, parent)| (id, stat(parent))).into();
        let of = |id| owner(id, [20, 0, 0, 30], &stats);
        assert_eq!([20, 21, 30].map(of), [Some(0), Some(0), Some(3)]);
        assert_eq!([1, 10, 31, 99].map(of), [None; 4]);
        assert!(family(std::process::id()).contains(&std::process::id()));
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
