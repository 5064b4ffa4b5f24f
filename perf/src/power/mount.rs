//! A [`Drive`] as a file: a FUSE file system with `disk` in it, so that a loop device or QEMU can use it.
//!
//! Reads and writes bypass the page cache (`FOPEN_DIRECT_IO`), `fsync(2)` and `fdatasync(2)` are the
//! drive's flush, and so is the end of a write under `O_SYNC` or `O_DSYNC`. One thread serves requests in
//! their order, so a flush covers every write that was answered before it. A drive without power
//! answers `EIO`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use nix::fcntl::OFlag;

use super::drive::{Drive, SECTOR_BYTES};

const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_hours(1);

/// A drive that others may use while it is cut.
pub(crate) type SharedDrive = Arc<Mutex<Drive>>;

/// Nothing panics while it holds a drive, so a poisoned lock is as good as any.
pub(crate) fn locked(drive: &SharedDrive) -> MutexGuard<'_, Drive> {
    drive.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mounted drive; unmounted when dropped.
pub(crate) struct DriveMount {
    /// The file that is the drive.
    pub(crate) disk: PathBuf,
    _session: BackgroundSession,
}

impl DriveMount {
    /// Mounts `drive` at the directory `point`, which is made.
    pub(crate) fn new(drive: &SharedDrive, point: &Path) -> io::Result<Self> {
        fs::create_dir_all(point)?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("zen-drive".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(DriveFiles(Arc::clone(drive)), point, &config)?;
        Ok(Self { disk: point.join(NAME), _session: session })
    }
}

struct DriveFiles(SharedDrive);

impl DriveFiles {
    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            DISK => (FileType::RegularFile, 0o600, locked(&self.0).bytes()),
            _ => return None,
        };
        Some(FileAttr {
            ino: inode,
            size,
            blocks: size / SECTOR_BYTES,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for DriveFiles {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = if parent == INodeNo::ROOT && name == NAME { self.attributes(DISK) } else { None };
        match disk {
            Some(attributes) => reply.entry(&TTL, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&TTL, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match locked(&self.0).read(offset, u64::from(size)) {
            Ok(bytes) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // O_SYNC contains O_DSYNC.
        let is_durable = OFlag::from_bits_retain(flags.0).contains(OFlag::O_DSYNC);
        let mut drive = locked(&self.0);
        let written = drive.write(offset, data);
        match written.and_then(|()| if is_durable { drive.flush() } else { Ok(()) }) {
            Ok(()) => reply.written(data.len() as u32),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // close(2) makes nothing durable.
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        match locked(&self.0).flush() {
            Ok(()) => reply.ok(),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        // No discard: whoever wants zeros writes them.
        reply.error(Errno::EOPNOTSUPP);
    }
}
