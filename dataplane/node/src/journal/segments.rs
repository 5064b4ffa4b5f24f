//! Prepares segment files on a thread of its own: written with zeros, header durable, then renamed.
//!
//! A worker asks, the file arrives in its inbox open for direct, durable writes. Overwriting prepared
//! blocks needs no metadata commit of the file system, which is what makes a journal write one I/O.
//! A full disk shows here, before any event is taken that could not be kept.
//!
//! Files are given up in order: one that cannot be removed holds back those behind it and new segments,
//! for a start refuses a journal that lacks a segment between others.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use zen_core::journal::{SegmentHeader, SegmentId, segment_header};
use zen_uring::AlignedBuffer;

use crate::mesh::{JournalRole, Mesh, Message};

/// Zeros are written in pieces of this size: a commit waits for one of them at most.
const ZERO_BYTES: usize = 256 << 10;
/// The longest pause between two pieces: a disk that is stuck for a moment does not hold up the next segment as long again.
const PAUSE_MAX: Duration = Duration::from_millis(20);
/// What the thread may need of its stack, bytes.
const STACK_BYTES: usize = 256 * 1024;
/// What the thread takes, bytes.
pub const MAKER_BYTES: usize = ZERO_BYTES + STACK_BYTES;
/// After a failure the same file is tried again this much later.
const RETRY: Duration = Duration::from_millis(500);
/// How long the writes of a killed process may take to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// How fast a file is filled with zeros. A worker sets it anew as it needs the file sooner.
#[derive(Clone, Debug, Default)]
pub struct Pace(Arc<AtomicU32>);

impl Pace {
    /// There is no segment to write to: as fast as the disk goes.
    pub const URGENT: u32 = 0;
    /// This will be the next segment: half of the time is for commits.
    pub const NEXT: u32 = 1;
    /// Another one is ready before it: most of the time is for commits.
    pub const SPARE: u32 = 4;

    /// Pauses of so many times as long as a piece took.
    pub fn set(&self, pauses: u32) {
        self.0.store(pauses, Ordering::Relaxed);
    }

    fn pause_after(&self, took: Duration) -> Duration {
        (took * self.0.load(Ordering::Relaxed)).min(PAUSE_MAX)
    }
}

/// What a worker asks for.
#[derive(Debug)]
pub struct SegmentRequest {
    /// Which of its journals.
    pub role: JournalRole,
    /// The new segment.
    pub id: SegmentId,
    /// A trimmed segment whose file may be used again.
    pub recycle: Option<SegmentId>,
    /// How fast.
    pub pace: Pace,
}

/// A journal's directory and identity, as the maker needs them.
#[derive(Clone, Debug)]
pub struct JournalFiles {
    /// Holds this journal's segments only.
    pub directory: PathBuf,
    /// In each segment's header.
    pub journal_id: [u8; 16],
    /// Size of each file.
    pub segment_bytes: u64,
}

enum Task {
    Prepare { worker: u16, files: JournalFiles, request: SegmentRequest, wall_ms: u64 },
    Retain { files: JournalFiles, id: SegmentId },
    Remove { files: JournalFiles, id: SegmentId },
}

/// One worker's handle of the preparing thread.
pub struct SegmentMaker {
    tasks: mpsc::Sender<Task>,
    worker: u16,
    files: JournalFiles,
}

/// Starts the thread; it ends when the last handle is gone.
pub fn spawn(mesh: Mesh) -> io::Result<MakerThread> {
    let (tasks, queue) = mpsc::channel();
    let thread = std::thread::Builder::new().name("segments".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || run(&queue, &mesh))?;
    Ok(MakerThread { tasks })
}

/// The preparing thread.
#[derive(Clone)]
pub struct MakerThread {
    tasks: mpsc::Sender<Task>,
}

impl MakerThread {
    /// A handle for one journal of one worker.
    pub fn for_journal(&self, worker: u16, files: JournalFiles) -> SegmentMaker {
        SegmentMaker { tasks: self.tasks.clone(), worker, files }
    }
}

