//! Whole requests that wait for their signatures: those of a tick are computed side by side.
//!
//! Each stays where it is, in its connection's buffer; only who waits is kept here, in the order in which they became
//! whole. When as many wait as may, they are verified at once, before the tick's end.

use zen_core::crypto::Tag;
use zen_hmac::Job;
use zen_uring::SocketId;
use zeroize::Zeroize;

use super::Ingester;

/// Requests that are verified together, at most: what a batch looks at to fill its lanes.
const UNVERIFIED_REQUESTS_MAX: usize = 64;
/// Their bodies together; the last one may go beyond. They are still in a processor's cache then. Bytes.
const UNVERIFIED_BYTES_MAX: usize = 512 * 1024;
/// A longer body is hashed as it arrives, bytes.
pub const HELD_BODY_BYTES_MAX: usize = 64 * 1024;

/// Who waits to be verified.
#[derive(Debug, Default)]
pub struct Unverified {
    sockets: Vec<SocketId>,
    body_bytes: usize,
    /// Memory for the next ones, while these are worked on.
    spare: Vec<SocketId>,
    tags: Vec<Tag>,
}

/// Those who were waiting, and what their secrets give.
#[derive(Debug)]
pub struct Batch {
    /// In the order in which their requests became whole.
    pub sockets: Vec<SocketId>,
    tags: Vec<Tag>,
}

impl Batch {
    /// Computes the tags of all jobs side by side; how many there were.
    pub fn compute<'a>(&mut self, jobs: impl Iterator<Item = Job<'a>>) -> &[Tag] {
        zen_hmac::sign_jobs(jobs, &mut self.tags);
        &self.tags
    }
}

impl Ingester {
    /// A request is whole, and its connection waits for [`Ingester::take_unverified`].
    pub fn handle_whole(&mut self, socket: SocketId, body_bytes: usize) {
        self.unverified.sockets.push(socket);
        self.unverified.body_bytes += body_bytes;
    }

    /// Whether somebody waits to be verified.
    pub fn has_unverified(&self) -> bool {
        !self.unverified.sockets.is_empty()
    }

    /// Whether nobody else may wait.
    pub fn is_full_of_unverified(&self) -> bool {
        let Unverified { sockets, body_bytes, .. } = &self.unverified;
        sockets.len() >= UNVERIFIED_REQUESTS_MAX || *body_bytes >= UNVERIFIED_BYTES_MAX
    }

    /// All who wait, if there are any; to be given back.
    pub fn take_unverified(&mut self) -> Option<Batch> {
        if !self.has_unverified() {
            return None;
        }
        let waiting = &mut self.unverified;
        waiting.body_bytes = 0;
        let sockets = std::mem::replace(&mut waiting.sockets, std::mem::take(&mut waiting.spare));
        Some(Batch { sockets, tags: std::mem::take(&mut waiting.tags) })
    }

    /// Takes a batch back that was worked off: its memory is used again, what would prove a forgery is wiped.
    pub fn give_unverified(&mut self, mut batch: Batch) {
        batch.sockets.clear();
        batch.tags.iter_mut().for_each(Zeroize::zeroize);
        batch.tags.clear();
        self.unverified.spare = batch.sockets;
        self.unverified.tags = batch.tags;
    }
}
