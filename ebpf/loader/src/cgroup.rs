//! The node's own cgroup: programs there see its sockets and nobody else's.
//!
//! A process that is alone in its cgroup v2 has it to itself: a service, a container. Any other makes a child beside its siblings
//! and moves there. Works where version 2 is mounted alone, beside version 1, and in a cgroup namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::programs::CgroupAttachMode;

/// No flag: a link to a cgroup always shares it with the links of others.
pub(crate) const ATTACH_MODE: CgroupAttachMode = CgroupAttachMode::Single;
/// Children that nodes make begin with this; the number of the process follows.
const CHILD: &str = "zen-dataplane-";

/// Why there is no cgroup. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No hierarchy of version 2.
    #[error("no cgroup v2 is mounted; mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NotMounted,
    /// This process is in none that can be seen.
    #[error(
        "this process's cgroup {path} is not below a mounted cgroup v2; start the node in a cgroup namespace that has it"
    )]
    NotVisible {
        /// As the kernel says it.
        path: String,
    },
    /// It cannot be moved to one of its own.
    #[error(
        "the cgroup {path} has other processes in it, and a child for the node cannot be made: {source}; run as root, mount cgroup v2 \
         writable, or start the node alone in a cgroup (a service or a container)"
    )]
    NoChild {
        /// The cgroup of now.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the kernel cannot be read.
    #[error("{path}: {source}; mount /proc and the cgroup v2 hierarchy")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory of the cgroup hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    directory: File,
    path: PathBuf,
}

impl Cgroup {
    /// The one that this process has to itself, after a move if that is needed. Before any socket is made: those keep
    /// the cgroup in which they were.
    pub fn join() -> Result<Self, CgroupError> {
        let current = current()?;
        remove_left_behind(&current);
        let path = if is_alone(&current)? { current } else { move_to_child(&current)? };
        let directory = read(&path, File::open(&path))?;
        Ok(Self { directory, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn current() -> Result<PathBuf, CgroupError> {
    let (memberships, mounts) = ("/proc/self/cgroup", "/proc/self/mountinfo");
    let memberships = read(Path::new(memberships), fs::read_to_string(memberships))?;
    let mounts = read(Path::new(mounts), fs::read_to_string(mounts))?;
    directory(&memberships, &mounts)
}

/// The directory of the v2 cgroup, from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo` (proc(5)).
fn directory(memberships: &str, mounts: &str) -> Result<PathBuf, CgroupError> {
    let own = memberships.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NotMounted)?;
    let hierarchies: Vec<(&str, &str)> = mounts.lines().filter_map(hierarchy).collect();
    if hierarchies.is_empty() {
        return Err(CgroupError::NotMounted);
    }
    let below = |(root, point): &(&str, &str)| {
        let inner = Path::new(own).strip_prefix(root).ok()?;
        Some(Path::new(point).join(inner))
    };
    let found = hierarchies.iter().find_map(below);
    found.ok_or_else(|| CgroupError::NotVisible { path: own.to_owned() })
}

/// Root and mount point of a line, if it is a hierarchy of version 2.
fn hierarchy(line: &str) -> Option<(&str, &str)> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    filesystem.starts_with("cgroup2 ").then_some((root, point))
}

fn is_alone(path: &Path) -> Result<bool, CgroupError> {
    let processes = path.join("cgroup.procs");
    let text = read(&processes, fs::read_to_string(&processes))?;
    // A process of another namespace is listed as 0.
    let own = std::process::id().to_string();
    Ok(text.lines().all(|line| line == own))
}

fn move_to_child(current: &Path) -> Result<PathBuf, CgroupError> {
    let child = current.join(format!("{CHILD}{}", std::process::id()));
    let moved = match fs::create_dir(&child) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => fs::write(child.join("cgroup.procs"), "0"),
    };
    match moved {
        Ok(()) => Ok(child),
        Err(source) => Err(CgroupError::NoChild { path: current.display().to_string(), source }),
    }
}

/// A node that ended could not remove its own; only an empty one can be.
fn remove_left_behind(current: &Path) {
    let Ok(entries) = fs::read_dir(current) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(CHILD));
        // One that is being made is empty, too.
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn read<T>(path: &Path, result: io::Result<T>) -> Result<T, CgroupError> {
    result.map_err(|source| CgroupError::Read { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "25 20 0:23 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
        27 25 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
    const PURE: &str = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HOST_MOUNT: &str = "40 20 0:26 /system.slice/pod /sys/fs/cgroup ro - cgroup2 cgroup rw\n";

    #[test]
    fn the_cgroup_is_found_wherever_it_is_mounted() {
        for (memberships, mounts, expected) in [
            ("0::/user.slice/session-1.scope\n", PURE, "/sys/fs/cgroup/user.slice/session-1.scope"),
            ("5:cpu:/a\n1:name=systemd:/b\n0::/c\n", HYBRID, "/sys/fs/cgroup/unified/c"),
            ("0::/\n", PURE, "/sys/fs/cgroup/"),
            ("0::/system.slice/pod/node\n", HOST_MOUNT, "/sys/fs/cgroup/node"),
        ] {
            assert_eq!(directory(memberships, mounts).unwrap(), Path::new(expected), "{memberships}");
        }
    }

    #[test]
    fn without_version_2_the_remedy_is_named() {
        let only_v1 = "27 25 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        for (memberships, mounts) in [("5:cpu:/a\n", HYBRID), ("0::/c\n", only_v1), ("", "")] {
            assert!(matches!(directory(memberships, mounts), Err(CgroupError::NotMounted)), "{memberships}");
        }
        let elsewhere = directory("0::/other\n", HOST_MOUNT);
        assert!(matches!(elsewhere, Err(CgroupError::NotVisible { path }) if path == "/other"));
    }
}
