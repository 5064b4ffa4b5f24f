//! A drive with a volatile write cache, which loses power.
//!
//! In: reads, writes and flushes of a disk image, and cuts with their randomness. Out: the bytes. What
//! was written since the last flush can be lost: a cut keeps, drops or tears each of those writes, sector by
//! sector and whatever their order, as drives do (SCSI SBC-4 section 4.15, ATA ACS-4 FLUSH CACHE). What
//! was flushed stays. Behind a cut every request is refused until [`Drive::restore`].

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::random::Random;

/// The unit that a drive writes whole or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// Beyond this, the cache is written back by itself, as any drive's is.
const CACHE_BYTES_MAX: u64 = 64 << 20;
const CACHED_MAX: usize = (CACHE_BYTES_MAX / SECTOR_BYTES) as usize;

/// What a drive does at a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushes {
    /// Everything written before it stays.
    Honoured,
    /// It answers and does nothing: a drive that lies, which a test of power cuts must notice.
    Ignored,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    /// Between a cut and its restoring.
    #[error("the drive has no power")]
    PoweredOff,
    /// Behind the last byte.
    #[error("beyond the end of the drive")]
    Beyond,
    /// The image's own file system.
    #[error("the image of the drive: {0}")]
    Image(#[from] io::Error),
}

/// What a cut met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Writes that no flush had made durable.
    pub(crate) writes: u64,
    /// Sectors of them that were taken back.
    pub(crate) sectors_lost: u64,
}

impl std::ops::AddAssign for Cut {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.sectors_lost += other.sectors_lost;
    }
}

/// Which write a cut waits for that comes by itself, behind it and before its flush.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trigger {
    /// The last of so many.
    Writes(u64),
    /// One with a sector that begins like this.
    Sector(&'static [u8]),
}

impl Trigger {
    /// Counts one write; whether it is the one.
    fn handle_write(&mut self, bytes: &[u8]) -> bool {
        match self {
            Self::Writes(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
            Self::Sector(begin) => {
                bytes.chunks(SECTOR_BYTES as usize).any(|sector| sector.starts_with(begin))
            }
        }
    }
}

/// A sector of a write since the last flush, and what was there before.
#[derive(Debug)]
struct Cached {
    write: u64,
    sector: u64,
    before: [u8; SECTOR_BYTES as usize],
}

/// What a cut does to one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// The image always holds the newest bytes; the cache remembers how to take them back.
#[derive(Debug)]
pub(crate) struct Drive {
    image: File,
    bytes: u64,
    flushes: Flushes,
    cached: Vec<Cached>,
    writes: u64,
    is_powered: bool,
    armed: Option<(Trigger, Random)>,
    cut: Option<Cut>,
}

impl Drive {
    /// An empty drive on `image`, which becomes `bytes` long.
    pub(crate) fn new(image: File, bytes: u64, flushes: Flushes) -> io::Result<Self> {
        assert_eq!(bytes % SECTOR_BYTES, 0, "a drive is whole sectors");
        image.set_len(bytes)?;
        let cached = Vec::new();
        Ok(Self { image, bytes, flushes, cached, writes: 0, is_powered: true, armed: None, cut: None })
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The newest bytes, durable or not; short at the end of the drive.
    pub(crate) fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, DriveError> {
        self.require_power()?;
        let mut buffer = vec![0; bytes.min(self.bytes.saturating_sub(offset)) as usize];
        self.image.read_exact_at(&mut buffer, offset)?;
        Ok(buffer)
    }

    /// Writes to the cache.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DriveError> {
        self.require_power()?;
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.bytes);
        let end = end.ok_or(DriveError::Beyond)?;
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let mut before = [0; SECTOR_BYTES as usize];
            self.image.read_exact_at(&mut before, sector * SECTOR_BYTES)?;
            self.cached.push(Cached { write: self.writes, sector, before });
        }
        self.writes += 1;
        self.image.write_all_at(bytes, offset)?;
        if self.cached.len() > CACHED_MAX {
            self.cached.clear();
        }
        if let Some((trigger, random)) = &mut self.armed
            && trigger.handle_write(bytes)
        {
            let mut random = random.clone();
            self.cut = Some(self.cut(&mut random)?);
            return Err(DriveError::PoweredOff);
        }
        Ok(())
    }

    /// Makes durable what was written before.
    pub(crate) fn flush(&mut self) -> Result<(), DriveError> {
        self.require_power()?;
        if self.flushes == Flushes::Honoured {
            self.cached.clear();
        }
        Ok(())
    }

    /// The power goes: each cached write is kept, lost or torn.
    pub(crate) fn cut(&mut self, random: &mut Random) -> Result<Cut, DriveError> {
        self.require_power()?;
        self.is_powered = false;
        self.armed = None;
        // One cut loses everything, another a little: both find different faults.
        let losses_of_four = 1 + random.below(4);
        let mut fates: HashMap<u64, Fate> = HashMap::new();
        let mut settled = HashSet::new();
        let mut taken_back = HashMap::new();
        for cached in self.cached.drain(..).rev() {
            let fate = *fates.entry(cached.write).or_insert_with(|| fate(losses_of_four, random));
            let is_kept = fate == Fate::Kept || (fate == Fate::Torn && random.below(2) == 0);
            if settled.contains(&cached.sector) {
                continue;
            }
            if is_kept {
                settled.insert(cached.sector);
            } else {
                taken_back.insert(cached.sector, cached.before);
            }
        }
        for (sector, before) in &taken_back {
            self.image.write_all_at(before, sector * SECTOR_BYTES)?;
        }
        Ok(Cut { writes: fates.len() as u64, sectors_lost: taken_back.len() as u64 })
    }

    /// The power goes by itself, between the write that `trigger` means and its flush.
    pub(crate) fn arm(&mut self, trigger: Trigger, random: Random) {
        self.armed = Some((trigger, random));
    }

    /// The cut that came by itself, once.
    pub(crate) fn take_cut(&mut self) -> Option<Cut> {
        self.cut.take()
    }

    /// The power is back.
    pub(crate) fn restore(&mut self) {
        self.is_powered = true;
    }

    fn require_power(&self) -> Result<(), DriveError> {
        if self.is_powered { Ok(()) } else { Err(DriveError::PoweredOff) }
    }
}

