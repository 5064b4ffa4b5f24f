//! Receipts: a line for each time that somebody asked, and for each act of a command or signal. Who, what, verdict; never
//! the value. Lines are leaves of segments, and each segment gets a signed digest that continues the one before.
//!
//! The line is written before the answer, and before the act: where it cannot be, there is neither. It is in the page
//! cache by then, and on the drive within a second, or before the act of a command. Refusals beyond some a second are
//! counted into the next line instead, so that nobody can push earlier lines out by asking.

mod log;
mod place;
mod verify;

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use zen_audit::{DigestError, KeyError};

pub use self::log::{Limits, ReceiptLog};
pub use self::place::may_write;
pub use self::verify::verify;
use crate::files::{KeyFileError, PathFault};

/// How an opening ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The value was handed out.
    Opened,
    /// Policy does not grant it.
    Denied,
    /// Granted, and not there.
    Missing,
    /// Granted, and it could not be opened, or not be trusted.
    Sealed,
    /// A request that breaks the protocol.
    Malformed,
    /// Written by another process than the one that connected.
    Stolen,
    /// The caller became another program between its connection and its request, or ended.
    Changed,
    /// No place was left.
    Busy,
}

/// What is written down of somebody who asked.
#[derive(Clone, Debug, Serialize)]
pub struct Receipt {
    /// When, Unix ms.
    pub time_ms: u64,
    /// The secret's name, if it was said.
    pub secret: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, where there is a reason to give.
    pub reason: Option<String>,
    /// The caller's process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// What it runs; bytes of its path that are no text are replaced, so that there is a line in any case.
    pub executable: Option<String>,
    /// Its systemd unit.
    pub unit: Option<String>,
}

/// How far an act is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// It is about to be done.
    Begun,
    /// It was done.
    Done,
    /// It came to nothing, or not to all of it.
    Failed,
}

/// What is written down of a command, a signal, a start or an end.
#[derive(Clone, Debug, Serialize)]
pub struct Act {
    /// When, Unix ms.
    pub time_ms: u64,
    /// Which, as the command line names it.
    pub act: &'static str,
    /// How far it is.
    pub stage: Stage,
    /// Of what.
    pub target: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// The process that does it, or sent the signal.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Who logged in, as the kernel's audit knows it, whatever user they became since.
    pub login_uid: Option<u32>,
}

impl Act {
    /// An act of this process, now.
    pub fn own(act: &'static str, stage: Stage, target: Option<String>) -> Self {
        let login = std::fs::read_to_string("/proc/self/loginuid").ok();
        let login_uid = login.and_then(|uid| uid.trim_end().parse().ok()).filter(|uid| *uid != u32::MAX);
        let pid = std::process::id().cast_signed();
        let uid = nix::unistd::getuid().as_raw();
        Self { time_ms: now_ms(), act, stage, target, reason: None, pid, uid, login_uid }
    }
}

/// Where receipts go.
pub trait Receipts: Send + Sync {
    /// Keeps a receipt; an error means that it was not kept, and nothing may be handed out.
    fn record(&self, receipt: &Receipt) -> Result<(), ReceiptsError>;
    /// Keeps an act; an error means that it was not kept, and must not be done.
    fn act(&self, act: &Act) -> Result<(), ReceiptsError>;
}

/// Why receipts cannot be kept. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptsError {
    /// The file system.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could change them.
    #[error("{0}")]
    Path(#[from] PathFault),
    /// The key of digests.
    #[error("{0}")]
    KeyFile(#[from] KeyFileError),
    /// It is there and is none.
    #[error("{}: holds no key of digests; put it back, or move the whole directory away to begin anew", .0.display())]
    Key(PathBuf),
    /// Its public half.
    #[error("{}: {source}; put it back from where the key is known", path.display())]
    Public {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// There are receipts, and no key.
    #[error("{}: there are receipts and no key of digests: somebody took it; put it back, or move the directory away", .0.display())]
    KeyTaken(PathBuf),
    /// The newest digest.
    #[error("{}: {source}: somebody changed it; see zen-lockd receipts", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: DigestError,
    },
    /// A segment behind one without a digest.
    #[error(
        "segment {0} lies behind one that has no digest: somebody took digests away; see zen-lockd receipts"
    )]
    Undigested(u64),
    /// The segment became shorter.
    #[error(
        "segment {0} was cut while it was written; move the directory away to begin anew, and keep it as evidence"
    )]
    Cut(u64),
    /// Another process writes, and does not come to an end.
    #[error("{}: another process holds the receipts", .0.display())]
    Held(PathBuf),
}

/// The time now, Unix ms.
pub fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}
