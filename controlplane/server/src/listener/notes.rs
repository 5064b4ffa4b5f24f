//! What agents leave behind, reports and first uses of certificates: as many as there are go to the disk together.
//!
//! Each is on the disk before it is answered. A write of its own for each would be a sync of the disk for each.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{Server, WORK_TIMEOUT};
use crate::Refusal;
use crate::control::Note;

/// Most that wait to be written.
pub(crate) const NOTES_MAX: usize = 4096;
/// Most that one transaction holds.
const NOTES_PER_COMMIT_MAX: usize = 512;

/// The way to whoever writes.
pub(super) struct Notes(mpsc::Sender<Waiting>);

/// One that is to be written, and who waits for it.
pub(super) struct Waiting {
    note: Note,
    written: oneshot::Sender<Result<(), Refusal>>,
}

impl Notes {
    /// The way, and what [`write_down`] reads.
    pub(super) fn new() -> (Self, mpsc::Receiver<Waiting>) {
        let (sender, receiver) = mpsc::channel(NOTES_MAX);
        (Self(sender), receiver)
    }

    /// Comes back when it is on the disk.
    pub(super) async fn keep(&self, note: Note) -> Result<(), Refusal> {
        let (written, is_written) = oneshot::channel();
        match tokio::time::timeout(WORK_TIMEOUT, self.0.send(Waiting { note, written })).await {
            Ok(Ok(())) => is_written.await.unwrap_or(Err(Refusal::Ending)),
            Ok(Err(_)) => Err(Refusal::Ending),
            Err(_) => Err(Refusal::Busy),
        }
    }
}

/// Writes as long as the listener runs.
pub(super) async fn write_down(server: Arc<Server>, mut receiver: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    while receiver.recv_many(&mut waiting, NOTES_PER_COMMIT_MAX).await > 0 {
        let (server, batch) = (server.clone(), std::mem::take(&mut waiting));
        let step = move || {
            let (notes, written): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|one| (one.note, one.written)).unzip();
            let mut kept = server.control.keep(&notes);
            for one in written {
                // The reason goes to one of them, and so into the log once; the others try again.
                let others = if kept.is_ok() { Ok(()) } else { Err(Refusal::Busy) };
                let _ = one.send(std::mem::replace(&mut kept, others));
            }
        };
        if tokio::task::spawn_blocking(step).await.is_err() {
            return;
        }
    }
}
