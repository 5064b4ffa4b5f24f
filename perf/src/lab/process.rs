//! Child processes of a lab: started with their log, stopped with a deadline, never outliving the lab.
//!
//! A child is started through this program's own `child` command, which asks the kernel for SIGKILL at
//! the parent's death (prctl(2) `PR_SET_PDEATHSIG`) and then becomes the program. The kernel means the
//! parent *thread*, so only the main thread may start children.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use super::{Node, get};
use crate::error::LabError;

pub(super) const READY_SECONDS_MAX: u64 = 30;
const POLL: Duration = Duration::from_millis(10);
const TAIL_BYTES: usize = 4096;
const TAIL_LINES: usize = 15;

/// A running child.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its name in the lab.
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; both outputs are appended to `log`. Call it on the main thread.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        arguments: &[&OsStr],
        log: &Path,
    ) -> Result<Self, LabError> {
        let output = open_log(log)?;
        let errors = output.try_clone().map_err(LabError::file(log))?;
        Self::spawn(name, program, arguments, log, (Stdio::null(), Stdio::from(output), Stdio::from(errors)))
    }

    /// As [`Self::start`], but standard input is `input`, less than a pipe holds, and standard output a pipe.
    pub(crate) fn start_piped(
        name: &str,
        program: &Path,
        arguments: &[&OsStr],
        log: &Path,
        input: &[u8],
    ) -> Result<(Self, ChildStdout), LabError> {
        let errors = Stdio::from(open_log(log)?);
        let pipes = (Stdio::piped(), Stdio::piped(), errors);
        let mut process = Self::spawn(name, program, arguments, log, pipes)?;
        // A program that does not read has ended, which its log explains.
        drop(process.child.stdin.take().expect("standard input is piped").write_all(input));
        let output = process.child.stdout.take().expect("standard output is piped");
        Ok((process, output))
    }

    fn spawn(
        name: &str,
        program: &Path,
        arguments: &[&OsStr],
        log: &Path,
        (input, output, errors): (Stdio, Stdio, Stdio),
    ) -> Result<Self, LabError> {
        let started = |source| LabError::Start { program: program.to_owned(), source };
        let child = Command::new(std::env::current_exe().map_err(started)?)
            .arg("child")
            .arg(std::process::id().to_string())
            .arg(program)
            .args(arguments)
            .stdin(input)
            .stdout(output)
            .stderr(errors)
            // A group of its own: Ctrl-C reaches the lab alone, which then drains its children.
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::Start { program: program.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), LabError> {
        let Ok(Some(status)) = self.child.try_wait() else {
            return Ok(());
        };
        Err(LabError::Ended {
            name: self.name.clone(),
            status: status.to_string(),
            log: self.log.clone(),
            tail: tail(&self.log),
        })
    }

    /// The error of one that runs and does not serve.
    pub(crate) fn not_ready(&self) -> LabError {
        LabError::NotReady {
            name: self.name.clone(),
            seconds: READY_SECONDS_MAX,
            log: self.log.clone(),
            tail: tail(&self.log),
        }
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        format!("--- the end of {}\n{}", self.log.display(), tail(&self.log))
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        // Errors mean that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Sends a signal; a process that has ended does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Waits for the end; after `deadline` SIGKILL, and `None`.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            tokio::time::sleep(POLL).await;
        }
        self.kill();
        None
    }

    /// SIGTERM, then SIGKILL after `deadline`; how it ended, or `None` if it had to be killed.
    pub(crate) async fn stop(&mut self, deadline: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait(deadline).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `/readyz` of the node answers 200.
pub(crate) async fn wait_ready(node: &Node, process: &mut Process) -> Result<(), LabError> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(READY_SECONDS_MAX) {
        process.check()?;
        if matches!(get(node.admin, "/readyz").await, Ok((200, _))) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(process.not_ready())
}

/// The `child` command: ties this process to the life of `parent` and becomes `program`.
pub(crate) fn become_child(parent: u32, program: &OsStr, arguments: &[OsString]) -> io::Error {
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        return error.into();
    }
    // The parent may have died before the call above; then nobody would send the signal.
    if getppid() != Pid::from_raw(parent.cast_signed()) {
        return io::Error::other("the lab has ended");
    }
    Command::new(program).args(arguments).exec()
}

fn open_log(log: &Path) -> Result<File, LabError> {
    OpenOptions::new().create(true).append(true).open(log).map_err(LabError::file(log))
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL_BYTES)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
