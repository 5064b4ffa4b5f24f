//! Ctrl-C and SIGTERM as one thing to wait for.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::LabError;

/// Listens from its making on, so that no signal is missed while a lab starts.
#[derive(Debug)]
pub(crate) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    /// Takes both signals over.
    pub(crate) fn new() -> Result<Self, LabError> {
        let listen = |kind| signal(kind).map_err(LabError::socket("cannot listen for signals"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Returns at the next of them.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
