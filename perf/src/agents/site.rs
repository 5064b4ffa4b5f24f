//! The control plane under test: its directory, its process, what an operator does to it, and what it costs.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use serde_json::json;
use zen_control_api::EnrollmentBundle;

use super::tls::Authorities;
use crate::error::LabError;
use crate::lab::{Process, beside, claim};
use crate::pki::{TRUST_DOMAIN, write_file};

const CONTROL: &str = "zen-control";
const LISTEN: &str = "127.0.0.1:20444";
const PEOPLE_LISTEN: &str = "127.0.0.1:20445";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS_MAX: u32 = 10;
const POLL: Duration = Duration::from_millis(20);
/// `/proc` counts in ticks of 1/100 s on every Linux architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The directory and the program.
pub(super) struct Site {
    directory: PathBuf,
    program: PathBuf,
    pub(super) address: SocketAddr,
    _lock: Option<Flock<File>>,
}

/// What a process has cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Seconds on a processor, of user and system.
    pub(super) cpu_s: f64,
    /// Resident, MiB.
    pub(super) resident_mib: f64,
    /// The most that it was, MiB.
    pub(super) peak_mib: f64,
}

impl Site {
    /// A new control plane without clusters.
    pub(super) fn make(directory: &Path, program: Option<&Path>) -> Result<Self, LabError> {
        let (directory, lock) = claim(directory)?;
        let program = match program {
            None => beside(CONTROL)?,
            Some(named) => named
                .canonicalize()
                .map_err(|source| LabError::Start { program: named.to_owned(), source })?,
        };
        let address = LISTEN.parse().expect("an address");
        let site = Self { directory, program, address, _lock: Some(lock) };
        site.order(&["init"], &["--trust-domain", TRUST_DOMAIN, "--tenant", "acme"])?;
        Ok(site)
    }

    /// The control plane of a lab, which runs already; bundles go to the lab's directory.
    pub(super) fn of_lab(directory: &Path, address: SocketAddr) -> Result<Self, LabError> {
        Ok(Self { directory: directory.to_owned(), program: beside(CONTROL)?, address, _lock: None })
    }

    /// Roots that its agents know.
    pub(super) fn authorities(&self) -> Result<Arc<Authorities>, LabError> {
        let named = ["roots.pem", "root.pem"].map(|name| self.state().join(name));
        let path = named.iter().find(|path| path.exists()).unwrap_or(&named[0]);
        Authorities::new(&fs::read(path).map_err(LabError::file(path))?)
    }

    /// Starts it, and waits until it listens; call it on the main thread.
    pub(super) async fn start(&self) -> Result<Process, LabError> {
        let (state, listen) = (self.state(), self.address.to_string());
        let arguments = [
            "run".as_ref(),
            "--dir".as_ref(),
            state.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--people-listen".as_ref(),
            PEOPLE_LISTEN.as_ref(),
        ];
        let log = self.directory.join("zen-control.log");
        let mut process = Process::start(CONTROL, &self.program, &arguments, &log)?;
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            process.check()?;
            if begun.elapsed() > READY_TIMEOUT {
                return Err(process.not_ready());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(process)
    }

    /// A cluster with a configuration of one member, and its bundle.
    pub(super) fn add_cluster(&self, cluster: &str) -> Result<EnrollmentBundle, LabError> {
        let out = self.directory.join(format!("{cluster}.bundle"));
        let url = format!("https://{}", self.address);
        let options =
            ["--cluster", cluster, "--ttl", "24h", "--url", &url, "--out", &out.display().to_string()];
        self.order(&["bundle", "create"], &options)?;
        let bundle = EnrollmentBundle::decode(&fs::read(&out).map_err(LabError::file(&out))?);
        self.configure(cluster)?;
        bundle.map_err(|error| LabError::Tool {
            what: "an enrollment bundle".to_owned(),
            reason: error.to_string(),
        })
    }

    /// The cluster's next configuration.
    pub(super) fn configure(&self, cluster: &str) -> Result<(), LabError> {
        let id = format!("spiffe://{TRUST_DOMAIN}/{cluster}/node-1");
        let node = include_str!("node.toml");
        let input = json!({"members": {"node-1": {"spiffe_id": id, "node": node}}}).to_string();
        let path = self.directory.join(format!("{cluster}.json"));
        write_file(&path, input.as_bytes(), 0o644)?;
        self.order(&["configuration", "set"], &["--cluster", cluster, &path.display().to_string()])
    }

    /// Denies an identity.
    pub(super) fn deny(&self, spiffe_id: &str) -> Result<(), LabError> {
        self.order(&["deny"], &["--spiffe-id", spiffe_id])
    }

    /// Takes that back.
    pub(super) fn allow(&self, spiffe_id: &str) -> Result<(), LabError> {
        self.order(&["allow"], &["--spiffe-id", spiffe_id])
    }

    /// Commands wait 5 s for each other; on a machine that does other work as well that may be too short.
    fn order(&self, command: &[&str], options: &[&str]) -> Result<(), LabError> {
        let started = |source| LabError::Start { program: self.program.clone(), source };
        let mut attempts = 0;
        loop {
            let mut process = Command::new(&self.program);
            process.args(command).arg("--dir").arg(self.state()).args(options).stdin(Stdio::null());
            let output = process.output().map_err(started)?;
            if output.status.success() {
                return Ok(());
            }
            attempts += 1;
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if attempts == ATTEMPTS_MAX || !reason.ends_with("database is locked") {
                return Err(LabError::Tool { what: format!("zen-control {}", command.join(" ")), reason });
            }
        }
    }

    fn state(&self) -> PathBuf {
        self.directory.join("control")
    }
}

impl Cost {
    /// Of a process, as it is now.
    pub(super) fn of(process: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
        let (stat, status) = (read("stat"), read("status"));
        // The name may have spaces in it; the fields after it are those of proc(5).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(0.0) / 1024.0
        };
        Self {
            cpu_s: (ticks(11) + ticks(12)) / TICKS_PER_SECOND,
            resident_mib: mib("VmRSS:"),
            peak_mib: mib("VmHWM:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let cost = Cost::of(std::process::id());
        assert!(cost.resident_mib > 0.1 && cost.peak_mib >= cost.resident_mib, "{cost:?}");
    }
}
