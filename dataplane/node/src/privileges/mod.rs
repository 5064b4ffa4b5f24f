//! What the node gives up once it does not need it any more: capabilities before there is a second thread,
//! system calls when everything has started. What cannot be given up is said, and the node goes on.

mod capabilities;
mod seccomp;

use std::fmt;
use std::sync::OnceLock;

pub use capabilities::overrides_modes;

use crate::config::{NodeSettings, Seccomp};

/// What is given up; its `Display` is a line for the log and `/status`.
#[derive(Debug)]
pub struct Privileges {
    has_capabilities: bool,
    seccomp: Seccomp,
    /// System calls on the list, once it is in force.
    calls: OnceLock<usize>,
}

impl Privileges {
    /// Gives up capabilities. For the main thread, before it starts another.
    pub fn give_up(settings: &NodeSettings) -> Self {
        let mut has_capabilities = true;
        if settings.drop_capabilities {
            match capabilities::give_up() {
                Ok(()) => has_capabilities = false,
                Err(error) => tracing::warn!("the node keeps its capabilities: {error}"),
            }
        }
        Self { has_capabilities, seccomp: settings.seccomp, calls: OnceLock::new() }
    }

    /// Whether capabilities, if there were any, are still there.
    pub fn has_capabilities(&self) -> bool {
        self.has_capabilities
    }

    /// Puts the list of system calls in force for all threads. For when everything has started.
    pub fn confine(&self) {
        if self.seccomp != Seccomp::Off {
            match seccomp::confine(self.seccomp) {
                Ok(calls) => drop(self.calls.set(calls)),
                Err(error) => tracing::warn!("no system call is refused: {error}"),
            }
        }
        tracing::info!("{self}");
    }
}

impl fmt::Display for Privileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_capabilities {
            "privileges: capabilities as started with"
        } else {
            "privileges: no capabilities"
        })?;
        let calls = self.calls.get();
        // The kernel takes no list from a process that could still gain privileges.
        if !self.has_capabilities || calls.is_some() {
            f.write_str(", no_new_privs")?;
        }
        match (self.seccomp, calls) {
            (Seccomp::Enforce, Some(calls)) => write!(f, ", seccomp enforces {calls} system calls"),
            (Seccomp::Log, Some(calls)) => write!(f, ", seccomp logs all but {calls} system calls"),
            (_, None) | (Seccomp::Off, _) => f.write_str(", seccomp is off"),
        }
    }
}
