//! `bench --profile`: where the CPU time of both hops goes, by stage of an event's life.
//!
//! A sample belongs to the innermost frame that a rule of [`RULES`] knows: a function of the kernel by its
//! name, code of ours by its source file, also where it was inlined. What nobody claims is "rest".

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::contender::{Cell, Contender, WARM_UP};
use super::stacks::{Frame, Places, Stack, read};
use crate::error::LabError;
use crate::load::{LoadState, run_load};

const FREQUENCY: &str = "997";
const STACK_BYTES: &str = "dwarf,4096";
const REST: &str = "rest";
const LEAVES: usize = 5;

/// Stage, and what its frames contain: kernel functions, or paths of source files.
const RULES: [(&str, &[&str]); 15] = [
    ("receive (kernel)", &["io_recv", "sock_recvmsg", "tcp_recvmsg"]),
    ("send (kernel)", &["io_send", "sock_sendmsg", "tcp_sendmsg"]),
    ("journal (kernel)", &["io_write", "blk_", "iomap_", "ext4_", "virtio_queue_rq", "virtblk_"]),
    ("wait (kernel)", &["io_cqring_wait", "__schedule", "ep_poll", "do_epoll_wait"]),
    ("TLS", &["/rustls-0", "node/src/tls.rs", "node/src/stream.rs"]),
    ("parse", &["core/src/http1"]),
    ("verify", &["core/src/verify", "node/src/worker/verify.rs", "ingester/unverified.rs"]),
    ("dedupe", &["core/src/dedupe", "node/src/dedupe"]),
    ("event encoding", &["core/src/event.rs", "core/src/record.rs", "core/src/id.rs"]),
    ("journal", &["core/src/journal", "node/src/journal"]),
    ("link", &["core/src/link", "node/src/link", "ingester/outbox.rs"]),
    (
        "deliver",
        &[
            "core/src/deliver",
            "core/src/envelope",
            "egress/deliveries",
            "egress/connection.rs",
            "egress/owner.rs",
        ],
    ),
    ("route and answer", &["node/src/ingester"]),
    ("table and outcomes", &["node/src/egress"]),
    (
        "reactor and worker",
        &["dataplane/uring/src", "node/src/worker", "node/src/mesh.rs", "__do_sys_io_uring_enter"],
    ),
];

/// Samples of one hop.
#[derive(Debug, Default)]
struct Profile {
    samples: u64,
    stages: BTreeMap<&'static str, Stage>,
}

/// Samples of one stage.
#[derive(Debug, Default)]
struct Stage {
    samples: u64,
    in_allocator: u64,
    copying: u64,
    leaves: BTreeMap<String, u64>,
}

/// Records under load and prints a table for each hop; µs are shares of the CPU of an unprofiled run.
pub(super) async fn run(
    contender: &mut Contender,
    cell: Cell,
    length: Duration,
    program: &Path,
) -> Result<(), LabError> {
    println!("{}", super::cpu::machine());
    for (name, profile, cpu_us) in record_both(contender, cell, length, program).await? {
        profile.print(name, cell, cpu_us);
    }
    Ok(())
}

/// The same as data: hop, and µs per event of each stage, the largest first.
pub(super) async fn stages(
    contender: &mut Contender,
    cell: Cell,
    length: Duration,
    program: &Path,
) -> Result<Vec<(&'static str, Vec<(String, f64)>)>, LabError> {
    let both = record_both(contender, cell, length, program).await?;
    Ok(both.into_iter().map(|(name, profile, cpu_us)| (name, profile.stages_us(cpu_us))).collect())
}

async fn record_both(
    contender: &mut Contender,
    cell: Cell,
    length: Duration,
    program: &Path,
) -> Result<Vec<(&'static str, Profile, f64)>, LabError> {
    let plain = contender.measure(cell, length).await?;
    let recording = contender.lab.directory.join("perf.data");
    let pids = [contender.hops[0].id(), contender.hops[1].id()];
    let state = Arc::new(LoadState::default());
    let before = contender.delivered().await;
    let sending = tokio::spawn(run_load(contender.plan(cell)?, Arc::clone(&state)));
    tokio::time::sleep(WARM_UP).await;
    let mut perf = record(&recording, pids, &["-e", "cpu-clock", "-F", FREQUENCY], STACK_BYTES, length)?;
    while matches!(perf.try_wait(), Ok(None)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    state.stop();
    sending.await.expect("the load does not panic");
    let accepted = state.accepted.load(std::sync::atomic::Ordering::Relaxed) as f64;
    contender.await_delivered(before + accepted).await?;

    let stacks = read(&recording)?;
    let places = Places::resolve(program, &stacks)?;
    let hops = [("ingester", pids[0], plain[0]), ("egress", pids[1], plain[1])];
    let of = |(name, pid, cpu_us)| {
        let own = stacks.iter().filter(|stack| stack.process == pid);
        (name, fold(own, &places), cpu_us)
    };
    Ok(hops.map(of).into())
}

/// Starts `perf record` on both hops for `length`.
pub(super) fn record(
    recording: &Path,
    pids: [u32; 2],
    events: &[&str],
    stack: &str,
    length: Duration,
) -> Result<std::process::Child, LabError> {
    Command::new("perf")
        .args(["record", "-q"])
        .args(events)
        .args(["--call-graph", stack, "-p", &format!("{},{}", pids[0], pids[1]), "-o"])
        .arg(recording)
        .args(["sleep", &length.as_secs_f64().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| LabError::Tool { what: "perf".to_owned(), reason: error.to_string() })
}

fn fold<'a>(stacks: impl Iterator<Item = &'a Stack>, places: &Places) -> Profile {
    let mut profile = Profile::default();
    for stack in stacks {
        let Some(leaf) = stack.frames.first() else { continue };
        let stage = profile.stages.entry(stage_of(stack, places)).or_default();
        profile.samples += 1;
        stage.samples += 1;
        stage.in_allocator += u64::from(stack.frames.iter().any(is_allocator));
        stage.copying += u64::from(is_copy(&leaf.symbol));
        *stage.leaves.entry(short(&leaf.symbol)).or_default() += 1;
    }
    profile
}

fn stage_of(stack: &Stack, places: &Places) -> &'static str {
    if stack.thread.starts_with("iou-wrk") {
        return "journal (kernel)";
    }
    for (at, frame) in stack.frames.iter().enumerate() {
        let inlined = places.of(at, frame).iter().map(String::as_str);
        for name in inlined.chain([frame.symbol.as_str()]) {
            let rule = RULES.iter().find(|(_, parts)| parts.iter().any(|part| name.contains(part)));
            if let Some((stage, _)) = rule {
                return stage;
            }
        }
    }
    REST
}

