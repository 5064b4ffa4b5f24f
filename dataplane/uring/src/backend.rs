//! Which of the two backends a process uses: decided once, at its start, and the same for all workers.

use std::{fmt, str::FromStr};

use crate::{
    error::SetupError,
    ring::{Probe, probe},
};

/// What the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// `io_uring`, or epoll where `io_uring` is blocked.
    #[default]
    Auto,
    /// `io_uring` or nothing.
    Uring,
    /// epoll, also where `io_uring` could be had.
    Epoll,
}

/// A word that is none of `auto`, `uring` and `epoll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be auto, uring or epoll")]
pub struct UnknownIo;

impl FromStr for Io {
    type Err = UnknownIo;

    fn from_str(word: &str) -> Result<Self, UnknownIo> {
        match word {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "epoll" => Ok(Self::Epoll),
            _ => Err(UnknownIo),
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What a reactor does its work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `io_uring(7)`.
    Uring,
    /// `epoll(7)`, and threads for files.
    Epoll,
}

/// A backend, and why it is that one. Its `Display` is one line for the log.
#[derive(Debug)]
pub struct Chosen {
    /// For [`Reactor::new`](crate::Reactor::new).
    pub backend: Backend,
    /// What the kernel offers, if `io_uring` was chosen.
    pub probe: Option<Probe>,
    /// Why `io_uring` was not, with the remedy, if it was wanted.
    pub reason: Option<SetupError>,
}

impl Backend {
    /// Both, for tests that must hold on each.
    pub const ALL: [Self; 2] = [Self::Uring, Self::Epoll];

    /// Asks this kernel. Blocked by version, configuration or policy, `io_uring` gives way to epoll if
    /// `io` is `Auto`; short of memory or descriptors it never does, since those can be raised.
    pub fn choose(io: Io) -> Result<Chosen, SetupError> {
        let epoll = |reason| Chosen { backend: Self::Epoll, probe: None, reason };
        if io == Io::Epoll {
            return Ok(epoll(None));
        }
        match probe() {
            Ok(probe) => Ok(Chosen { backend: Self::Uring, probe: Some(probe), reason: None }),
            Err(error) if io == Io::Auto && error.is_blocked() => Ok(epoll(Some(error))),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.probe {
            Some(probe) => probe.fmt(f),
            None => self.backend.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_and_written_alike() {
        for io in [Io::Auto, Io::Uring, Io::Epoll] {
            assert_eq!(io.to_string().parse(), Ok(io));
        }
        for word in ["", "Auto", "io_uring", "epoll "] {
            assert_eq!(word.parse::<Io>(), Err(UnknownIo), "{word:?}");
        }
    }

    #[test]
    fn what_is_asked_for_is_chosen_where_nothing_is_blocked() {
        for (io, backend) in
            [(Io::Auto, Backend::Uring), (Io::Uring, Backend::Uring), (Io::Epoll, Backend::Epoll)]
        {
            let chosen = Backend::choose(io).unwrap();
            assert_eq!(chosen.backend, backend);
            assert!(chosen.reason.is_none());
            assert!(chosen.to_string().starts_with(&backend.to_string()), "{chosen}");
        }
    }
}
