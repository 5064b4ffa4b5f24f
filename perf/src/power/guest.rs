//! The ingester as a machine of its own: Debian's kernel in QEMU, its disk a drive that loses power.
//!
//! `scripts/vm` builds and boots it. A cut takes the drive's power and kills QEMU in the same moment, so
//! the guest's memory is gone with its page cache; then it boots on the same disk. Egress and targets are
//! on the host. The guest listens on the lab's own ports, which QEMU forwards from 127.0.0.1.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::drive::{Cut, Flushes};
use super::volume::Disk;
use crate::crash::DRAIN_TIMEOUT;
use crate::error::LabError;
use crate::lab::{Lab, Node, Process, wait_ready};
use crate::pki::write_file;
use crate::random::Random;

const DRIVE_BYTES: u64 = 384 << 20;
const BOOT_SECONDS_MAX: u64 = 180;
const POLL: Duration = Duration::from_millis(50);
/// The guest says so on its console when its node answers `/readyz`.
const READY: &str = "guest: ready";
/// Where the lab's files are in the guest.
const GUEST_LAB: &str = "/lab";

/// A guest, and the egress on the host.
pub(super) struct GuestSite {
    vm: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    log: PathBuf,
    ingester: Node,
    guest: Process,
    egresses: Vec<Process>,
    disk: Disk,
    cuts: u32,
    boots: Vec<Duration>,
}

impl GuestSite {
    /// Builds the guest, boots it on an empty disk and starts the egress.
    pub(super) async fn start(
        lab: &Lab,
        vm: &Path,
        program: &Path,
        initramfs: &Path,
        flushes: Flushes,
    ) -> Result<Self, LabError> {
        pack(lab, vm, initramfs)?;
        let disk = Disk::new(&lab.directory, &lab.ingester.name, DRIVE_BYTES, flushes)?;
        let arguments = boot_arguments(lab, initramfs, disk.path());
        let mut egresses = Vec::new();
        for node in &lab.egresses {
            let mut process = lab.start(node, program)?;
            wait_ready(node, &mut process).await?;
            egresses.push(process);
        }
        let log = lab.log(&lab.ingester.name);
        let guest = spawn(&lab.ingester, vm, &arguments, &log)?;
        let mut site = Self {
            vm: vm.to_owned(),
            arguments,
            log,
            ingester: lab.ingester.clone(),
            guest,
            egresses,
            disk,
            cuts: 0,
            boots: Vec::new(),
        };
        site.wait_booted(Instant::now()).await?;
        Ok(site)
    }

    /// An error if the guest or an egress has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), LabError> {
        self.guest.check()?;
        self.egresses.iter_mut().try_for_each(Process::check)
    }

    /// Takes the power from the guest, now, and boots it again; what its drive lost.
    pub(super) async fn cut(&mut self, random: &mut Random) -> Result<Cut, LabError> {
        let lost = match random.below(2) {
            0 => self.disk.cut_at_write(random).await?,
            _ => self.disk.cut(random)?,
        };
        self.guest.kill();
        self.cuts += 1;
        self.disk.restore();
        let begun = Instant::now();
        self.guest = spawn(&self.ingester, &self.vm, &self.arguments, &self.log)?;
        self.wait_booted(begun).await?;
        Ok(lost)
    }

    /// Stops the egress, ends the guest and checks its file system; what did not go well.
    pub(super) async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for process in &mut self.egresses {
            if !process.stop(DRAIN_TIMEOUT).await.is_some_and(|status| status.success()) {
                complaints.push(format!("{} did not stop well on SIGTERM", process.name));
            }
        }
        self.guest.kill();
        let checked = self.disk.replay().and_then(|()| self.disk.check());
        complaints.extend(checked.err().map(|error| error.to_string()));
        complaints
    }

    /// Cuts of the guest.
    pub(super) fn cuts(&self) -> Vec<(String, u32)> {
        vec![(self.ingester.name.clone(), self.cuts)]
    }

    /// Shortest and longest time from QEMU's start to a ready node.
    pub(super) fn boot_times(&self) -> (Duration, Duration) {
        let shortest = self.boots.iter().min().copied().unwrap_or_default();
        (shortest, self.boots.iter().max().copied().unwrap_or_default())
    }

    /// The end of each log.
    pub(super) fn logs(&self) -> String {
        let processes = std::iter::once(&self.guest).chain(&self.egresses);
        processes.map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }

    async fn wait_booted(&mut self, begun: Instant) -> Result<(), LabError> {
        while begun.elapsed() < Duration::from_secs(BOOT_SECONDS_MAX) {
            self.guest.check()?;
            // One line a boot: the log is never begun anew.
            let console = fs::read(&self.log).map_err(LabError::file(&self.log))?;
            if String::from_utf8_lossy(&console).matches(READY).count() > self.boots.len() {
                self.boots.push(begun.elapsed());
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(LabError::Tool {
            what: format!("the guest is not ready after {BOOT_SECONDS_MAX} s"),
            reason: self.guest.log_tail(),
        })
    }
}

fn spawn(node: &Node, vm: &Path, arguments: &[std::ffi::OsString], log: &Path) -> Result<Process, LabError> {
    let arguments: Vec<&OsStr> = arguments.iter().map(std::ffi::OsString::as_os_str).collect();
    Process::start(&node.name, vm, &arguments, log)
}

/// Builds the guest's first file system, without anything of a lab.
pub(super) fn build(vm: &Path, program: &Path, initramfs: &Path) -> Result<(), LabError> {
    run(
        vm,
        &["build".as_ref(), "--node".as_ref(), program.as_os_str(), "--out".as_ref(), initramfs.as_os_str()],
    )
}

/// Adds what the ingester reads to the guest's first file system.
fn pack(lab: &Lab, vm: &Path, initramfs: &Path) -> Result<(), LabError> {
    let files = lab.directory.join("guest");
    copy_lab(lab, &files.join(&GUEST_LAB[1..]))?;
    run(
        vm,
        &["pack".as_ref(), "--files".as_ref(), files.as_os_str(), "--into".as_ref(), initramfs.as_os_str()],
    )
}

fn run(vm: &Path, arguments: &[&OsStr]) -> Result<(), LabError> {
    let mut command = Command::new(vm);
    command.args(arguments);
    let failed = |source| LabError::Start { program: vm.to_owned(), source };
    let output = command.output().map_err(failed)?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(LabError::Tool { what: format!("{command:?}"), reason });
    }
    Ok(())
}