fn fate(losses_of_four: u64, random: &mut Random) -> Fate {
    if random.below(4) < losses_of_four {
        return Fate::Lost;
    }
    if random.below(2) == 0 { Fate::Torn } else { Fate::Kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 64 * SECTOR_BYTES;

    fn drive(flushes: Flushes) -> Drive {
        Drive::new(tempfile::tempfile().unwrap(), BYTES, flushes).unwrap()
    }

    /// Cuts a drive of `flushes` with 100 seeds: a flushed write, one over it and one beside it that are not.
    /// How often the flushed one was changed, and which bytes were found of the others.
    fn cut_often(flushes: Flushes) -> (u32, HashSet<[u8; 2]>) {
        let (mut broken, mut found) = (0, HashSet::new());
        for seed in 0..100 {
            let mut drive = drive(flushes);
            drive.write(0, &[1; 4096]).unwrap();
            drive.flush().unwrap();
            drive.write(0, &[2; 512]).unwrap();
            drive.write(0, &[3; 1024]).unwrap();
            drive.cut(&mut Random::new(seed)).unwrap();
            drive.restore();
            let bytes = drive.read(0, 4096).unwrap();
            broken += u32::from(bytes[1024..] != [1; 3072]);
            for sector in bytes[..1024].chunks(512) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
            }
            found.insert([bytes[0], bytes[512]]);
        }
        (broken, found)
    }

    #[test]
    fn what_was_flushed_stays_and_the_rest_may_go_in_any_mixture() {
        let (broken, found) = cut_often(Flushes::Honoured);
        assert_eq!(broken, 0);
        // Kept, lost and torn, the older of two writes without the newer one included.
        let all = [[1, 1], [2, 1], [3, 3], [3, 1], [1, 3], [2, 3]];
        assert_eq!(found, HashSet::from(all));
    }

    #[test]
    fn a_drive_that_ignores_flushes_is_found_out() {
        assert!(cut_often(Flushes::Ignored).0 > 10);
    }

    #[test]
    fn without_power_nothing_is_answered() {
        let mut drive = drive(Flushes::Honoured);
        drive.cut(&mut Random::new(1)).unwrap();
        assert!(matches!(drive.read(0, 1), Err(DriveError::PoweredOff)));
        assert!(matches!(drive.write(0, &[1]), Err(DriveError::PoweredOff)));
        assert!(matches!(drive.flush(), Err(DriveError::PoweredOff)));
        assert!(matches!(drive.cut(&mut Random::new(1)), Err(DriveError::PoweredOff)));
        drive.restore();
        assert_eq!(drive.read(0, 1).unwrap(), [0]);
    }

    #[test]
    fn an_armed_drive_loses_power_between_a_write_and_its_flush() {
        let mut drive = drive(Flushes::Honoured);
        drive.arm(Trigger::Writes(2), Random::new(1));
        drive.write(0, &[1; 512]).unwrap();
        drive.flush().unwrap();
        assert_eq!(drive.take_cut(), None);
        assert!(matches!(drive.write(512, &[1; 512]), Err(DriveError::PoweredOff)));
        assert!(matches!(drive.flush(), Err(DriveError::PoweredOff)));
        assert_eq!(drive.take_cut().map(|cut| cut.writes), Some(1));
        drive.restore();
        drive.write(0, &[1; 512]).unwrap();
        assert_eq!(drive.take_cut(), None);
        drive.arm(Trigger::Sector(b"head"), Random::new(1));
        drive.write(0, b"..head").unwrap();
        let mut bytes = [0; 1024];
        bytes[512..516].copy_from_slice(b"head");
        assert!(matches!(drive.write(0, &bytes), Err(DriveError::PoweredOff)));
        assert_eq!(drive.take_cut().map(|cut| cut.writes), Some(3));
    }

    #[test]
    fn reads_end_with_the_drive_and_writes_behind_it_are_refused() {
        let mut drive = drive(Flushes::Honoured);
        assert_eq!(drive.read(BYTES - 10, 4096).unwrap().len(), 10);
        assert_eq!(drive.read(BYTES + 10, 4096).unwrap().len(), 0);
        assert!(matches!(drive.write(BYTES - 1, &[1, 2]), Err(DriveError::Beyond)));
        assert!(matches!(drive.write(u64::MAX, &[1]), Err(DriveError::Beyond)));
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut drive =
            Drive::new(tempfile::tempfile().unwrap(), 2 * CACHE_BYTES_MAX, Flushes::Honoured).unwrap();
        for piece in 0..100 {
            drive.write(piece << 20, &vec![1; 1 << 20]).unwrap();
            assert!(drive.cached.len() <= CACHED_MAX);
        }
    }
}