impl SegmentMaker {
    /// Asks for a segment; the answer is a [`Message::Segment`].
    pub fn prepare(&self, request: SegmentRequest, wall_ms: u64) {
        let task = Task::Prepare { worker: self.worker, files: self.files.clone(), request, wall_ms };
        self.tasks.send(task).expect("the preparing thread lives as long as its handles");
    }

    /// Moves a trimmed segment's file to those kept for replay.
    pub fn retain(&self, id: SegmentId) {
        let task = Task::Retain { files: self.files.clone(), id };
        self.tasks.send(task).expect("the preparing thread lives as long as its handles");
    }

    /// Deletes a trimmed segment's file.
    pub fn remove(&self, id: SegmentId) {
        let task = Task::Remove { files: self.files.clone(), id };
        self.tasks.send(task).expect("the preparing thread lives as long as its handles");
    }
}

/// The file of a segment.
pub fn segment_path(directory: &Path, id: SegmentId) -> PathBuf {
    directory.join(format!("{:016x}.seg", id.0))
}

/// The segments kept for replay, in a journal's directory.
pub fn retained_directory(directory: &Path) -> PathBuf {
    directory.join("retained")
}

/// The file of a segment that was given up, wherever it is now.
fn trimmed_path(directory: &Path, id: SegmentId) -> PathBuf {
    let retained = segment_path(&retained_directory(directory), id);
    if retained.exists() { retained } else { segment_path(directory, id) }
}

/// Removes a segment's file, durably, so that a loss of power leaves no gap when the next one goes.
pub fn remove_segment(directory: &Path, path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_directory(directory),
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Opens a segment for direct, durable writes and for reads, and locks it.
///
/// A write that a killed process left in flight holds the file, and so its lock, until it is done:
/// whoever has the lock sees everything that will ever be there.
pub fn open_direct(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_DIRECT | libc::O_DSYNC | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let until = Instant::now() + LOCK_TIMEOUT;
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::Error(error) => return Err(error),
            TryLockError::WouldBlock if Instant::now() >= until => {
                return Err(io::Error::other("another process holds this segment"));
            }
            TryLockError::WouldBlock => std::thread::sleep(LOCK_PAUSE),
        }
    }
    // Pages left by preparing the file would have to be given up by each direct write, which then cannot
    // be done without a kernel thread. Only a hint: what it does not reach is slower, not wrong.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(file.into())
}

fn run(queue: &mpsc::Receiver<Task>, mesh: &Mesh) {
    let mut given_up = GivenUp::default();
    while let Ok(task) = queue.recv() {
        match task {
            Task::Prepare { worker, files, request, wall_ms } => {
                let file = given_up.prepare(&files, &request, wall_ms);
                if file.is_err() {
                    std::thread::sleep(RETRY);
                }
                mesh.send(worker, Message::Segment { role: request.role, id: request.id, file });
            }
            Task::Retain { files, id } => {
                if let Err(error) = given_up.retain(&files.directory, id) {
                    tracing::warn!(%error, segment = %id, "a trimmed segment could not be kept for replay; it is removed");
                }
            }
            Task::Remove { files, id } => {
                if let Err(error) = given_up.remove(&files.directory, id) {
                    let path = trimmed_path(&files.directory, id);
                    tracing::warn!(%error, path = %path.display(), "trimmed segments could not be removed; it is tried again before a new one is prepared");
                }
            }
        }
    }
}

/// One after the other and each durable, so that a crash never leaves a gap between the live ones.
fn retain(directory: &Path, id: SegmentId) -> io::Result<()> {
    let retained = retained_directory(directory);
    std::fs::create_dir_all(&retained)?;
    std::fs::rename(segment_path(directory, id), segment_path(&retained, id))?;
    sync_directory(&retained)?;
    sync_directory(directory)
}

/// Files that should be gone, oldest first, by directory; at most a journal's `segments_max` each.
#[derive(Default)]
struct GivenUp(HashMap<PathBuf, VecDeque<SegmentId>>);

