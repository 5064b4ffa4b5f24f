//! Who is at the other end of a connection, as the kernel says, and whether that stayed so.
//!
//! A number of a process can be given to another one, and a socket can be handed on. So lockd opens the caller's
//! directory in /proc, which never leads to another process, looks, and only then says the nonce that requests must
//! repeat; the kernel names the writer of each request; and lockd looks again before it answers.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::stat::{Mode, fstatat};

use crate::policy::{Executable, Identity};

/// Most bytes of a process's list of control groups.
const CGROUP_BYTES_MAX: u64 = 8192;

/// What the kernel says of whoever connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process; 0 if it is in a namespace of which lockd sees nothing.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Why a caller cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// It has ended: nobody is there who could be answered.
    #[error("the caller has ended")]
    Ended,
    /// The system does not tell.
    #[error("the caller cannot be looked at: {0}")]
    Io(#[from] io::Error),
}

/// A caller, held on to.
#[derive(Debug)]
pub struct Caller {
    /// Since the connection was made.
    pub credentials: Credentials,
    /// `/proc/PID`, of this process and no later one.
    process: OwnedFd,
}

impl Credentials {
    /// Whoever called connect(2) on the other end.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = getsockopt(stream, PeerCredentials)?;
        Ok(Self { pid: peer.pid(), uid: peer.uid(), gid: peer.gid() })
    }
}

impl Caller {
    /// Holds on to the process.
    pub fn hold(credentials: Credentials) -> Result<Self, CallerError> {
        let path = PathBuf::from(format!("/proc/{}", credentials.pid));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = nix::fcntl::open(&path, flags, Mode::empty());
        Ok(Self { credentials, process: opened.map_err(ended_or)? })
    }

    /// What it is now.
    pub fn look(&self) -> Result<Identity, CallerError> {
        let Credentials { uid, gid, .. } = self.credentials;
        Ok(Identity { uid, gid, executable: self.executable()?, unit: unit_of(&self.control_groups()?) })
    }

    /// None where lockd may not know.
    fn executable(&self) -> Result<Option<Executable>, CallerError> {
        let path = match readlinkat(&self.process, "exe") {
            Ok(path) => PathBuf::from(path),
            Err(Errno::EACCES | Errno::EPERM) => return Ok(None),
            Err(errno) => return Err(ended_or(errno)),
        };
        let runs = fstatat(&self.process, "exe", AtFlags::empty()).map_err(ended_or)?;
        let file = (runs.st_dev, runs.st_ino);
        Ok(Some(Executable { is_in_place: is_at(&path, file), path, file }))
    }

    fn control_groups(&self) -> Result<String, CallerError> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.process, "cgroup", flags, Mode::empty()).map_err(ended_or)?;
        let mut text = String::new();
        match File::from(file).take(CGROUP_BYTES_MAX).read_to_string(&mut text) {
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Err(CallerError::Ended),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(text),
        }
    }
}

/// Whether a path, as lockd sees it, leads to this file.
fn is_at(path: &Path, (device, inode): (u64, u64)) -> bool {
    std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (device, inode))
}

fn ended_or(errno: Errno) -> CallerError {
    match errno {
        Errno::ENOENT | Errno::ESRCH => CallerError::Ended,
        errno => CallerError::Io(errno.into()),
    }
}

/// The systemd unit in `/proc/PID/cgroup` (cgroups(7)): what is directly below the system's slices. What users'
/// own managers run is below `user.slice`, whatever they name it, and is none.
pub fn unit_of(cgroup: &str) -> Option<String> {
    let of = |controllers: &str| {
        let mut lines = cgroup.lines().map(|line| line.splitn(3, ':').skip(1));
        lines.find_map(|mut line| (line.next()? == controllers).then(|| line.next()).flatten())
    };
    let path = of("name=systemd").or_else(|| of(""))?;
    let mut parts = path.strip_prefix("/system.slice/")?.split('/');
    let unit = parts.find(|part| kind(part) != Some("slice"))?;
    is_unit(unit).then(|| unit.to_owned())
}

/// Whether a name is that of a service or a scope, which are what processes are in (systemd.unit(5)).
pub fn is_unit(name: &str) -> bool {
    matches!(kind(name), Some("service" | "scope"))
}

/// What follows the last dot.
fn kind(unit: &str) -> Option<&str> {
    unit.rsplit_once('.').map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_unit_is_what_the_system_manager_runs() {
        for (text, unit) in [
            ("0::/system.slice/zen.service\n", Some("zen.service")),
            ("0::/system.slice/zen.service/worker\n", Some("zen.service")),
            ("0::/system.slice/system-zen.slice/zen@1.service\n", Some("zen@1.service")),
            ("0::/system.slice/run-1.scope", Some("run-1.scope")),
            ("5:cpu:/\n1:name=systemd:/system.slice/zen.service\n0::/elsewhere\n", Some("zen.service")),
            ("1:name=systemd:/user.slice/a.service\n0::/system.slice/zen.service\n", None),
            ("0::/user.slice/user-1.slice/user@1.service/system.slice/zen.service\n", None),
            ("0::/../system.slice/zen.service\n", None),
            ("0::/system.slice/../zen.service\n", None),
            ("0::/system.slice\n", None),
            ("0::/system.slice/zen.service.d\n", None),
            ("2:a,name=systemd:/system.slice/zen.service\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of(text).as_deref(), unit, "{text:?}");
        }
    }

    #[test]
    fn a_process_is_held_on_to_when_its_number_is_free() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let credentials = Credentials { pid: child.id().cast_signed(), uid: 0, gid: 0 };
        let caller = Caller::hold(credentials).unwrap();
        let executable = caller.look().unwrap().executable.unwrap();
        assert!(executable.is_in_place && executable.path.ends_with("sleep"), "{executable:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(caller.look(), Err(CallerError::Ended)));
        assert!(matches!(Caller::hold(credentials), Err(CallerError::Ended)));
    }
}
