//! Who takes part: the mesh on either reactor, and its peers.

use std::path::Path;

use clap::ValueEnum as _;

use crate::error::LabError;
use crate::lab::Io;
use crate::peers::Peer;

/// A system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// The nodes on `io_uring`.
    Zen,
    /// The nodes on epoll.
    ZenEpoll,
    /// Somebody else.
    Peer(Peer),
}

impl System {
    /// All, the mesh first.
    pub(super) fn all() -> Vec<Self> {
        let peers = Peer::value_variants().iter().map(|&peer| Self::Peer(peer));
        [Self::Zen, Self::ZenEpoll].into_iter().chain(peers).collect()
    }

    /// As files and the command line name it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Zen => "zen".to_owned(),
            Self::ZenEpoll => "zen-epoll".to_owned(),
            Self::Peer(peer) => {
                let value = peer.to_possible_value().expect("every peer has a name");
                value.get_name().to_owned()
            }
        }
    }

    /// By its name; an error that lists all names.
    pub(super) fn parse(name: &str) -> Result<Self, LabError> {
        let all = Self::all();
        if let Some(found) = all.iter().find(|system| system.name() == name) {
            return Ok(*found);
        }
        let known = all.iter().map(|system| system.name()).collect::<Vec<_>>().join(", ");
        Err(LabError::Unknown { what: "system", name: name.to_owned(), known })
    }

    /// As tables and plots show it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Zen => "zen, io_uring",
            Self::ZenEpoll => "zen, epoll",
            Self::Peer(peer) => peer.label(),
        }
    }

    /// What it does not do of the mesh's work.
    pub(super) fn lacks(self) -> Vec<String> {
        match self {
            Self::Zen | Self::ZenEpoll => Vec::new(),
            Self::Peer(peer) => peer.lacks().iter().map(|&word| word.to_owned()).collect(),
        }
    }

    /// What drives its nodes, if it is the mesh.
    pub(super) fn io(self) -> Option<Io> {
        match self {
            Self::Zen => Some(Io::Uring),
            Self::ZenEpoll => Some(Io::Epoll),
            Self::Peer(_) => None,
        }
    }

    /// Its version; an error that says what to install if it cannot run here.
    pub(super) fn version(self, node: &Path) -> Result<Option<String>, LabError> {
        match self {
            Self::Zen | Self::ZenEpoll if node.exists() => Ok(None),
            Self::Zen | Self::ZenEpoll => {
                let source = std::io::ErrorKind::NotFound.into();
                Err(LabError::Start { program: node.to_owned(), source })
            }
            Self::Peer(peer) => peer.check_installed().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_found_by_its_name() {
        for system in System::all() {
            assert_eq!(System::parse(&system.name()).unwrap(), system);
            assert_eq!(system.io().is_some(), system.lacks().is_empty(), "{}", system.name());
        }
        let error = System::parse("apache").unwrap_err().to_string();
        assert!(
            error.starts_with("no system is called apache; there are: zen, zen-epoll, haproxy"),
            "{error}"
        );
    }
}