/// The C library's allocator, or mimalloc; the kernel's own is not meant.
fn is_allocator(frame: &Frame) -> bool {
    const NAMES: [&str; 8] =
        ["malloc", "free", "cfree", "realloc", "calloc", "int_malloc", "int_free", "mi_"];
    let name = frame.symbol.trim_start_matches('_');
    !frame.object.starts_with("[kernel") && NAMES.iter().any(|start| name.starts_with(start))
}

fn is_copy(symbol: &str) -> bool {
    symbol.contains("memmove") || symbol.contains("memcpy") || symbol.contains("clear_page")
}

/// A name without its generic arguments and all but its last two segments.
fn short(symbol: &str) -> String {
    let plain = symbol.split('<').find(|part| !part.is_empty()).unwrap_or(symbol);
    let segments: Vec<&str> = plain.trim_end_matches(':').split("::").collect();
    segments[segments.len().saturating_sub(2)..].join("::")
}

impl Profile {
    fn stages_us(&self, cpu_us: f64) -> Vec<(String, f64)> {
        let us = |samples: u64| samples as f64 / self.samples.max(1) as f64 * cpu_us;
        let mut stages: Vec<(String, f64)> =
            self.stages.iter().map(|(name, stage)| ((*name).to_owned(), us(stage.samples))).collect();
        stages.sort_by(|left, right| right.1.total_cmp(&left.1));
        stages
    }

    fn print(&self, hop: &str, cell: Cell, cpu_us: f64) {
        let us = |samples: u64| samples as f64 / self.samples.max(1) as f64 * cpu_us;
        println!(
            "\n{hop}, {} connections, {} B: {cpu_us:.1} µs per event; {} samples\n",
            cell.connections, cell.body_bytes, self.samples
        );
        println!("| stage | % | µs per event | in the allocator | copying | most of it |");
        println!("|---|---|---|---|---|---|");
        let mut stages: Vec<(&&str, &Stage)> = self.stages.iter().collect();
        stages.sort_by_key(|(_, stage)| std::cmp::Reverse(stage.samples));
        for (name, stage) in stages {
            let mut leaves: Vec<(&String, &u64)> = stage.leaves.iter().collect();
            leaves.sort_by_key(|(_, samples)| std::cmp::Reverse(**samples));
            let most =
                leaves.iter().take(LEAVES).map(|(leaf, samples)| format!("`{leaf}` {:.1}", us(**samples)));
            println!(
                "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
                100.0 * stage.samples as f64 / self.samples.max(1) as f64,
                us(stage.samples),
                us(stage.in_allocator),
                us(stage.copying),
                most.collect::<Vec<_>>().join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(thread: &str, symbols: &[&str]) -> Stack {
        let frame = |symbol: &&str| Frame { address: 1, symbol: (*symbol).to_owned(), object: String::new() };
        Stack { thread: thread.to_owned(), process: 1, frames: symbols.iter().map(frame).collect() }
    }

    #[test]
    fn the_innermost_known_frame_names_the_stage() {
        let places = Places::default();
        let of = |thread, symbols: &[&str]| stage_of(&stack(thread, symbols), &places);
        assert_eq!(
            of("worker-0", &["tcp_ack", "tcp_sendmsg", "io_send", "__do_sys_io_uring_enter"]),
            "send (kernel)"
        );
        assert_eq!(of("worker-0", &["fget", "__do_sys_io_uring_enter"]), "reactor and worker");
        assert_eq!(of("iou-wrk-7", &["tcp_ack"]), "journal (kernel)");
        assert_eq!(of("worker-0", &["main"]), REST);
    }

    #[test]
    fn samples_are_folded_with_their_leaves() {
        let stacks = [stack("w", &["_int_malloc", "malloc", "io_send"]), stack("w", &["tcp_ack", "io_send"])];
        let profile = fold(stacks.iter(), &Places::default());
        let stage = &profile.stages["send (kernel)"];
        assert_eq!((profile.samples, stage.samples, stage.in_allocator), (2, 2, 1));
        assert_eq!(stage.leaves["tcp_ack"], 1);
        assert_eq!(profile.stages_us(7.5), [("send (kernel)".to_owned(), 7.5)]);
        assert_eq!(short("zen_core::http1::request::RequestParser<T>::x"), "request::RequestParser");
    }
}
