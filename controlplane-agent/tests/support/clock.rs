//! A wall clock that a file sets (libfaketime), for the programs that are started with it; the steady clock is the kernel's.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// One clock.
pub struct WallClock {
    file: PathBuf,
    /// Processes that had it.
    processes: Mutex<Vec<i32>>,
}

impl WallClock {
    /// The true time, until it is set.
    pub fn new(file: PathBuf) -> Self {
        let clock = Self { file, processes: Mutex::default() };
        clock.set(0);
        clock
    }

    /// Sets it to the true time and so many seconds.
    pub fn set(&self, offset_s: i64) {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset_s:+}")).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    /// Gives it to a program that is to be started.
    pub fn give(&self, command: &mut Command) {
        command.envs(self.environment());
    }

    /// What gives it to any program.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        assert!(Path::new(&library).exists(), "{library} is missing: install the package libfaketime");
        let flags = ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"];
        let flags = flags.map(|name| (name.into(), "1".into()));
        let clock =
            [("LD_PRELOAD".into(), library.into()), ("FAKETIME_TIMESTAMP_FILE".into(), (&self.file).into())];
        clock.into_iter().chain(flags).collect()
    }

    /// A process that was started with it.
    pub fn note(&self, process: i32) {
        self.processes.lock().unwrap().push(process);
    }
}

impl Drop for WallClock {
    /// A process that was killed leaves the library's shared memory behind.
    fn drop(&mut self) {
        for process in self.processes.lock().unwrap().drain(..) {
            for name in ["faketime_shm", "sem.faketime_sem"] {
                let _ = fs::remove_file(format!("/dev/shm/{name}_{process}"));
            }
        }
    }
}