impl GivenUp {
    /// Removes a file, or keeps it in mind.
    fn remove(&mut self, directory: &Path, id: SegmentId) -> io::Result<()> {
        self.0.entry(directory.to_owned()).or_default().push_back(id);
        self.remove_all(directory)
    }

    /// Makes a segment, of the given up file if that can be had.
    fn prepare(
        &mut self,
        files: &JournalFiles,
        request: &SegmentRequest,
        wall_ms: u64,
    ) -> io::Result<OwnedFd> {
        let path = segment_path(&files.directory, request.id);
        let building = path.with_extension("tmp");
        let is_recycled = match request.recycle {
            Some(old) => self.recycle(&files.directory, old, &building)?,
            None => self.remove_all(&files.directory).map(|()| false)?,
        };
        let header = SegmentHeader {
            journal_id: files.journal_id,
            segment: request.id,
            segment_bytes: files.segment_bytes,
            created_ms: wall_ms,
        };
        let header = segment_header(&header, crc32c::crc32c_append);
        if is_recycled {
            // A loss of power must not leave the new header, or half of it, under the old name.
            let opened = || OpenOptions::new().write(true).open(&building);
            let built = sync_directory(&files.directory).and_then(|()| write_header(&opened()?, &header));
            return publish(files, &path, &building, built);
        }
        let built = write_new(&building, &header, files.segment_bytes, &request.pace);
        publish(files, &path, &building, built)
    }

    /// Renames a file that was given up, unless an older one is still there; then neither stays.
    fn recycle(&mut self, directory: &Path, old: SegmentId, building: &Path) -> io::Result<bool> {
        let renamed =
            self.remove_all(directory).and_then(|()| std::fs::rename(trimmed_path(directory, old), building));
        if renamed.is_err() {
            self.remove(directory, old)?;
        }
        Ok(renamed.is_ok())
    }

    /// Moves a file that was given up to those kept for replay, unless that or an older one fails; then it goes.
    fn retain(&mut self, directory: &Path, id: SegmentId) -> io::Result<()> {
        let retained = self.remove_all(directory).and_then(|()| retain(directory, id));
        if retained.is_err() {
            self.remove(directory, id)?;
        }
        retained
    }

    fn remove_all(&mut self, directory: &Path) -> io::Result<()> {
        let Some(waiting) = self.0.get_mut(directory) else { return Ok(()) };
        while let Some(oldest) = waiting.front() {
            remove_segment(directory, &trimmed_path(directory, *oldest))?;
            waiting.pop_front();
        }
        Ok(())
    }
}

/// Gives a file that was built its name, or removes what there is of it.
fn publish(files: &JournalFiles, path: &Path, building: &Path, built: io::Result<()>) -> io::Result<OwnedFd> {
    if let Err(error) = built.and_then(|()| std::fs::rename(building, path)) {
        let _ = std::fs::remove_file(building);
        return Err(error);
    }
    sync_directory(&files.directory)?;
    open_direct(path)
}

fn write_header(file: &File, header: &[u8]) -> io::Result<()> {
    file.write_all_at(header, 0)?;
    file.sync_data()
}

