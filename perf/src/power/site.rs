//! Nodes on drives that lose power: an ingester and its egresses, each with its `data_dir` on a [`Volume`].
//!
//! Every second cut hits the ingester, which makes the promises; one in four an egress; one in four the whole site.
//! Every second comes between a write and its flush; one in eight again while the nodes start, in the middle of recovery.

use std::path::PathBuf;
use std::time::Duration;

use super::drive::{Cut, Flushes};
use super::volume::{Disk, Volume};
use crate::crash::DRAIN_TIMEOUT;
use crate::error::LabError;
use crate::lab::{Lab, Node, Process, wait_ready};
use crate::random::Random;

const DRIVE_BYTES: u64 = 384 << 20;
const DOWN_MS_MAX: u64 = 200;
/// A start takes about this long.
const START_MS_MAX: u64 = 100;

/// A node, its file system and its process.
struct Powered {
    node: Node,
    process: Process,
    volume: Volume,
    cuts: u32,
}

/// All nodes of a lab.
pub(super) struct Site {
    program: PathBuf,
    /// The ingester first.
    nodes: Vec<Powered>,
}

impl Site {
    /// Makes the drives and starts all nodes.
    pub(super) async fn start(lab: &Lab, program: PathBuf, flushes: Flushes) -> Result<Self, LabError> {
        let mut nodes = Vec::new();
        for node in std::iter::once(&lab.ingester).chain(&lab.egresses) {
            let disk = Disk::new(&lab.directory, &node.name, DRIVE_BYTES, flushes)?;
            let volume = Volume::new(disk, &lab.directory.join(&node.name))?;
            let process = lab.start(node, &program)?;
            nodes.push(Powered { node: node.clone(), process, volume, cuts: 0 });
        }
        let mut site = Self { program, nodes };
        for powered in &mut site.nodes {
            wait_ready(&powered.node, &mut powered.process).await?;
        }
        Ok(site)
    }

    /// An error if a node has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), LabError> {
        self.nodes.iter_mut().try_for_each(|powered| powered.process.check())
    }

    /// Takes the power from some nodes, now, and starts them again; what their drives lost.
    pub(super) async fn cut(&mut self, lab: &Lab, random: &mut Random) -> Result<Cut, LabError> {
        let victims = match random.below(4) {
            0 | 1 => 0..1,
            2 => {
                let egress = 1 + random.below(self.nodes.len() as u64 - 1) as usize;
                egress..egress + 1
            }
            _ => 0..self.nodes.len(),
        };
        let victims = &mut self.nodes[victims];
        let mut lost = fail(victims, random).await?;
        tokio::time::sleep(Duration::from_millis(random.below(DOWN_MS_MAX))).await;
        start(victims, lab, &self.program)?;
        if random.below(8) == 0 {
            tokio::time::sleep(Duration::from_millis(random.below(START_MS_MAX))).await;
            lost += fail(victims, random).await?;
            start(victims, lab, &self.program)?;
        }
        for powered in victims {
            wait_ready(&powered.node, &mut powered.process).await?;
        }
        Ok(lost)
    }

    /// Stops all nodes and checks their file systems; what did not go well.
    pub(super) async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for powered in &mut self.nodes {
            if !powered.process.stop(DRAIN_TIMEOUT).await.is_some_and(|status| status.success()) {
                complaints.push(format!("{} did not stop well on SIGTERM", powered.node.name));
            }
            complaints.extend(powered.volume.close().err().map(|error| error.to_string()));
        }
        complaints
    }

    /// Cuts by node.
    pub(super) fn cuts(&self) -> Vec<(String, u32)> {
        self.nodes.iter().map(|powered| (powered.node.name.clone(), powered.cuts)).collect()
    }

    /// The end of each log.
    pub(super) fn logs(&self) -> String {
        let tails: Vec<String> = self.nodes.iter().map(|powered| powered.process.log_tail()).collect();
        tails.join("\n")
    }
}

/// All drives lose power before the first process is killed: a node may see it, nobody may profit from it.
async fn fail(victims: &mut [Powered], random: &mut Random) -> Result<Cut, LabError> {
    let mut lost = Cut::default();
    for (number, powered) in victims.iter_mut().enumerate() {
        let disk = powered.volume.disk();
        lost += if number == 0 && random.below(2) == 0 {
            disk.cut_at_write(random).await?
        } else {
            disk.cut(random)?
        };
        powered.cuts += 1;
    }
    for powered in victims {
        powered.process.kill();
    }
    Ok(lost)
}

fn start(victims: &mut [Powered], lab: &Lab, program: &std::path::Path) -> Result<(), LabError> {
    for powered in victims {
        powered.volume.recover()?;
        powered.process = lab.start(&powered.node, program)?;
    }
    Ok(())
}
