//! What a lab takes of the machine: a directory, wiped and locked, and ports of 127.0.0.1.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::LabError;
use crate::random::system_bytes;

/// Below the ephemeral range, so that no outgoing connection takes the port of a node that restarts.
const PORT_FIRST: u16 = 20_000;
const PORT_LAST: u16 = 32_000;
const MARKER: &str = ".zen-lab";

/// An empty, locked lab directory.
pub(crate) fn claim(directory: &Path) -> Result<(PathBuf, Flock<File>), LabError> {
    let is_new = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
    if !is_new && !directory.join(MARKER).exists() {
        return Err(LabError::NotOurs(directory.to_owned()));
    }
    fs::create_dir_all(directory).map_err(LabError::file(directory))?;
    let directory = directory.canonicalize().map_err(LabError::file(directory))?;
    let marker = directory.join(MARKER);
    let file = File::create(&marker).map_err(LabError::file(&marker))?;
    let lock =
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| LabError::Busy(directory.clone()))?;
    for entry in fs::read_dir(&directory).map_err(LabError::file(&directory))? {
        let path = entry.map_err(LabError::file(&directory))?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path).map_err(LabError::file(&path))?;
        } else if path != marker {
            fs::remove_file(&path).map_err(LabError::file(&path))?;
        }
    }
    Ok((directory, lock))
}

/// Ports that are free now, each given once.
///
/// Labs that run at the same time look at different places first: a port is free again until its node starts.
#[derive(Debug)]
pub(super) struct Ports {
    held: Vec<TcpListener>,
    first: u16,
}

impl Default for Ports {
    fn default() -> Self {
        let offset = u16::from_le_bytes(system_bytes()) % (PORT_LAST - PORT_FIRST);
        Self { held: Vec::new(), first: PORT_FIRST + offset }
    }
}

impl Ports {
    /// `preferred` if it is free, else the next free one of the lab's range.
    pub(super) fn claim(&mut self, preferred: Option<u16>) -> Result<SocketAddr, LabError> {
        for port in preferred.into_iter().chain(self.first..=PORT_LAST).chain(PORT_FIRST..self.first) {
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            if let Ok(listener) = TcpListener::bind(address) {
                self.held.push(listener);
                return Ok(address);
            }
        }
        Err(LabError::Ports { first: PORT_FIRST, last: PORT_LAST })
    }
}
