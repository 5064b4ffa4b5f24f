//! The file of arrivals: `event-id TAB sha256-hex-of-body TAB target TAB unix-us`, a line for each 200, in that order.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::LabError;
use crate::signature::hex;

/// Lines are collected; what failed to be written is said at the end, once.
#[derive(Debug)]
pub(super) struct Recorder {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Makes the file anew.
    pub(super) fn create(path: &Path) -> Result<Self, LabError> {
        let file = BufWriter::new(File::create(path).map_err(LabError::file(path))?);
        Ok(Self { path: path.to_owned(), inner: Mutex::new(Inner { file, failed: None }) })
    }

    /// Notes an arrival, before it is answered.
    pub(super) fn arrived(&self, event_id: &str, body_sha256: &[u8], target: &str) {
        let body = hex(body_sha256);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.failed.is_some() {
            return;
        }
        let unix_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        if let Err(error) = writeln!(inner.file, "{event_id}\t{body}\t{target}\t{unix_us}") {
            inner.failed = Some(error);
        }
    }

    /// Writes what is left; an error if any line is missing.
    pub(super) fn finish(&self) -> Result<(), LabError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = inner.failed.take();
        failed.map_or_else(|| inner.file.flush(), Err).map_err(LabError::file(&self.path))
    }
}
