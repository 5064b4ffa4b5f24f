//! A simulated disk: segment files of 4 KiB sectors, and writes that are not on it yet.
//!
//! Writes enter and wait; `handle_flushed` puts one on the disk whole, as the completion of an `O_DSYNC` write
//! says. A power cut leaves of each waiting write any subset of its sectors, some torn in the middle; a killed
//! process leaves them all, because the kernel finishes what it was given. Preparing a file is atomic: the
//! node renames it into place. Bit rot flips bits of what was safe. A file that is recycled keeps its past.

use std::collections::BTreeMap;

use zen_core::journal::{BLOCK_BYTES, SegmentId};

use crate::prng::Prng;

/// What a drive writes at once, bytes; a sector can tear between two of them.
const ATOM_BYTES: usize = 512;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process alone.
    Killed,
    /// The machine with its caches.
    PowerCut,
}

/// One write that is not on the disk yet.
#[derive(Debug)]
pub struct Waiting {
    /// Names it among those that wait.
    pub operation: u64,
    /// The file.
    pub segment: SegmentId,
    /// Where in it, bytes.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// Files as a power cut would leave them, and what is on its way.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<SegmentId, Vec<u8>>,
    waiting: Vec<Waiting>,
}

impl Disk {
    /// Takes a write that lies within its file.
    pub fn write(&mut self, waiting: Waiting) {
        let file = &self.files[&waiting.segment];
        assert!(waiting.offset as usize + waiting.bytes.len() <= file.len(), "a commit fits its segment");
        self.waiting.push(waiting);
    }

    /// A write is on the disk.
    pub fn handle_flushed(&mut self, operation: u64) -> Waiting {
        let written = self.take(operation);
        let file = self.files.get_mut(&written.segment).expect("files with writes are not removed");
        file[written.offset as usize..][..written.bytes.len()].copy_from_slice(&written.bytes);
        written
    }

    /// A write failed: any part of it may be on the disk.
    pub fn handle_failed(&mut self, operation: u64, prng: &mut Prng) -> Waiting {
        let failed = self.take(operation);
        self.leave_some(&failed, prng);
        failed
    }

    /// The end of whoever wrote.
    pub fn crash(&mut self, end: End, prng: &mut Prng) {
        for waiting in core::mem::take(&mut self.waiting) {
            match end {
                End::PowerCut => self.leave_some(&waiting, prng),
                End::Killed => {
                    let file =
                        self.files.get_mut(&waiting.segment).expect("files with writes are not removed");
                    file[waiting.offset as usize..][..waiting.bytes.len()].copy_from_slice(&waiting.bytes);
                }
            }
        }
    }

    /// Puts a prepared file in place: a new one, or a recycled one with a new header.
    pub fn prepare(&mut self, id: SegmentId, header: &[u8], bytes: usize, recycle: Option<SegmentId>) {
        let old = recycle.and_then(|old| self.files.remove(&old));
        let mut file = old.unwrap_or_else(|| vec![0; bytes]);
        file[..header.len()].copy_from_slice(header);
        assert!(self.files.insert(id, file).is_none(), "ids are not used twice");
    }

    /// Removes a file.
    pub fn remove(&mut self, id: SegmentId) {
        self.files.remove(&id);
    }

    /// Flips a bit of what was safe.
    pub fn rot(&mut self, segment: SegmentId, offset: usize, bit: u8) {
        if let Some(file) = self.files.get_mut(&segment) {
            file[offset] ^= 1 << bit;
        }
    }

    /// Files in order of id.
    pub fn files(&self) -> impl Iterator<Item = (SegmentId, &[u8])> {
        self.files.iter().map(|(id, bytes)| (*id, bytes.as_slice()))
    }

    /// What is on the disk of one file.
    pub fn read(&self, id: SegmentId) -> Option<&[u8]> {
        self.files.get(&id).map(Vec::as_slice)
    }

    fn take(&mut self, operation: u64) -> Waiting {
        let at = self.waiting.iter().position(|waiting| waiting.operation == operation);
        self.waiting.remove(at.expect("each write ends once"))
    }

    fn leave_some(&mut self, waiting: &Waiting, prng: &mut Prng) {
        let file = self.files.get_mut(&waiting.segment).expect("files with writes are not removed");
        let place = &mut file[waiting.offset as usize..][..waiting.bytes.len()];
        for (old, new) in place.chunks_mut(BLOCK_BYTES).zip(waiting.bytes.chunks(BLOCK_BYTES)) {
            let atoms = BLOCK_BYTES / ATOM_BYTES;
            let kept = match prng.below(5) {
                0 | 1 => 0,
                2 | 3 => atoms,
                _ => prng.below(atoms),
            };
            old[..kept * ATOM_BYTES].copy_from_slice(&new[..kept * ATOM_BYTES]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the two sectors that are written.
    const ATOMS: usize = 2 * BLOCK_BYTES / ATOM_BYTES;

    fn disk() -> Disk {
        let mut disk = Disk::default();
        disk.prepare(SegmentId(1), &[9; BLOCK_BYTES], 4 * BLOCK_BYTES, None);
        let bytes = vec![7; 2 * BLOCK_BYTES];
        disk.write(Waiting { operation: 1, segment: SegmentId(1), offset: BLOCK_BYTES as u64, bytes });
        disk
    }

    fn sevens(disk: &Disk) -> usize {
        let file = disk.read(SegmentId(1)).unwrap();
        file.chunks(ATOM_BYTES).filter(|atom| atom[0] == 7).count()
    }

    #[test]
    fn only_what_was_flushed_is_sure_to_stay() {
        let mut flushed = disk();
        assert_eq!(sevens(&flushed), 0);
        flushed.handle_flushed(1);
        flushed.crash(End::PowerCut, &mut Prng::new(1));
        assert_eq!(sevens(&flushed), ATOMS);
        let mut killed = disk();
        killed.crash(End::Killed, &mut Prng::new(1));
        assert_eq!(sevens(&killed), ATOMS);
    }

    #[test]
    fn a_power_cut_leaves_all_nothing_and_torn_sectors() {
        let left: std::collections::BTreeSet<usize> = (0..200)
            .map(|seed| {
                let mut disk = disk();
                disk.crash(End::PowerCut, &mut Prng::new(seed));
                sevens(&disk)
            })
            .collect();
        assert!(left.contains(&0) && left.contains(&ATOMS) && left.len() > 6, "{left:?}");
    }
}
