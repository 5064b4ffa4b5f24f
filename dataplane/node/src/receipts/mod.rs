//! Receipts: a line for each outcome of a delivery and each order of an operator, in signed segments; the one seam for evidence.
//!
//! A worker hands an outcome over when its journal has it; a thread of its own writes and syncs, and says how far each
//! journal is told. Up to there, and no further, a journal forgets: at the next start it gives what a crash took. Where
//! the disk takes no lines, workers wait with new events, or, if so configured, receipts are dropped and counted.
//! A receipt holds names, numbers, times and a keyed hash of the body, never the body.

mod book;
mod entry;
mod keys;
mod read;
mod recover;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use book::{Book, Mark};
use crossbeam_queue::ArrayQueue;
pub use entry::{Act, Evidence, Receipt};
use entry::{Begin, Entry};
pub use read::{Page, digests_behind, page, scan};
use zen_audit::LogKey;
use zen_core::event::{EVENT_BYTES_MAX, Event};
use zen_core::journal::Sequence;
use zen_hmac::PreparedKey;

use crate::clock::Clock;
use crate::config::OnFull;
use crate::metrics::WorkerMetrics;

/// Receipts that wait for the disk, over all workers.
const RECEIPTS_MAX: usize = 8192;
/// Receipts of a worker that wait for its journal or for a place among those; with more it takes no new events.
pub const RECEIPTS_WAITING_MAX: usize = 16_384;
/// Bytes of events that they keep in memory until they are hashed; over it workers hash.
const HELD_BYTES_MAX: usize = 4 << 20;
/// Lines written at once.
const BATCH_MAX: usize = 512;
/// Their bytes, at most: names are bounded.
const BATCH_BYTES_MAX: usize = BATCH_MAX * 1024;
/// Longest part of an act that an operator says, bytes.
const ACT_TARGET_BYTES_MAX: usize = 256;
const STACK_BYTES: usize = 256 * 1024;
/// What they may use of memory, bytes.
pub const RECEIPTS_BYTES: usize = (RECEIPTS_MAX + BATCH_MAX) * (size_of::<Entry>() + 16)
    + HELD_BYTES_MAX
    + EVENT_BYTES_MAX
    + 2 * BATCH_BYTES_MAX
    + STACK_BYTES;
/// How often the queue is written.
const EVERY: Duration = Duration::from_millis(100);
/// The directory in the data directory.
const DIRECTORY: &str = "receipts";
/// Mode of the files.
const MODE: u32 = 0o600;
/// As many as a node may have.
const WORKERS_MAX: usize = 64;

/// How receipts are kept.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptsSettings {
    /// Of all segments.
    pub bytes_max: u64,
    /// What becomes of a receipt for which there is no room.
    pub on_full: OnFull,
    /// A segment is closed after this.
    pub digest_interval_s: u64,
    /// And with so many lines.
    pub digest_receipts_max: u64,
}

/// Where all outcomes go.
pub struct Receipts {
    directory: PathBuf,
    settings: ReceiptsSettings,
    /// Of the hashes, where it is configured.
    key: Option<PreparedKey>,
    queue: ArrayQueue<Entry>,
    held_bytes: AtomicUsize,
    /// By worker: its newest record that has a line on disk.
    told: Vec<AtomicU64>,
    /// The secret of the hashes, from [`Writer::start`] on.
    hash_key: OnceLock<PreparedKey>,
    /// The files, from then on.
    book: Mutex<Option<Book>>,
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
    /// Into the data directory; without a key one is made there.
    pub fn new(data_dir: &Path, settings: ReceiptsSettings, key: Option<PreparedKey>) -> Self {
        Self {
            directory: directory(data_dir),
            settings,
            key,
            queue: ArrayQueue::new(RECEIPTS_MAX),
            held_bytes: AtomicUsize::new(0),
            told: (0..WORKERS_MAX).map(|_| AtomicU64::new(0)).collect(),
            hash_key: OnceLock::new(),
            book: Mutex::new(None),
            closing: AtomicBool::new(false),
        }
    }

    /// Keeps the event in memory until the thread hashes its body, or hashes it here if too many are kept.
    pub fn hold(&self, receipt: &mut Receipt) {
        let Evidence::Held(event) = &receipt.evidence else { return };
        let bytes = event.len();
        if self.held_bytes.fetch_add(bytes, Ordering::AcqRel) > HELD_BYTES_MAX {
            self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
            receipt.evidence = Event::decode(event).map_or(Evidence::Gone, |event| self.evidence(&event));
        }
    }

    /// What is said of an event.
    pub fn evidence(&self, event: &Event<'_>) -> Evidence {
        self.hash_key.get().map_or(Evidence::Gone, |key| {
            let [tag] = key.sign(&[event.body])[..] else { return Evidence::Gone };
            Evidence::Told(event.endpoint, tag)
        })
    }

    /// Takes an outcome that is durable; gives it back when there is no room now, or drops and counts it.
    pub fn handle_outcome(&self, receipt: Receipt, metrics: &WorkerMetrics) -> Result<(), Box<Receipt>> {
        let Err(entry) = self.queue.push(Entry::Outcome(receipt)) else { return Ok(()) };
        match (self.settings.on_full, entry) {
            (OnFull::Wait, Entry::Outcome(receipt)) => return Err(Box::new(receipt)),
            (_, entry) => self.release(&entry),
        }
        metrics.receipts_dropped.add("full");
        Ok(())
    }

