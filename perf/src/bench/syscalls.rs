//! The `syscalls` command: which system calls the nodes' workers make, and how many per event.
//!
//! `strace` attaches to both nodes under load at 256 connections. On a worker thread no socket or
//! journal byte may move by a system call of its own: only the ring may be entered. Without strace
//! the load runs once more, and enters of the ring per event come from the nodes' counters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::GOAL_CELL;
use super::contender::{Contender, Kind, Programs, WARM_UP};
use crate::error::LabError;
use crate::lab::node_program;
use crate::load::{LoadState, run_load};

const ATTACH_TIME: Duration = Duration::from_millis(700);
/// Calls that move bytes of sockets and files, or make connections; the ring does all of that.
const MOVES: [&str; 20] = [
    "read",
    "write",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "preadv",
    "pwritev",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
    "recvmmsg",
    "sendmmsg",
    "accept",
    "accept4",
    "connect",
    "fsync",
    "fdatasync",
    "sendfile",
];

/// Options of `syscalls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seconds of load, traced and again untraced.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/syscalls")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// Most system calls per event that pass.
    #[arg(long, default_value_t = 0.5)]
    per_event_max: f64,
}

/// System calls of one thread, by name.
type Calls = BTreeMap<String, u64>;

/// Measures, prints, and says whether both bounds hold.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let programs = Programs { node: node_program(options.node.as_deref())? };
    let mut bench = Contender::start(Kind::Uring, &options.dir, 1, &programs).await?;
    let length = Duration::from_secs(options.seconds);
    let trace = options.dir.join("strace.txt");
    let pids = [("ingester", bench.hops[0].id()), ("egress", bench.hops[1].id())];
    let threads: Vec<(&str, BTreeMap<u32, String>)> =
        pids.iter().map(|(name, pid)| (*name, thread_names(*pid))).collect();
    let mut strace = attach(&trace, pids.map(|(_, pid)| pid))?;
    tokio::time::sleep(ATTACH_TIME).await;
    let traced_events = load(&mut bench, length).await?;
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT)
        .expect("strace runs until it is told to stop");
    strace.wait().map_err(LabError::file(&trace))?;
    let text = std::fs::read_to_string(&trace).map_err(LabError::file(&trace))?;

    let before = bench.enters().await;
    let events = load(&mut bench, length).await?;
    let after = bench.enters().await;
    bench.stop().await;

    let mut good = true;
    for (at, (name, threads)) in threads.iter().enumerate() {
        let calls = worker_calls(&text, threads);
        let total: u64 = calls.values().sum();
        let moved: Vec<String> =
            MOVES.iter().filter_map(|call| Some(format!("{call} {}", calls.get(*call)?))).collect();
        let traced = total as f64 / traced_events;
        let untraced = (after[at] - before[at]) / events;
        println!(
            "{name}: {total} system calls of its worker for {traced_events} events, {traced:.3} per event under strace; {untraced:.3} enters per event without it; {calls:?}"
        );
        if total == 0 {
            println!("WRONG: {name}: strace saw no call of a worker thread");
            good = false;
        }
        if !moved.is_empty() {
            println!("WRONG: {name}: bytes moved beside the ring: {}", moved.join(", "));
            good = false;
        }
        if traced >= options.per_event_max || untraced >= options.per_event_max {
            println!("WRONG: {name}: {} system calls per event or more", options.per_event_max);
            good = false;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the load; how many events were accepted, all of them delivered.
async fn load(bench: &mut Contender, length: Duration) -> Result<f64, LabError> {
    let state = Arc::new(LoadState::default());
    let delivered_before = bench.delivered().await;
    let sending = tokio::spawn(run_load(bench.plan(GOAL_CELL)?, Arc::clone(&state)));
    tokio::time::sleep(WARM_UP + length).await;
    state.stop();
    sending.await.expect("the load does not panic");
    let accepted = state.accepted.load(Ordering::Relaxed) as f64;
    bench.await_delivered(delivered_before + accepted).await?;
    Ok(accepted)
}

fn attach(trace: &Path, pids: [u32; 2]) -> Result<std::process::Child, LabError> {
    let [ingester, egress] = pids.map(|pid| pid.to_string());
    std::process::Command::new("strace")
        .args(["-f", "-y", "-qq", "-p", &ingester, "-p", &egress, "-o"])
        .arg(trace)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| LabError::Start { program: PathBuf::from("strace"), source })
}

/// Thread ids and names of a process.
fn thread_names(pid: u32) -> BTreeMap<u32, String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let tid = entry.file_name().to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((tid, name.trim().to_owned()))
        })
        .collect()
}

/// Calls that worker threads began, from lines like `1234 write(3, ...`.
fn worker_calls(trace: &str, threads: &BTreeMap<u32, String>) -> Calls {
    let mut calls = Calls::new();
    for line in trace.lines() {
        let Some((tid, call)) = line.split_once(' ') else { continue };
        let worker =
            tid.parse().ok().and_then(|tid| threads.get(&tid)).is_some_and(|name| name.starts_with("worker"));
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if worker && plain {
            let counted = if is_of_proc(arguments) { format!("{name} of /proc") } else { name.to_owned() };
            *calls.entry(counted).or_default() += 1;
        }
    }
    calls
}

/// Whether a call's first argument is a descriptor of a kernel setting, as `strace -y` shows it. The C
/// library's allocator reads `/proc/sys/vm/overcommit_memory` once, when it first returns memory.
fn is_of_proc(arguments: &str) -> bool {
    let number = arguments.trim_start_matches(|digit: char| digit.is_ascii_digit());
    number.len() < arguments.len() && number.starts_with("</proc/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_of_worker_threads_count() {
        let threads = BTreeMap::from([(7, "worker-0".to_owned()), (8, "segments".to_owned())]);
        let trace = "7 io_uring_enter(4, 1, 1, 0 <unfinished ...>\n7 <... io_uring_enter resumed>) = 1\n\
            8 write(5, \"\", 0) = 0\n7  write(3</a/proc>, \"</proc/\", 1) = 1\n7 --- SIGINT {si_signo=SIGINT} ---\n\
            7 read(9</proc/sys/vm/overcommit_memory>, \"0\", 1) = 1\nnonsense\n";
        let calls = worker_calls(trace, &threads);
        let expected = [("io_uring_enter", 1), ("read of /proc", 1), ("write", 1)];
        assert_eq!(calls, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
}
