//! Connections that say nothing: what the first hop's memory grows by for each.
//!
//! Each system is started anew and first holds a few that go again, so that what it keeps ready anyway is not counted.

use std::ffi::OsStr;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use super::Stage;
use super::file::Scenario;
use super::found::Found;
use super::rounds::{setup, turns};
use super::running::{Running, Setup};
use super::sender::follow;
use super::system::System;
use crate::error::LabError;
use crate::lab::{Process, Tuning};
use crate::results::{Load, Round, Row};

const FEW: u32 = 64;
/// Descriptors of a process besides its connections.
const FILES_SPARE: u64 = 1000;
/// A peer may have a descriptor for each side of a connection.
const FILES_EACH: u64 = 2;
const OPEN_TIMEOUT: Duration = Duration::from_mins(2);
const END_TIMEOUT: Duration = Duration::from_mins(1);
/// Memory that is given back is given back by then.
const PAUSE: Duration = Duration::from_millis(500);
const TUNING: Tuning = Tuning {
    ingester: "connections_max = 20000",
    // The bound is counted from all that may come, and that is much more than what comes.
    node: "memory_bytes_max = 4294967296",
    ..Tuning::NONE
};

/// Runs it.
pub(super) async fn run(
    stage: &Stage<'_>,
    scenario: &Scenario,
    systems: &[System],
    found: &mut Found,
) -> Result<(), LabError> {
    let connections = scenario.connections[0];
    raise_files(connections)?;
    for round in 0..scenario.full.rounds {
        for who in turns(round, systems.len()) {
            let system = systems[who];
            eprintln!("{}: {connections} connections, {}", scenario.name, system.label());
            let setup = Setup { tuning: TUNING, ..setup(stage, scenario, system, 1) };
            match held(&setup, connections, scenario.full.seconds).await {
                Ok(bytes) => {
                    let round = Round {
                        load: Load::default(),
                        cpu_us: None,
                        idle_connection_bytes: Some(bytes),
                        slowdown: None,
                    };
                    found.add(row(scenario, system), round);
                }
                Err(error) => {
                    let words = format!("{}, {}: {error}", scenario.name, system.label());
                    eprintln!("{words}");
                    found.remarks.push(words);
                }
            }
        }
    }
    Ok(())
}

/// Bytes that the first hop grows by for each of `connections`.
async fn held(setup: &Setup<'_>, connections: u32, seconds: u64) -> Result<f64, LabError> {
    let mut running = Running::start(setup).await?;
    idle(&mut running, FEW, 0).await?;
    tokio::time::sleep(PAUSE).await;
    let before = running.first_resident_bytes();
    let after = idle(&mut running, connections, seconds).await?;
    running.stop().await;
    Ok((after as f64 - before as f64) / f64::from(connections))
}

/// Holds so many for so long; the resident bytes meanwhile.
async fn idle(running: &mut Running, connections: u32, seconds: u64) -> Result<u64, LabError> {
    let own =
        std::env::current_exe().map_err(|source| LabError::Start { program: "zen-perf".into(), source })?;
    let (address, count) = (running.lab.public.to_string(), connections.to_string());
    let authority = running.lab.pki.public_ca();
    let arguments: [&OsStr; 7] = [
        "idle".as_ref(),
        "--address".as_ref(),
        address.as_ref(),
        "--ca".as_ref(),
        authority.as_ref(),
        "--connections".as_ref(),
        count.as_ref(),
    ];
    let (mut process, output) =
        Process::start_piped("idle", &own, &arguments, &running.lab.log("idle"), b"")?;
    let mut lines = follow(output);
    let opened = timeout(OPEN_TIMEOUT, lines.recv()).await;
    let Ok(opened) = opened else {
        return Err(LabError::Late {
            what: "all idle connections are open",
            seconds: OPEN_TIMEOUT.as_secs(),
        });
    };
    if opened.is_none() {
        return Err(LabError::Tool { what: "idle connections".to_owned(), reason: process.log_tail() });
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    running.check()?;
    let bytes = running.first_resident_bytes();
    // It ends with a request on each, which not every peer answers as the mesh does.
    process.signal(Signal::SIGTERM);
    if process.wait(END_TIMEOUT).await.is_none() {
        return Err(LabError::Late { what: "the end of idle connections", seconds: END_TIMEOUT.as_secs() });
    }
    Ok(bytes)
}

/// Processes that are started from here on may have so many connections.
fn raise_files(connections: u32) -> Result<(), LabError> {
    let wanted = u64::from(connections) * FILES_EACH + FILES_SPARE;
    let what = || format!("{connections} connections");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|error| LabError::Tool { what: what(), reason: error.desc().to_owned() })?;
    if soft >= wanted {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)
        .map_err(|error| LabError::Tool { what: what(), reason: error.desc().to_owned() })?;
    if hard >= wanted {
        return Ok(());
    }
    let reason = format!(
        "want {wanted} open files and {hard} are allowed; raise it with `ulimit -Hn {wanted}` as root, or name fewer in the scenario"
    );
    Err(LabError::Tool { what: what(), reason })
}

fn row(scenario: &Scenario, system: System) -> Row {
    Row {
        scenario: scenario.name.clone(),
        system: system.label().to_owned(),
        lacks: system.lacks(),
        body_bytes: scenario.body_bytes,
        connections: scenario.connections[0],
        offered_per_s: None,
        rounds: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_for_the_limit_of_open_files_names_the_remedy() {
        raise_files(1).unwrap();
        let error = raise_files(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("open files") && error.contains("ulimit -Hn"), "{error}");
    }
}
