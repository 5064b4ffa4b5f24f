//! An ext4 file system on a drive that loses power: drive, FUSE file, loop device and mount.
//!
//! Mounts live in this process's own mount namespace ([`enter_namespace`]) and loop devices detach with
//! their mount, so the kernel clears up whatever way the process ends. After a cut the file system is
//! mounted once for its journal to be replayed, checked with `e2fsck -fn`, and mounted for use.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::drive::{Cut, Drive, Flushes, Trigger};
use super::mount::{DriveMount, SharedDrive, locked};
use crate::error::LabError;
use crate::random::Random;

/// A killed process's last requests may hold a mount for a moment.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cut waits for writes to come between.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
/// One of so many, so that both commits in flight and those of the file system are met.
const WRITES_MAX: u64 = 8;
/// How a segment's header begins (`docs/journal-format.md`).
const SEGMENT_MAGIC: &[u8] = b"ZENJRNL1";
const WRITE_POLL: Duration = Duration::from_millis(1);
const UNMOUNT_PAUSE: Duration = Duration::from_millis(5);

/// A mount namespace of this process's own; call it before any thread is started that should be in it.
pub(crate) fn enter_namespace() -> Result<(), LabError> {
    let failed = |errno: Errno| LabError::Tool {
        what: "cannot make a mount namespace, for which it takes root (CAP_SYS_ADMIN)".to_owned(),
        reason: errno.to_string(),
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed)
}

/// A drive with an empty ext4 on it, as a file that is not mounted yet.
pub(crate) struct Disk {
    drive: SharedDrive,
    mount: DriveMount,
}

impl Disk {
    /// Makes `<directory>/<name>.image` and mounts it as the file `<directory>/<name>.drive/disk`.
    pub(crate) fn new(directory: &Path, name: &str, bytes: u64, flushes: Flushes) -> Result<Self, LabError> {
        let image = directory.join(format!("{name}.image"));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&image);
        let drive = file.and_then(|file| Drive::new(file, bytes, flushes)).map_err(LabError::file(&image))?;
        let drive = Arc::new(Mutex::new(drive));
        let point = directory.join(format!("{name}.drive"));
        let mount = DriveMount::new(&drive, &point).map_err(|error| LabError::Tool {
            what: format!(
                "cannot mount a FUSE file system at {} (it takes root and /dev/fuse)",
                point.display()
            ),
            reason: error.to_string(),
        })?;
        let disk = Self { drive, mount };
        let format = ["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"];
        run("mkfs.ext4", format.iter().map(OsStr::new).chain([disk.path().as_os_str()]))?;
        Ok(disk)
    }

    /// The file that is the drive.
    pub(crate) fn path(&self) -> &Path {
        &self.mount.disk
    }

    /// Takes the power away.
    pub(crate) fn cut(&self, random: &mut Random) -> Result<Cut, LabError> {
        locked(&self.drive).cut(random).map_err(|error| LabError::Tool {
            what: format!("cannot cut {}", self.path().display()),
            reason: error.to_string(),
        })
    }

    /// As [`Self::cut`], between one of the next writes and its flush; at the deadline if none comes.
    ///
    /// A third of these cuts hit the preparing of a segment, the others any write.
    pub(crate) async fn cut_at_write(&self, random: &mut Random) -> Result<Cut, LabError> {
        let writes = 1 + random.below(WRITES_MAX);
        let trigger =
            if random.below(3) == 0 { Trigger::Sector(SEGMENT_MAGIC) } else { Trigger::Writes(writes) };
        locked(&self.drive).arm(trigger, Random::new(random.next()));
        let begun = Instant::now();
        while begun.elapsed() < WRITE_TIMEOUT {
            if let Some(cut) = locked(&self.drive).take_cut() {
                return Ok(cut);
            }
            tokio::time::sleep(WRITE_POLL).await;
        }
        let late = locked(&self.drive).take_cut();
        late.map_or_else(|| self.cut(random), Ok)
    }

    /// Gives the power back; whoever used the drive must be gone.
    pub(crate) fn restore(&self) {
        locked(&self.drive).restore();
    }

    /// Fails with what `e2fsck -fn` has to say if the file system is not clean.
    pub(crate) fn check(&self) -> Result<(), LabError> {
        run("e2fsck", ["-fn".as_ref(), self.path().as_os_str()])
    }

    /// Replays the file system's journal without mounting it.
    pub(crate) fn replay(&self) -> Result<(), LabError> {
        run("e2fsck", ["-E", "journal_only", "-p"].iter().map(OsStr::new).chain([self.path().as_os_str()]))
    }
}

/// A [`Disk`], mounted through a loop device.
pub(crate) struct Volume {
    disk: Disk,
    point: PathBuf,
}

impl Volume {
    /// Makes a disk and mounts it at the directory `point`, which is made.
    pub(crate) fn new(disk: Disk, point: &Path) -> Result<Self, LabError> {
        fs::create_dir_all(point).map_err(LabError::file(point))?;
        let volume = Self { disk, point: point.to_owned() };
        volume.mount()?;
        Ok(volume)
    }

