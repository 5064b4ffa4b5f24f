//! The log while the server runs: checkpoints as it grows, and entries to the file of whoever collects them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use zen_audit::LogKey;

use super::checkpoint::{Due, Signer};
use super::restart::{self, AuditSettings};
use super::sink::Sink;
use crate::database::owner;
use crate::directory::Directory;
use crate::{Control, ControlError};

/// How long a new entry waits at most for its checkpoint.
pub(crate) const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// What a server has of the log.
#[derive(Debug)]
pub(crate) struct Keeper {
    signer: Signer,
    sink: Option<Mutex<Sink>>,
}

impl Keeper {
    /// Refuses a log that is not the one which was signed for last.
    pub(crate) fn open(
        directory: &Directory,
        database: &Connection,
        settings: &AuditSettings,
    ) -> Result<Self, ControlError> {
        let trust_domain = owner(database)?.trust_domain;
        let signer = Signer::open(directory, &trust_domain, settings.checkpoint_file.as_deref())?;
        restart::check(database, &signer)?;
        let sink = settings.export_file.clone().map(Sink::open).transpose()?.map(Mutex::new);
        Ok(Self { signer, sink })
    }
}

impl Control {
    /// What the log's checkpoints are verified with.
    pub(crate) fn audit_key(&self) -> &LogKey {
        self.keeper.signer.public()
    }

    /// Signs what is new, and hands it on.
    pub(crate) fn keep_audit(&self, due: Due, now_ms: u64) -> Result<(), ControlError> {
        self.keeper.signer.sign(&mut self.database(), due, now_ms)?;
        match &self.keeper.sink {
            Some(sink) => sink.lock().unwrap_or_else(PoisonError::into_inner).add(&self.reader()),
            None => Ok(()),
        }
    }
}
