//! What each fault does to a running lab, and what it wants to see of the struck part itself.

use std::time::{Duration, Instant};

use super::arena::{Arena, Running, VICTIM_EGRESS, VICTIM_TARGET, within};
use super::clients::{self, Front};
use super::host::{Ballast, CLOCK_LATENCY, set_clock};
use super::process::Memory;
use super::{Fault, Options};
use crate::error::LabError;
use crate::lab::{Process, get};
use crate::relay::Way;

const CLOCK_STEP_S: i32 = 3600;
const FILL_SECONDS_MAX: u64 = 90;
const RECOVER_SECONDS_MAX: u64 = 45;
const SLOW_BYTES_PER_S: u32 = 256 * 1024;
const PAUSE: Duration = Duration::from_secs(1);
/// Bad clients together may make a node grow by this much, a small part of what they send.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
const IDLE_PROCESSES: usize = 2;
const IDLE_SECONDS_MAX: u64 = 240;
const IDLE_LAST_WORDS: Duration = Duration::from_mins(2);

/// What came of a strike.
#[derive(Debug, Default)]
pub(super) struct Struck {
    /// What the node did wrong.
    pub(super) complaints: Vec<String>,
    /// A figure for the fault's line.
    pub(super) note: String,
}

/// Does it, for as long as the options say.
pub(super) async fn strike(fault: Fault, arena: &mut Arena, options: &Options) -> Result<Struck, LabError> {
    let length = Duration::from_secs(options.seconds);
    match fault {
        Fault::TargetDown => way(arena, VICTIM_TARGET, Way::Cut, length).await,
        Fault::TargetSilent => way(arena, VICTIM_TARGET, Way::Held, length).await,
        Fault::LinkCut => {
            for change in [Way::Cut, Way::Held, Way::Cut, Way::Slow(SLOW_BYTES_PER_S)] {
                way(arena, VICTIM_EGRESS, change, length / 4).await;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Fault::DiskFull => return disk_full(arena, length).await,
        Fault::DiskFullEgress => return disk_full_egress(arena, length).await,
        Fault::ClockStep => clock_steps(arena, crate::lab::INGESTER, length).await?,
        Fault::ClockStepEgress => clock_steps(arena, VICTIM_EGRESS, length).await?,
        Fault::IdleConnections => return idle_connections(arena, options).await,
        Fault::SlowClients | Fault::EndlessBodies | Fault::Garbage | Fault::HalfHandshakes => {
            return bad_clients(fault, arena, length).await;
        }
    }
    Ok(Struck::default())
}

/// Changes a relay's way for a time.
async fn way(arena: &Arena, name: &str, way: Way, length: Duration) {
    arena.relay(name).set(way);
    tokio::time::sleep(length).await;
    arena.relay(name).set(Way::Open);
}

/// The ingester cannot trim while an egress is away, so its disk fills: 503 until there is space.
async fn disk_full(arena: &mut Arena, length: Duration) -> Result<Struck, LabError> {
    arena.relay(VICTIM_EGRESS).set(Way::Cut);
    let ballast = Ballast::fill(&arena.lab, arena.ingester())?;
    let struck = fill(arena.ingester(), length).await?;
    ballast.free()?;
    // Space alone is enough, whatever became of the egress.
    await_acceptance(arena).await?;
    // The node looks at its own readiness a few times a second.
    let admin = arena.ingester().node.admin;
    let is_ready = async || matches!(get(admin, "/readyz").await, Ok((200, _)));
    within(RECOVER_SECONDS_MAX, "the ingester is ready again", is_ready).await?;
    arena.relay(VICTIM_EGRESS).set(Way::Open);
    Ok(struck)
}

/// The egress cannot trim while a target is away, so its disk fills: links stop asking until there is space.
async fn disk_full_egress(arena: &mut Arena, length: Duration) -> Result<Struck, LabError> {
    arena.relay(VICTIM_TARGET).set(Way::Cut);
    let ballast = Ballast::fill(&arena.lab, arena.node(VICTIM_EGRESS))?;
    let struck = fill(arena.node(VICTIM_EGRESS), length).await?;
    ballast.free()?;
    let running = arena.node(VICTIM_EGRESS);
    within(RECOVER_SECONDS_MAX, "the egress takes events again", async || !is_full(running).await).await?;
    arena.relay(VICTIM_TARGET).set(Way::Open);
    Ok(struck)
}

/// Waits until the journal of `running` is full, and lets it be so for a time.
async fn fill(running: &Running, length: Duration) -> Result<Struck, LabError> {
    within(FILL_SECONDS_MAX, "the journal is full", async || is_full(running).await).await?;
    tokio::time::sleep(length).await;
    let mut struck = Struck::default();
    if !matches!(get(running.node.admin, "/readyz").await, Ok((503, _))) {
        struck.complaints.push("its journal is full and it is ready".to_owned());
    }
    Ok(struck)
}

async fn is_full(running: &Running) -> bool {
    Arena::counter(running, "zen_journal_full", "").await > 0.0
}

async fn await_acceptance(arena: &Arena) -> Result<(), LabError> {
    let accepted = || arena.load.accepted.load(std::sync::atomic::Ordering::Relaxed);
    let before = accepted();
    within(RECOVER_SECONDS_MAX, "events are accepted again", async || accepted() > before).await
}

/// Forward, back, backward and back; after each return events must come again.
async fn clock_steps(arena: &mut Arena, name: &str, length: Duration) -> Result<(), LabError> {
    arena.sink.refuses_invalid.store(true, std::sync::atomic::Ordering::Relaxed);
    let node = arena.node(name).node.clone();
    for offset_s in [CLOCK_STEP_S, -CLOCK_STEP_S] {
        set_clock(&arena.lab, &node, offset_s)?;
        tokio::time::sleep(CLOCK_LATENCY + length / 2).await;
        set_clock(&arena.lab, &node, 0)?;
        tokio::time::sleep(CLOCK_LATENCY).await;
        let before = arena.sink.count_of(VICTIM_TARGET);
        let (sink, what) = (&arena.sink, "events are delivered after the clock was set right");
        within(RECOVER_SECONDS_MAX, what, async || sink.count_of(VICTIM_TARGET) > before).await?;
    }
    Ok(())
}

/// Rounds of bad clients until the time is over; the ingester must not grow by them.
async fn bad_clients(fault: Fault, arena: &mut Arena, length: Duration) -> Result<Struck, LabError> {
    let front = Front::of(arena)?;
    let id = arena.ingester().process.id();
    let before_kib = Memory::of(id).resident_kib;
    let begun = Instant::now();
    let (mut struck, mut rounds) = (Struck::default(), 0);
    while struck.complaints.is_empty() && (rounds == 0 || begun.elapsed() < length) {
        rounds += 1;
        struck.complaints = match fault {
            Fault::SlowClients => clients::slow(&front).await?,
            Fault::EndlessBodies => clients::endless(&front).await,
            Fault::Garbage => clients::garbage(&front).await,
            _ => clients::half_handshakes(&front).await,
        };
    }
    let grown_kib = Memory::of(id).peak_kib.saturating_sub(before_kib);
    if grown_kib > GROWTH_KIB_MAX {
        struck.complaints.push(format!("the ingester grew by {grown_kib} KiB"));
    }
    struck.note = format!(", {rounds} rounds, grown by {} MiB", grown_kib.div_ceil(1024));
    Ok(struck)
}

/// Clients in processes of their own, for their descriptors; each connection must outlive its silence.
async fn idle_connections(arena: &mut Arena, options: &Options) -> Result<Struck, LabError> {
    let program =
        std::env::current_exe().map_err(|source| LabError::Start { program: "zen-perf".into(), source })?;
    let each = (options.idle_connections / IDLE_PROCESSES).to_string();
    let (address, authority) = (arena.lab.public.to_string(), arena.lab.pki.public_ca());
    let before = Memory::of(arena.ingester().process.id());
    let mut clients = Vec::new();
    for index in 0..IDLE_PROCESSES {
        let arguments = [
            "idle".as_ref(),
            "--address".as_ref(),
            address.as_ref(),
            "--ca".as_ref(),
            authority.as_os_str(),
            "--connections".as_ref(),
            each.as_ref(),
        ];
        let name = format!("idle-{index}");
        clients.push(Process::start(&name, &program, &arguments, &arena.lab.log(&name))?);
    }
    let wanted = (options.idle_connections / IDLE_PROCESSES * IDLE_PROCESSES) as f64;
    let ingester = arena.ingester();
    let connected = async || Arena::counter(ingester, "zen_source_connections", "").await >= wanted;
    within(IDLE_SECONDS_MAX, "all idle connections are open", connected).await?;
    tokio::time::sleep(Duration::from_secs(options.seconds.min(30))).await;
    let after = Memory::of(ingester.process.id());
    let mut struck = Struck::default();
    for client in &mut clients {
        client.check()?;
        client.signal(nix::sys::signal::Signal::SIGTERM);
        if !client.wait(IDLE_LAST_WORDS).await.is_some_and(|status| status.success()) {
            struck.complaints.push(format!("an idle connection was lost: {}", client.log_tail()));
        }
    }
    let held_kib = after.resident_kib.saturating_sub(before.resident_kib) as f64;
    struck.note = format!(", {wanted} idle, {:.1} KiB each", held_kib / wanted);
    Ok(struck)
}