    /// The disk under it; kill whoever uses the file system in the moment in which that is cut.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Unmounts what is left, gives the power back, replays, checks and mounts.
    pub(crate) fn recover(&self) -> Result<(), LabError> {
        self.unmount()?;
        self.disk.restore();
        self.replay_and_check().map_err(|error| LabError::FileSystem(Box::new(error)))?;
        self.mount()
    }

    /// Unmounts and checks; whoever used the file system must be gone.
    pub(crate) fn close(&self) -> Result<(), LabError> {
        self.unmount()?;
        self.disk.check()
    }

    fn replay_and_check(&self) -> Result<(), LabError> {
        self.mount()?;
        self.unmount()?;
        self.disk.check()
    }

    fn mount(&self) -> Result<(), LabError> {
        let options = ["-t", "ext4", "-o", "loop,noatime"].map(OsStr::new);
        run("mount", options.into_iter().chain([self.disk.path().as_os_str(), self.point.as_os_str()]))
    }

    fn unmount(&self) -> Result<(), LabError> {
        let begun = Instant::now();
        while let Err(errno) = umount2(&self.point, MntFlags::empty()) {
            if errno != Errno::EBUSY || begun.elapsed() > UNMOUNT_TIMEOUT {
                let what = format!("cannot unmount {}", self.point.display());
                return Err(LabError::Tool { what, reason: errno.to_string() });
            }
            std::thread::sleep(UNMOUNT_PAUSE);
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The namespace goes with the process; until then its mount must not keep the drive.
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}

/// Runs a system tool, quiet unless it fails.
fn run<A: AsRef<OsStr>>(tool: &str, arguments: impl IntoIterator<Item = A>) -> Result<(), LabError> {
    let mut command = Command::new(tool);
    // Minimal environments of root have no /sbin in their path.
    command.args(arguments).stdin(Stdio::null()).env("PATH", "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
    let output = command
        .output()
        .map_err(|error| LabError::Tool { what: format!("cannot run {tool}"), reason: error.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let reason = format!("{}\n{}", output.status, String::from_utf8_lossy(&text).trim());
    Err(LabError::Tool { what: format!("{command:?}"), reason })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};

    use nix::libc;

    use super::*;

    const BYTES: u64 = 32 << 20;
    const BLOCK: usize = 4096;

    /// Overwrites a prepared file's first block durably, as a journal does, and its second one not.
    fn overwrite(point: &Path) {
        let path = point.join("journal");
        let durable = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).open(&path).unwrap();
        durable.write_all_at(&[1; BLOCK], 0).unwrap();
        let lazy = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let mut aligned = vec![0_u8; 2 * BLOCK];
        let start = aligned.as_ptr().align_offset(BLOCK);
        aligned[start..start + BLOCK].fill(2);
        lazy.write_all_at(&aligned[start..start + BLOCK], BLOCK as u64).unwrap();
    }

    /// Cuts the power behind [`overwrite`]; how often the durable block and the other one were lost.
    fn lost_of(cuts: u64, flushes: Flushes) -> (u32, u32) {
        enter_namespace().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path(), "a", BYTES, flushes).unwrap();
        let volume = Volume::new(disk, &directory.path().join("mounted")).unwrap();
        let path = volume.point.join("journal");
        let (mut durable_lost, mut lazy_lost) = (0, 0);
        for seed in 0..cuts {
            let mut file = File::create(&path).unwrap();
            file.write_all(&[0; 4 * BLOCK]).unwrap();
            file.sync_all().unwrap();
            drop(file);
            overwrite(&volume.point);
            volume.disk().cut(&mut Random::new(seed)).unwrap();
            assert!(File::create(volume.point.join("new")).and_then(|file| file.sync_all()).is_err());
            if let Err(error) = volume.recover() {
                assert_eq!(flushes, Flushes::Ignored, "{error}");
                return (durable_lost + 1, lazy_lost + 1);
            }
            let bytes = fs::read(&path).unwrap_or_default();
            durable_lost += u32::from(bytes.get(..BLOCK) != Some(&[1; BLOCK]));
            lazy_lost += u32::from(bytes.get(BLOCK..2 * BLOCK) != Some(&[2; BLOCK]));
        }
        (durable_lost, lazy_lost)
    }

    #[test]
    fn flushes_pass_through_loop_and_fuse_and_nothing_else_is_kept() {
        let (durable_lost, lazy_lost) = lost_of(8, Flushes::Honoured);
        assert_eq!(durable_lost, 0);
        assert!(lazy_lost > 0, "the drive lost nothing that it may lose");
    }

    #[test]
    fn a_drive_that_ignores_flushes_loses_durable_writes() {
        assert!(lost_of(8, Flushes::Ignored).0 > 0);
    }
}