    /// Takes an order of an operator before it is carried out; whether it will have its line.
    pub fn handle_act(&self, mut act: Act) -> bool {
        let end = act.target.floor_char_boundary(ACT_TARGET_BYTES_MAX);
        act.target.truncate(end);
        self.queue.push(Entry::Act(act)).is_ok() || self.settings.on_full == OnFull::Drop
    }

    /// Whether a journal must keep what has no line yet.
    pub fn holds_journals(&self) -> bool {
        self.settings.on_full == OnFull::Wait
    }

    /// A worker's newest record that has a line on disk.
    pub fn told(&self, worker: u16) -> Sequence {
        Sequence(self.told[usize::from(worker)].load(Ordering::Acquire))
    }

    /// How far this journal is told by the files; none if it is another one than they know.
    pub fn mark(&self, worker: u16, journal: [u8; 16]) -> Option<Sequence> {
        let book = self.book();
        let mark = book.as_ref()?.marks().get(&worker).copied()?;
        (mark.journal == journal).then_some(Sequence(mark.record))
    }

    /// From `record` on a journal is told; that is on disk before its worker begins.
    pub fn begin(&self, worker: u16, journal: [u8; 16], record: Sequence) -> io::Result<()> {
        let (time_ms, record) = (Clock::now().wall_ms, record.0);
        let begin = Entry::Begin(Begin { time_ms, worker, journal, record });
        self.book().as_mut().map_or(Ok(()), |book| book.append(&[begin]))?;
        self.told[usize::from(worker)].store(record, Ordering::Release);
        Ok(())
    }

    /// Where the files are, what they are checked with, and the number of the next line.
    pub fn place(&self) -> Option<(PathBuf, LogKey, u64)> {
        let book = self.book();
        book.as_ref().map(|book| (self.directory.clone(), book.key().clone(), book.next_sequence()))
    }

    fn release(&self, entry: &Entry) {
        self.held_bytes.fetch_sub(entry.held_bytes(), Ordering::AcqRel);
    }

    fn book(&self) -> MutexGuard<'_, Option<Book>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, book: &Book) {
        for (worker, Mark { record, .. }) in book.marks() {
            self.told[usize::from(*worker)].fetch_max(*record, Ordering::AcqRel);
        }
    }
}

impl Writer {
    /// Opens the files, makes keys if none are there, and starts to write.
    pub fn start(receipts: Arc<Receipts>, node: &str) -> io::Result<Self> {
        let metrics = Arc::new(WorkerMetrics::default());
        let Receipts { directory, key, settings, .. } = &*receipts;
        let book = recover::open(directory, &format!("node/{node}"), key.clone(), *settings)?;
        receipts.publish(&book);
        let _ = receipts.hash_key.set(book.hash_key.clone());
        *receipts.book() = Some(book);
        let (queue, counts) = (Arc::clone(&receipts), Arc::clone(&metrics));
        let run = move || {
            let mut batch = Batch::default();
            while !queue.closing.load(Ordering::Acquire) {
                std::thread::sleep(EVERY);
                batch.write_all(&queue, &counts);
            }
            batch.write_all(&queue, &counts);
            batch.close(&queue);
        };
        let thread =
            std::thread::Builder::new().name("receipts".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(Self { receipts, thread, metrics })
    }

    /// Writes what the workers left, signs for it, and ends.
    pub fn close(self) {
        self.receipts.closing.store(true, Ordering::Release);
        let _ = self.thread.join();
    }
}

/// What is being written.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    /// Whether the last write failed; that is said once.
    is_failing: bool,
}

impl Batch {
    fn write_all(&mut self, receipts: &Receipts, metrics: &WorkerMetrics) {
        let mut book = receipts.book();
        let Some(book) = book.as_mut() else { return };
        let mut failed = false;
        loop {
            while self.entries.len() < BATCH_MAX
                && let Some(entry) = receipts.queue.pop()
            {
                self.entries.push(entry);
            }
            if self.entries.is_empty() {
                break;
            }
            // What comes during a sync waits for the next one, instead of having one of its own.
            let is_all = self.entries.len() < BATCH_MAX;
            let written = book.append(&self.entries);
            let count = self.entries.len() as u64;
            failed |= self.has_failed(&written);
            if failed && receipts.settings.on_full == OnFull::Wait {
                return;
            }
            match written {
                Ok(()) => metrics.receipts_written.add(count),
                Err(_) => (0..count).for_each(|_| metrics.receipts_dropped.add("disk")),
            }
            self.entries.drain(..).for_each(|entry| receipts.release(&entry));
            receipts.publish(book);
            if is_all {
                break;
            }
        }
        let closed = book.close_if_due(Clock::now().wall_ms);
        self.is_failing = self.has_failed(&closed) || failed;
    }

    /// A segment with lines is signed for at the end; what is not is signed for later.
    fn close(&mut self, receipts: &Receipts) {
        let mut book = receipts.book();
        if let Some(book) = book.as_mut().filter(|book| book.segment.count() > 0) {
            let closed = book.close();
            self.has_failed(&closed);
        }
    }

    fn has_failed(&mut self, result: &io::Result<()>) -> bool {
        if let Err(error) = result
            && !std::mem::replace(&mut self.is_failing, true)
        {
            tracing::error!(%error, "receipts cannot be written; they are tried again until the disk of data_dir takes them");
        }
        result.is_err()
    }
}
