//! One side of a comparison: a system, or a node's program, that runs in a lab of its own beside another side.

use std::path::{Path, PathBuf};

use super::cell::measure;
use super::file::Hops;
use super::placement::Placement;
use super::running::{Running, Setup};
use super::sender::Order;
use super::system::System;
use crate::error::LabError;
use crate::lab::{Io, Tuning};
use crate::results::Round;

/// Seconds before what is measured.
pub(crate) const WARM_UP_S: u64 = 2;

/// Who, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideSetup<'a> {
    /// A system's name, or the path of a node's program.
    pub(crate) named: &'a str,
    /// What drives a node that is named by its path.
    pub(crate) io: Io,
    /// The node of systems that are the mesh.
    pub(crate) node: &'a Path,
    /// Below which its lab is made.
    pub(crate) directory: &'a Path,
    /// Of each hop.
    pub(crate) workers: u32,
    /// Without it only the ingest hop.
    pub(crate) has_two_hops: bool,
    /// Bytes of each body.
    pub(crate) body_bytes: u64,
}

/// A load for both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideLoad {
    /// Bytes of each body.
    pub(crate) body_bytes: u64,
    /// Connections at once.
    pub(crate) connections: u32,
    /// Events per second; `None` is a closed loop.
    pub(crate) rate_per_s: Option<f64>,
    /// Seconds that are measured.
    pub(crate) seconds: u64,
}

/// A side that runs.
pub(crate) struct Side {
    running: Running,
    placement: Placement,
}

impl Side {
    /// Who that is, as tables show it, and what of the mesh's work it does not do: nothing is started.
    pub(crate) fn identify(setup: &SideSetup<'_>) -> Result<(String, Vec<String>), LabError> {
        let (system, node) = resolve(setup)?;
        system.version(&node)?;
        Ok((system.label().to_owned(), system.lacks()))
    }

    /// Starts it and shows that it does the work; call it on the main thread.
    pub(crate) async fn start(setup: &SideSetup<'_>) -> Result<Self, LabError> {
        let (system, node) = resolve(setup)?;
        let placement = Placement::here();
        let running = Running::start(&Setup {
            system,
            hops: if setup.has_two_hops { Hops::Both } else { Hops::Ingest },
            workers: setup.workers,
            tuning: Tuning::NONE,
            body_bytes: setup.body_bytes as usize,
            directory: setup.directory,
            node: &node,
            placement: &placement,
        })
        .await?;
        Ok(Self { running, placement })
    }

    /// Runs a load through it, and waits until all of it is delivered.
    pub(crate) async fn measure(&mut self, load: &SideLoad) -> Result<Round, LabError> {
        let order = Order {
            body_bytes: load.body_bytes,
            mix: None,
            connections: load.connections,
            new_connections: false,
            duplicates_percent: 0,
            rate_per_s: load.rate_per_s,
            warm_up_s: WARM_UP_S,
            seconds: load.seconds,
        };
        Ok(measure(&mut self.running, &order, &self.placement).await?.round)
    }

    /// Process ids of the hops.
    pub(crate) fn hop_ids(&self) -> Vec<u32> {
        self.running.hop_ids()
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}

/// The system, and the node's program if it is the mesh.
fn resolve(setup: &SideSetup<'_>) -> Result<(System, PathBuf), LabError> {
    if setup.named.contains('/') {
        let program = PathBuf::from(setup.named);
        let found = program.canonicalize().map_err(|source| LabError::Start { program, source })?;
        let system = if setup.io == Io::Epoll { System::ZenEpoll } else { System::Zen };
        return Ok((system, found));
    }
    let system = System::parse(setup.named).map_err(|error| LabError::Tool {
        what: format!("neither a system nor a path: {}", setup.named),
        reason: format!("{error}; a node's program is named by its path, as ./zen-dataplane"),
    })?;
    Ok((system, setup.node.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(named: &str, io: Io) -> Result<(System, PathBuf), LabError> {
        let directory = Path::new("lab");
        let node = Path::new("/node");
        resolve(&SideSetup { named, io, node, directory, workers: 1, has_two_hops: true, body_bytes: 1 })
    }

    #[test]
    fn a_side_is_a_system_or_a_path() {
        let own = std::env::current_exe().unwrap().canonicalize().unwrap();
        let path = own.to_str().unwrap();
        assert_eq!(found(path, Io::Uring).unwrap(), (System::Zen, own.clone()));
        assert_eq!(found(path, Io::Epoll).unwrap(), (System::ZenEpoll, own.clone()));
        assert_eq!(found("zen-epoll", Io::Uring).unwrap(), (System::ZenEpoll, PathBuf::from("/node")));
        let words = found("apache", Io::Uring).unwrap_err().to_string();
        assert!(words.contains("there are: zen,") && words.contains("by its path"), "{words}");
        let words = found("./absent/node", Io::Uring).unwrap_err().to_string();
        assert!(words.starts_with("./absent/node: No such file"), "{words}");
    }
}
