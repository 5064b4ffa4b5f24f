//! Opening a journal at start: recovery reads every segment, then the writer goes on behind them.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use zen_core::journal::{Limits, OnDamage, Record, Recovered, Recovery, RecoveryError, SegmentId, Writer};
use zen_uring::Reactor;

use super::retention::Retention;
use super::segments::{
    JournalFiles, MakerThread, open_direct, remove_segment, retained_directory, segment_path, sync_directory,
};
use super::{Journal, Position, Start};
use crate::config::{self, JournalSettings};
use crate::mesh::JournalRole;
use crate::metrics::WorkerMetrics;

/// Most workers of a node, as in the bounds of `node.workers`.
const WORKERS_MAX: u16 = 64;

/// A segment is read into memory whole: one journal is recovered at a time.
static READING: Mutex<()> = Mutex::new(());

/// Why a journal was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system.
    #[error(
        "{path}: {source}; check the directory, its owner and the disk (O_DIRECT is needed: no overlay or FUSE)"
    )]
    Io {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What is there is not to be opened without a decision.
    #[error(
        "{directory}: {source}; each place is <segment>.seg and a byte offset. Restore the file, or set journal.on_damage = \"skip\" to go on with what is readable"
    )]
    Recovery {
        /// The journal's directory.
        directory: String,
        /// What recovery found.
        source: RecoveryError,
    },
    /// Journals of workers that are not configured any more.
    #[error(
        "{directory} holds events of a worker that does not exist with node.workers = {workers}; start with more workers, let it drain (zen_link_lag_events and zen_events_live at 0), stop it with SIGTERM, then change the number"
    )]
    Orphan {
        /// The journal's directory.
        directory: String,
        /// Workers configured.
        workers: u16,
    },
}

/// Where one worker's journal is.
pub fn directory(data_dir: &Path, role: JournalRole, worker: u16) -> PathBuf {
    match role {
        JournalRole::Ingester => data_dir.join("ingester").join(format!("worker-{worker}")),
        JournalRole::Egress => data_dir.join("egress").join(format!("worker-{worker}")),
        JournalRole::Index => data_dir.join("ingester").join(format!("index-{worker}")),
    }
}