fn boot_arguments(lab: &Lab, initramfs: &Path, disk: &Path) -> Vec<std::ffi::OsString> {
    let name = &lab.ingester.name;
    let mut arguments: Vec<std::ffi::OsString> = vec!["boot".into(), "--initramfs".into(), initramfs.into()];
    arguments.extend(["--disk".into(), disk.into()]);
    for port in [lab.public.port(), lab.links[0].port()] {
        arguments.extend(["--forward".into(), port.to_string().into()]);
    }
    let set = |key: &str, value: String| ["--set".into(), format!("{key}={value}").into()];
    arguments.extend(set("ZEN_DATA", format!("{GUEST_LAB}/{name}")));
    arguments.extend(set("ZEN_CONFIG", format!("{GUEST_LAB}/{name}.toml")));
    arguments.extend(set("ZEN_READY", format!("http://{}/readyz", lab.ingester.admin)));
    arguments
}

/// Copies what the ingester reads to `files`, its configuration changed for the guest.
fn copy_lab(lab: &Lab, files: &Path) -> Result<(), LabError> {
    for directory in ["pki", "secrets"] {
        let to = files.join(directory);
        fs::create_dir_all(&to).map_err(LabError::file(&to))?;
        let from = lab.directory.join(directory);
        for entry in fs::read_dir(&from).map_err(LabError::file(&from))? {
            let path = entry.map_err(LabError::file(&from))?.path();
            let name = path.file_name().expect("an entry has a name");
            fs::copy(&path, to.join(name)).map_err(LabError::file(&path))?;
        }
    }
    let config = fs::read_to_string(&lab.ingester.config).map_err(LabError::file(&lab.ingester.config))?;
    let directory = lab.directory.to_string_lossy();
    let name = format!("{}.toml", lab.ingester.name);
    write_file(&files.join(name), guest_config(&config, &directory).as_bytes(), 0o644)
}

/// QEMU forwards to the guest's own address, not to its loopback, which stays for the admin port.
fn guest_config(config: &str, directory: &str) -> String {
    let mut text = String::new();
    let mut section = "";
    for line in config.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let is_listener = section == "[ingester]" && line.contains("listen = ");
        let line = if is_listener { line.replace("127.0.0.1", "0.0.0.0") } else { line.to_owned() };
        text += &line.replace(directory, GUEST_LAB);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_listens_where_qemu_forwards_to_and_its_admin_port_stays_local() {
        let config = "[node]\ndata_dir = \"/a/lab/edge-1\"\n[admin]\nlisten = \"127.0.0.1:1\"\n\
                      [ingester]\nlisten = [\"127.0.0.1:2\"]\nlink_listen = \"127.0.0.1:3\"\n";
        let wanted = "[node]\ndata_dir = \"/lab/edge-1\"\n[admin]\nlisten = \"127.0.0.1:1\"\n\
                      [ingester]\nlisten = [\"0.0.0.0:2\"]\nlink_listen = \"0.0.0.0:3\"\n";
        assert_eq!(guest_config(config, "/a/lab"), wanted);
    }
}
