//! Receipts: a line for each time that somebody asked, in an append-only file with a bound. Who, what, verdict; never
//! the value.
//!
//! The line is written before the answer: where it cannot be, there is no answer. It is in the page cache by then, not
//! yet on the drive. Refusals beyond some a second are counted into the next line instead, so that nobody can push
//! earlier lines out by asking.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

const MODE: u32 = 0o600;
/// Lines for refusals, per second.
const REFUSALS_PER_S_MAX: u32 = 50;

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

/// What is written down.
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

/// Where receipts go.
pub trait Receipts: Send + Sync {
    /// Keeps a receipt; an error means that it was not kept, and nothing may be handed out.
    fn record(&self, receipt: &Receipt) -> io::Result<()>;
}

/// A file, and the one before it: what is older is given up.
#[derive(Debug)]
pub struct ReceiptFile {
    path: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    bytes: u64,
    second: u64,
    refusals: u32,
    not_written: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    receipt: &'a Receipt,
    /// Refusals before it that have no line.
    #[serde(skip_serializing_if = "is_zero")]
    more_refusals: u64,
}

impl ReceiptFile {
    /// Goes on writing a file; with the one before it, it has at most `bytes_max`.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        let state = State { file, bytes, second: 0, refusals: 0, not_written: 0 };
        Ok(Self { path: path.to_owned(), bytes_max, state: Mutex::new(state) })
    }

    fn rotate(&self, state: &mut State) -> io::Result<()> {
        let mut before = self.path.clone().into_os_string();
        before.push(".1");
        fs::rename(&self.path, before)?;
        state.file = append(&self.path)?;
        state.bytes = 0;
        Ok(())
    }
}

impl Receipts for ReceiptFile {
    fn record(&self, receipt: &Receipt) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if receipt.verdict != Verdict::Opened && !state.takes_refusal(receipt.time_ms / 1000) {
            return Ok(());
        }
        let line = Line { receipt, more_refusals: state.not_written };
        let mut line = serde_json::to_vec(&line).map_err(io::Error::other)?;
        line.push(b'\n');
        if state.bytes + line.len() as u64 > self.bytes_max / 2 {
            self.rotate(&mut state)?;
        }
        state.file.write_all(&line)?;
        state.bytes += line.len() as u64;
        state.not_written = 0;
        Ok(())
    }
}

impl State {
    fn takes_refusal(&mut self, second: u64) -> bool {
        if second != self.second {
            (self.second, self.refusals) = (second, 0);
        }
        self.refusals += 1;
        let takes = self.refusals <= REFUSALS_PER_S_MAX;
        self.not_written += u64::from(!takes);
        takes
    }
}

fn append(path: &Path) -> io::Result<File> {
    let no_link = nix::libc::O_NOFOLLOW;
    OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(no_link).open(path)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(verdict: Verdict, time_ms: u64) -> Receipt {
        Receipt {
            time_ms,
            secret: Some("edge/webhooks/github".to_owned()),
            verdict,
            reason: None,
            pid: 1,
            uid: 2,
            gid: 3,
            executable: None,
            unit: None,
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn the_file_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipts.jsonl");
        let file = ReceiptFile::open(&path, 4096).unwrap();
        for time_ms in 0..100 {
            file.record(&receipt(Verdict::Opened, time_ms)).unwrap();
        }
        let sizes = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        assert!(sizes.sum::<u64>() <= 4096);
        assert_eq!(lines(&path).last().unwrap()["time_ms"], 99);
        drop(file);
        ReceiptFile::open(&path, 4096).unwrap().record(&receipt(Verdict::Opened, 100)).unwrap();
        assert_eq!(lines(&path).last().unwrap()["time_ms"], 100, "a restart goes on");
    }

    #[test]
    fn refusals_push_nothing_out_and_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipts.jsonl");
        let file = ReceiptFile::open(&path, 1 << 20).unwrap();
        for _ in 0..REFUSALS_PER_S_MAX + 7 {
            file.record(&receipt(Verdict::Denied, 1000)).unwrap();
        }
        assert_eq!(lines(&path).len(), REFUSALS_PER_S_MAX as usize);
        file.record(&receipt(Verdict::Opened, 1500)).unwrap();
        file.record(&receipt(Verdict::Denied, 2000)).unwrap();
        let lines = lines(&path);
        assert_eq!(lines[lines.len() - 2]["more_refusals"], 7);
        assert_eq!(lines[lines.len() - 1]["verdict"], "denied");
        assert!(lines[lines.len() - 1].get("more_refusals").is_none());
    }
}