/// Opens or begins a journal; every record that recovery reads goes to `record`, in order.
pub fn open(
    start: &Start<'_>,
    reactor: &mut Reactor,
    maker: &MakerThread,
    metrics: Arc<WorkerMetrics>,
    record: &mut impl FnMut(Record<'_>),
) -> Result<Journal, OpenError> {
    let directory = directory(start.data_dir, start.role, start.worker);
    create_directory(&directory).map_err(|source| failed(&directory, source))?;
    let limits = limits(&start.settings);
    let Read { locked, recovered } = read(&directory, &start.settings, record)?;
    let writer = match recovered {
        None => {
            let mut id = [0; 16];
            getrandom::fill(&mut id).map_err(|error| failed(&directory, io::Error::other(error)))?;
            Writer::new(limits, id, crc32c::crc32c_append)
        }
        Some(recovered) => {
            report(&directory, &recovered);
            remove(&directory, &recovered.unused)?;
            Writer::resume(recovered, limits, crc32c::crc32c_append)
        }
    };
    let files = adopt_files(&directory, reactor, locked)?;
    let retention = Retention::new(start.retention, retained(&directory)?);
    let positions = writer
        .live_segments()
        .map(|span| Position { first: span.first, segment: span.id, offset: super::BLOCK_BYTES })
        .collect();
    let maker = maker.for_journal(
        start.worker,
        JournalFiles {
            directory,
            journal_id: writer.journal_id(),
            segment_bytes: start.settings.segment_bytes,
        },
    );
    Ok(Journal::new(start, writer, files, positions, maker, retention, metrics))
}

/// Journals of workers beyond the configured ones must hold nothing; then they are removed. Keys may stay.
///
/// `is_empty` reads a journal's records and says whether anything in it is still needed.
pub fn remove_orphans(
    data_dir: &Path,
    settings: &JournalSettings,
    workers: u16,
    mut is_empty: impl FnMut(JournalRole, &mut dyn FnMut(&mut dyn FnMut(Record<'_>))) -> bool,
) -> Result<(), OpenError> {
    for role in [JournalRole::Ingester, JournalRole::Egress, JournalRole::Index] {
        for worker in workers..WORKERS_MAX {
            let directory = directory(data_dir, role, worker);
            if !directory.exists() {
                continue;
            }
            let mut result = Ok(());
            let empty = is_empty(role, &mut |record| {
                result = read(&directory, settings, &mut |found| record(found)).map(drop);
            });
            result?;
            if !empty && role == JournalRole::Index {
                continue;
            }
            if !empty {
                return Err(OpenError::Orphan { directory: directory.display().to_string(), workers });
            }
            remove_journal(&directory)?;
            tracing::info!(directory = %directory.display(), "removed the empty journal of a worker that is gone");
        }
    }
    Ok(())
}

/// What is on disk: the segments, locked, and what recovery found in them; none for a new journal.
struct Read {
    locked: HashMap<SegmentId, OwnedFd>,
    recovered: Option<Recovered>,
}

fn read(
    directory: &Path,
    settings: &JournalSettings,
    record: &mut impl FnMut(Record<'_>),
) -> Result<Read, OpenError> {
    let _one_at_a_time = READING.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |source| OpenError::Recovery { directory: directory.display().to_string(), source };
    let ids = list(directory)?;
    let mut recovery = Recovery::new(limits(settings), crc32c::crc32c_append);
    let mut locked = HashMap::new();
    for id in &ids {
        let path = segment_path(directory, *id);
        let fd = open_direct(&path).map_err(|source| failed(&path, source))?;
        locked.insert(*id, fd);
        let bytes = fs::read(&path).map_err(|source| failed(&path, source))?;
        recovery.handle_segment(*id, &bytes, record).map_err(refused)?;
    }
    let on_damage = match settings.on_damage {
        config::OnDamage::Refuse => OnDamage::Refuse,
        config::OnDamage::Skip => OnDamage::Skip,
    };
    match recovery.finish(on_damage) {
        Ok(recovered) => Ok(Read { locked, recovered: Some(recovered) }),
        Err(RecoveryError::Empty) if ids.is_empty() => Ok(Read { locked, recovered: None }),
        Err(RecoveryError::Empty) if on_damage == OnDamage::Skip => {
            remove(directory, &ids)?;
            Ok(Read { locked: HashMap::new(), recovered: None })
        }
        Err(source) => Err(refused(source)),
    }
}

fn limits(settings: &JournalSettings) -> Limits {
    let limits = Limits {
        segment_bytes: settings.segment_bytes,
        commit_bytes_max: settings.commit_bytes_max,
        segments_max: u32::try_from(settings.bytes_max / settings.segment_bytes).unwrap_or(u32::MAX),
    };
    limits.validate().expect("the configuration's bounds are tighter");
    limits
}

/// Segment ids in the directory, in order; files being prepared at a crash are removed.
fn list(directory: &Path) -> Result<Vec<SegmentId>, OpenError> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory).map_err(|source| failed(directory, source))? {
        let path = entry.map_err(|source| failed(directory, source))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("seg") => ids.extend(u64::from_str_radix(stem, 16).ok().map(SegmentId)),
            Some("tmp") => fs::remove_file(&path).map_err(|source| failed(&path, source))?,
            _ => {}
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// What earlier runs kept for replay, oldest first; a file's last change is about when it was given up.
fn retained(directory: &Path) -> Result<VecDeque<(SegmentId, u64)>, OpenError> {
    let retained = retained_directory(directory);
    if !retained.exists() {
        return Ok(VecDeque::new());
    }
    let mut kept = VecDeque::new();
    for id in list(&retained)? {
        let path = segment_path(&retained, id);
        let changed = fs::metadata(&path).and_then(|file| file.modified());
        let changed = changed.map_err(|source| failed(&path, source))?;
        let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        kept.push_back((id, since.as_millis() as u64));
    }
    Ok(kept)
}

/// Oldest first: what a crash leaves of the journal can be opened.
fn remove_journal(directory: &Path) -> Result<(), OpenError> {
    remove(directory, &list(directory)?)?;
    fs::remove_dir_all(directory).map_err(|source| failed(directory, source))
}

fn remove(directory: &Path, ids: &[SegmentId]) -> Result<(), OpenError> {
    for id in ids {
        let path = segment_path(directory, *id);
        remove_segment(directory, &path).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

/// A journal's directory, whose name and whose role's name stay when power is lost.
fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    directory.ancestors().skip(1).take(2).try_for_each(sync_directory)
}

/// Hands the segments that are left to the ring.
fn adopt_files(
    directory: &Path,
    reactor: &mut Reactor,
    mut locked: HashMap<SegmentId, OwnedFd>,
) -> Result<HashMap<SegmentId, zen_uring::FileId>, OpenError> {
    let mut files = HashMap::new();
    for id in list(directory)? {
        let path = segment_path(directory, id);
        let Some(fd) = locked.remove(&id) else { continue };
        // What recovery read may have come from a cache only.
        let file = fs::File::from(fd);
        file.sync_all().map_err(|source| failed(&path, source))?;
        let file = reactor.add_file(file.into()).map_err(|error| failed(&path, io::Error::other(error)))?;
        files.insert(id, file);
    }
    Ok(files)
}

fn report(directory: &Path, recovered: &Recovered) {
    let directory = directory.display();
    if let Some(cut) = recovered.truncated {
        tracing::warn!(%directory, segment = %cut.segment, offset = cut.offset, commits = cut.commits,
            "a crash left unfinished commits; they were never answered and are cut off");
    }
    for damage in &recovered.damage {
        tracing::error!(%directory, segment = %damage.segment, offset = damage.offset, reason = %damage.reason,
            "the journal is damaged here; what is readable around it is kept");
    }
}

fn failed(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_removed_oldest_first() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("worker-1");
        create_directory(&directory).unwrap();
        let path = |id| segment_path(&directory, SegmentId(id));
        for id in [9, 10, 12] {
            fs::write(path(id), "").unwrap();
        }
        // A directory in the place of a file cannot be removed as one.
        fs::create_dir(path(11)).unwrap();
        assert!(matches!(remove_journal(&directory), Err(OpenError::Io { .. })));
        assert_eq!(
            list(&directory).unwrap(),
            [SegmentId(11), SegmentId(12)],
            "nothing behind it goes before it"
        );
        fs::remove_dir(path(11)).unwrap();
        remove_journal(&directory).unwrap();
        assert!(!directory.exists());
    }
}
