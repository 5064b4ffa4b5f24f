//! What a lab takes of the machine: a directory, wiped and locked, and ports of 127.0.0.1.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::LabError;

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

/// An address that no other process of a lab or a test has, now or after a restart: with the port `preferred` if it is
/// free, else with one of this process's blocks.
pub(crate) fn claim_port(preferred: Option<u16>) -> Result<SocketAddr, LabError> {
    let preferred = preferred.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let free = preferred.filter(|address| TcpListener::bind(address).is_ok());
    free.or_else(zen_ports::claim_address).ok_or(LabError::Ports)
}
