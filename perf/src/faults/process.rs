//! What a node uses, read from /proc: peak and present memory, and descriptors (proc(5)).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::error::LabError;

const BOUND_PREFIX: &str = "memory: at most ";

/// Resident memory of a process, KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) resident_kib: u64,
    /// The most since its start.
    pub(crate) peak_kib: u64,
}

impl Memory {
    /// Of the process `id`; zeros if it is gone.
    pub(crate) fn of(id: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        Self { resident_kib: field_kib(&status, "VmRSS:"), peak_kib: field_kib(&status, "VmHWM:") }
    }
}

fn field_kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Open descriptors of the process `id`.
pub(crate) fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

/// The memory bound that the node computes from its configuration, KiB.
pub(crate) fn memory_bound_kib(program: &Path, config: &Path) -> Result<u64, LabError> {
    let failed = |source| LabError::Start { program: program.to_owned(), source };
    let output = Command::new(program).arg("--config").arg(config).arg("--check-config").output();
    let output = output.map_err(failed)?;
    parse_bound_kib(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| LabError::Failed {
        program: "zen-dataplane --check-config",
        remedy: "it must accept the lab's configuration and name its memory bound",
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// From a line such as `memory: at most 310 MiB (limit 512 MiB)`.
fn parse_bound_kib(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(BOUND_PREFIX))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let held = vec![1_u8; 32 * 1024 * 1024];
        let memory = Memory::of(std::process::id());
        assert!(memory.resident_kib >= 32 * 1024, "{memory:?}, {}", held.len());
        assert!(memory.peak_kib >= memory.resident_kib);
        assert!(descriptors(std::process::id()) > 2);
        assert_eq!((Memory::of(u32::MAX).peak_kib, descriptors(u32::MAX)), (0, 0));
    }

    #[test]
    fn the_bound_is_found_or_not() {
        let text = "ok\nmemory: at most 310 MiB (limit 512 MiB)\n";
        assert_eq!(parse_bound_kib(text), Some(310 * 1024));
        assert_eq!(parse_bound_kib("configuration is good\n"), None);
    }
}
