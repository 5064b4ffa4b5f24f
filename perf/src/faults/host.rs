//! Faults of the node's machine: a disk that is full, a clock that steps.
//!
//! The disk is an ext4 image mounted for the node alone (unshare(1)), so nothing is left behind however a
//! run ends. The clock is libfaketime's, in front of `CLOCK_REALTIME` only; the monotonic clock is the machine's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::arena::{Running, seen_by};
use crate::error::LabError;
use crate::lab::{Lab, Node};
use crate::pki::write_file;

const DISK_BYTES: u64 = 192 * 1024 * 1024;
const BALLAST_PIECES: [usize; 2] = [1024 * 1024, 4096];
/// libfaketime looks at its file again after this.
pub(crate) const CLOCK_LATENCY: Duration = Duration::from_millis(1500);

/// A command that becomes a node whose `data_dir` is a small disk of its own.
pub(crate) fn on_small_disk(lab: &Lab, node: &Node) -> Result<Vec<OsString>, LabError> {
    let image = lab.directory.join(format!("{}.img", node.name));
    let file = File::create(&image).map_err(LabError::file(&image))?;
    file.set_len(DISK_BYTES).map_err(LabError::file(&image))?;
    let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).output();
    let made = made.map_err(|source| LabError::Start { program: "mkfs.ext4".into(), source })?;
    if !made.status.success() {
        let output = String::from_utf8_lossy(&made.stderr).into_owned();
        return Err(LabError::Failed { program: "mkfs.ext4", remedy: "is there room on the disk?", output });
    }
    let data_dir = lab.data_dir(node);
    fs::create_dir_all(&data_dir).map_err(LabError::file(&data_dir))?;
    // Root is needed; without it the node does not become ready, and its log says why.
    let script = "mount -o loop \"$0\" \"$1\" && shift && exec \"$@\"";
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    let mut command: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    command.extend([image.into_os_string(), data_dir.into_os_string()]);
    Ok(command)
}

/// A file that takes all the space that the disk of a node has left.
#[derive(Debug)]
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    /// Fills the disk under `running`'s journals.
    pub(crate) fn fill(lab: &Lab, running: &Running) -> Result<Self, LabError> {
        let path = seen_by(running, &lab.data_dir(&running.node)).join("ballast");
        let mut file = File::create(&path).map_err(LabError::file(&path))?;
        for piece in BALLAST_PIECES {
            let zeros = vec![0; piece];
            loop {
                match file.write_all(&zeros).and_then(|()| file.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(source) => return Err(LabError::File { path, source }),
                }
            }
        }
        Ok(Self(path))
    }

    /// Gives the space back.
    pub(crate) fn free(self) -> Result<(), LabError> {
        fs::remove_file(&self.0).map_err(LabError::file(&self.0))
    }
}

/// Where the clock of a node is set.
fn clock_file(lab: &Lab, node: &Node) -> PathBuf {
    lab.directory.join(format!("{}.clock", node.name))
}

/// A command that becomes a node whose wall clock can be set.
pub(crate) fn with_clock(lab: &Lab, node: &Node) -> Result<Vec<OsString>, LabError> {
    let own =
        fs::read_dir("/usr/lib").map_err(|source| LabError::File { path: "/usr/lib".into(), source })?;
    let library = own
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime/libfaketimeMT.so.1")))
        .find(|path| path.exists())
        .ok_or(LabError::Missing { what: "libfaketimeMT.so.1", package: "libfaketime" })?;
    set_clock(lab, node, 0)?;
    let set = |name: &str, value: OsString| {
        let mut word = OsString::from(name);
        word.push(value);
        word
    };
    Ok(vec![
        "env".into(),
        set("LD_PRELOAD=", library.into_os_string()),
        set("FAKETIME_TIMESTAMP_FILE=", clock_file(lab, node).into_os_string()),
        "FAKETIME_CACHE_DURATION=1".into(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".into(),
        "NO_FAKE_STAT=1".into(),
    ])
}

/// Steps the clock of a node to `offset_s` from the machine's.
pub(crate) fn set_clock(lab: &Lab, node: &Node, offset_s: i32) -> Result<(), LabError> {
    let path = clock_file(lab, node);
    let building = path.with_extension("new");
    write_file(&building, format!("{offset_s:+}\n").as_bytes(), 0o644)?;
    fs::rename(&building, &path).map_err(LabError::file(&path))
}

/// Removes, when dropped, what libfaketime leaves in shared memory if its process is killed.
#[derive(Debug)]
pub(crate) struct ClockTraces(Vec<u32>);

impl ClockTraces {
    /// Of these nodes.
    pub(crate) fn of(nodes: &[Running]) -> Self {
        Self(nodes.iter().map(|running| running.process.id()).collect())
    }
}

impl Drop for ClockTraces {
    fn drop(&mut self) {
        for (id, kind) in self.0.iter().flat_map(|id| [(id, "sem.faketime_sem"), (id, "faketime_shm")]) {
            // They are gone already if the node ended by itself.
            drop(fs::remove_file(format!("/dev/shm/{kind}_{id}")));
        }
    }
}
