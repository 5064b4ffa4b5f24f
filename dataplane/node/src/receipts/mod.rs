//! Receipts: a line for each outcome of a delivery, in an append-only file with a bound; the one seam for evidence.
//!
//! A worker puts an outcome into a bounded queue and goes on; a thread of its own writes and syncs. Where there is no
//! room, or the disk does not take it, a receipt is dropped and counted: delivery comes first, and the journal
//! stays the truth. A receipt holds names, numbers, times and a keyed hash of the body, never the body.

mod file;
mod line;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
pub use file::scan;
use zen_core::event::EVENT_BYTES_MAX;
use zen_core::id::EventId;
use zen_core::record::OutcomeRecord;
use zen_hmac::PreparedKey;

use crate::mesh::EventBytes;
use crate::metrics::WorkerMetrics;

/// Receipts that wait for the disk, over all workers.
const RECEIPTS_MAX: usize = 8192;
/// Bytes of events that they keep in memory for their hash; over it a receipt has none.
const HELD_BYTES_MAX: usize = 4 << 20;
const STACK_BYTES: usize = 256 * 1024;
/// What they may use of memory, bytes.
pub const RECEIPTS_BYTES: usize =
    RECEIPTS_MAX * (size_of::<Receipt>() + 16) + HELD_BYTES_MAX + EVENT_BYTES_MAX + STACK_BYTES;
/// How often the queue is written.
const EVERY: Duration = Duration::from_millis(100);
/// The directory in the data directory.
const DIRECTORY: &str = "receipts";

/// An outcome of one delivery.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// When, Unix ms.
    pub time_ms: u64,
    /// The event, unless its record is damaged.
    pub event_id: Option<EventId>,
    /// For whom.
    pub target: Arc<str>,
    /// How it ended.
    pub outcome: OutcomeRecord,
    /// The event, if it is in memory still: for its endpoint and the hash of its body.
    pub event: Option<EventBytes>,
}

/// Where all outcomes go.
pub struct Receipts {
    directory: PathBuf,
    bytes_max: u64,
    /// Of the hashes, where it is configured.
    key: Option<PreparedKey>,
    queue: ArrayQueue<Receipt>,
    held_bytes: AtomicUsize,
    closing: AtomicBool,
}

/// The thread that writes.
pub struct Writer {
    receipts: Arc<Receipts>,
    thread: JoinHandle<()>,
    /// What it counts.
    pub metrics: Arc<WorkerMetrics>,
}

/// Where the receipts of a data directory are.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY)
}

impl Receipts {
    /// Into the data directory, `bytes_max` in all; without a key one is made there.
    pub fn new(data_dir: &Path, bytes_max: u64, key: Option<PreparedKey>) -> Self {
        Self {
            directory: directory(data_dir),
            bytes_max,
            key,
            queue: ArrayQueue::new(RECEIPTS_MAX),
            held_bytes: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        }
    }

    /// Takes an outcome, or drops and counts it.
    pub fn handle_outcome(&self, mut receipt: Receipt, metrics: &WorkerMetrics) {
        let bytes = held(&receipt);
        if self.held_bytes.fetch_add(bytes, Ordering::AcqRel) > HELD_BYTES_MAX {
            self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
            receipt.event = None;
        }
        if let Err(receipt) = self.queue.push(receipt) {
            self.held_bytes.fetch_sub(held(&receipt), Ordering::AcqRel);
            metrics.receipts_dropped.add("full");
        }
    }

    fn poll_receipt(&self) -> Option<Receipt> {
        let receipt = self.queue.pop()?;
        self.held_bytes.fetch_sub(held(&receipt), Ordering::AcqRel);
        Some(receipt)
    }
}

impl Writer {
    /// Opens the file, makes the key of the hashes if none is configured and none is there, and starts to write.
    pub fn start(receipts: Arc<Receipts>) -> io::Result<Self> {
        let metrics = Arc::new(WorkerMetrics::default());
        std::fs::create_dir_all(&receipts.directory)?;
        let key = match &receipts.key {
            Some(key) => key.clone(),
            None => file::load_key(&receipts.directory)?,
        };
        let mut file = file::Receiver::open(&receipts.directory, receipts.bytes_max)?;
        let (queue, counts) = (Arc::clone(&receipts), Arc::clone(&metrics));
        let run = move || {
            while !queue.closing.load(Ordering::Acquire) {
                std::thread::sleep(EVERY);
                write_all(&queue, &key, &mut file, &counts);
            }
            write_all(&queue, &key, &mut file, &counts);
        };
        let thread =
            std::thread::Builder::new().name("receipts".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { receipts, thread, metrics })
    }

    /// Writes what the workers left, and ends.
    pub fn close(self) {
        self.receipts.closing.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

fn write_all(queue: &Receipts, key: &PreparedKey, file: &mut file::Receiver, metrics: &WorkerMetrics) {
    if queue.queue.is_empty() {
        return;
    }
    let mut written = 0;
    while let Some(receipt) = queue.poll_receipt() {
        match file.append(&line::line(&receipt, key)) {
            Ok(()) => written += 1,
            Err(error) => {
                tracing::debug!(%error, "a receipt cannot be written");
                metrics.receipts_dropped.add("disk");
            }
        }
    }
    if file.sync().is_ok() {
        return metrics.receipts_written.add(written);
    }
    for _ in 0..written {
        metrics.receipts_dropped.add("disk");
    }
}

fn held(receipt: &Receipt) -> usize {
    receipt.event.as_ref().map_or(0, |event| event.len())
}
