//! Where a run takes place: processor, memory, disk and revision, from `/proc`, `/sys` and git. What cannot be read is empty.

use std::fs::read_to_string;
use std::path::Path;
use std::process::{Command, Stdio};

use super::placement::Placement;
use crate::results::Machine;

/// Instructions that make a difference here.
const FEATURES: [&str; 9] = ["sha_ni", "aes", "vaes", "avx2", "avx512f", "avx512bw", "bmi2", "sha2", "asimd"];

/// Describes the machine; `disk` is a directory on what is measured.
pub(super) fn describe(placement: &Placement, disk: &Path, versions: Vec<String>) -> Machine {
    let processors = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let mounts = read_to_string("/proc/mounts").unwrap_or_default();
    let flags = value_of(&processors, &["flags", "Features"]).unwrap_or_default();
    let has = |feature: &&str| flags.split_ascii_whitespace().any(|flag| flag == *feature);
    Machine {
        processor: value_of(&processors, &["model name", "CPU part"]).unwrap_or("unknown").to_owned(),
        cores: placement.count(),
        kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        memory_bytes: memory_bytes(&memory),
        disk: disk_of(&mounts, &disk.canonicalize().unwrap_or_default()),
        features: FEATURES.iter().filter(|feature| has(feature)).map(|&feature| feature.to_owned()).collect(),
        versions,
        placement: placement.describe(),
    }
}

/// The commit, with `+` if files differ from it.
pub(super) fn revision() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|files| !files.is_empty());
    if changed { format!("{commit}+") } else { commit }
}

/// What is behind the colon of the first line that begins with one of `names`.
fn value_of<'a>(text: &'a str, names: &[&str]) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(|(name, _)| names.contains(&name.trim())).map(|(_, value)| value.trim()).next()
}

fn memory_bytes(text: &str) -> u64 {
    let kib = value_of(text, &["MemTotal"]).and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// File system and device of the mount that `path` is below.
fn disk_of(mounts: &str, path: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    let nearest = mounts.filter(|(_, at, _)| path.starts_with(at)).max_by_key(|(_, at, _)| at.len());
    nearest.map_or_else(String::new, |(device, _, kind)| format!("{kind} on {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_is_the_disk() {
        let mounts = "overlay / overlay rw 0 0\n/dev/vda1 /data ext4 rw 0 0\n/dev/vdb /data/in xfs rw 0 0\n";
        let of = |path: &str| disk_of(mounts, Path::new(path));
        assert_eq!(of("/data/lab"), "ext4 on /dev/vda1");
        assert_eq!(of("/data/in/lab"), "xfs on /dev/vdb");
        assert_eq!(of("/database"), "overlay on overlay");
    }

    #[test]
    fn this_machine_is_described() {
        let machine = describe(&Placement::here(), Path::new("."), vec!["x 1".to_owned()]);
        assert!(
            machine.cores >= 1 && machine.memory_bytes > 1 << 20 && !machine.kernel.is_empty(),
            "{machine:?}"
        );
        assert!(!machine.disk.is_empty() && !machine.placement.is_empty(), "{machine:?}");
        assert_eq!(memory_bytes("MemTotal:       24684392 kB\n"), 24_684_392 * 1024);
    }
}