/// Past the page cache, which would hand all of it to the disk at once, with commits of a tenth of a second behind it.
fn write_new(path: &Path, header: &[u8], bytes: u64, pace: &Pace) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600);
    let file = file.custom_flags(libc::O_DIRECT | libc::O_CLOEXEC).open(path)?;
    let mut piece = AlignedBuffer::new(ZERO_BYTES);
    piece[..header.len()].copy_from_slice(header);
    let mut offset = 0;
    while offset < bytes {
        let begun = Instant::now();
        let length = (bytes - offset).min(ZERO_BYTES as u64) as usize;
        file.write_all_at(&piece[..length], offset)?;
        offset += length as u64;
        piece[..header.len()].fill(0);
        std::thread::sleep(pace.pause_after(begun.elapsed()));
    }
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 8192;

    struct Lab {
        home: tempfile::TempDir,
        given_up: GivenUp,
    }

    impl Lab {
        /// A journal of these segments.
        fn new(ids: &[u64]) -> Self {
            let home = tempfile::tempdir().unwrap();
            for id in ids {
                std::fs::write(home.path().join(format!("{id:016x}.seg")), "old").unwrap();
            }
            Self { home, given_up: GivenUp::default() }
        }

        fn path(&self, id: u64) -> PathBuf {
            segment_path(self.home.path(), SegmentId(id))
        }

        fn remove(&mut self, id: u64) -> io::Result<()> {
            self.given_up.remove(self.home.path(), SegmentId(id))
        }

        fn prepare(&mut self, id: u64, recycle: Option<u64>) -> io::Result<()> {
            let files = JournalFiles {
                directory: self.home.path().to_owned(),
                journal_id: [7; 16],
                segment_bytes: SEGMENT_BYTES,
            };
            let (id, recycle) = (SegmentId(id), recycle.map(SegmentId));
            let request = SegmentRequest { role: JournalRole::Ingester, id, recycle, pace: Pace::default() };
            self.given_up.prepare(&files, &request, 0).map(drop)
        }

        fn ids(&self) -> Vec<u64> {
            let files = std::fs::read_dir(self.home.path()).unwrap().map(|entry| entry.unwrap().path());
            let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
            let stem = |path: PathBuf| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok();
            let mut ids: Vec<u64> = files.filter_map(stem).collect();
            ids.sort_unstable();
            ids
        }
    }

    #[test]
    fn a_file_that_was_given_up_becomes_the_next_segment() {
        let mut lab = Lab::new(&[1, 2, 3]);
        lab.prepare(4, Some(1)).unwrap();
        lab.remove(2).unwrap();
        assert_eq!(lab.ids(), [3, 4]);
        assert_eq!(&std::fs::read(lab.path(4)).unwrap()[..8], b"ZENJRNL1");
    }

    #[test]
    fn a_file_that_cannot_be_recycled_leaves_no_gap_when_the_next_one_goes() {
        let mut lab = Lab::new(&[1, 2, 3]);
        let building = lab.path(4).with_extension("tmp");
        std::fs::create_dir(&building).unwrap();
        assert!(lab.prepare(4, Some(1)).is_err());
        lab.remove(2).unwrap();
        assert_eq!(lab.ids(), [3], "the first one is gone too");
        std::fs::remove_dir(&building).unwrap();
        lab.prepare(4, None).unwrap();
        assert_eq!(lab.ids(), [3, 4]);
    }

    #[test]
    fn a_file_that_cannot_be_kept_for_replay_leaves_no_gap_when_the_next_one_is() {
        let mut lab = Lab::new(&[1, 2, 3]);
        let retained = retained_directory(lab.home.path());
        std::fs::write(&retained, "in the way").unwrap();
        assert!(lab.given_up.retain(lab.home.path(), SegmentId(1)).is_err());
        std::fs::remove_file(&retained).unwrap();
        lab.given_up.retain(lab.home.path(), SegmentId(2)).unwrap();
        assert_eq!(lab.ids(), [3], "the first one is gone too");
        assert!(segment_path(&retained, SegmentId(2)).exists());
    }

    #[test]
    fn a_file_that_cannot_be_removed_holds_back_newer_ones_and_new_segments() {
        let mut lab = Lab::new(&[2, 3, 4]);
        // A directory in the place of a file cannot be removed as one.
        std::fs::create_dir(lab.path(1)).unwrap();
        assert!(lab.remove(1).is_err() && lab.remove(2).is_err());
        assert!(lab.prepare(5, Some(3)).is_err() && lab.prepare(5, None).is_err());
        assert_eq!(lab.ids(), [1, 2, 3, 4], "nothing goes before it");
        std::fs::remove_dir(lab.path(1)).unwrap();
        lab.prepare(5, None).unwrap();
        assert_eq!(lab.ids(), [4, 5]);
        assert!(lab.given_up.0[lab.home.path()].is_empty());
    }
}
