//! `zen-perf load` as a process of its own, so that its CPU is told apart and a core can be its own.
//!
//! In: what to send. Out: its phases as they begin, and its [`Load`]. A generator that ends early is an error with its last words.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::ChildStdout;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::file::Mix;
use super::placement::{Placement, Role};
use crate::error::LabError;
use crate::lab::{Lab, Process};
use crate::peers;
use crate::results::{self, Load};

/// Beyond what the phase itself takes: connections are made, answers are waited for.
const PHASE_MARGIN: Duration = Duration::from_mins(1);
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// One load.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    /// Bytes of a body, without a mix.
    pub(super) body_bytes: u64,
    /// Sizes that differ.
    pub(super) mix: Option<Mix>,
    /// At once.
    pub(super) connections: u32,
    /// One for each event.
    pub(super) new_connections: bool,
    /// Of all sendings.
    pub(super) duplicates_percent: u32,
    /// Events per second; `None` is a closed loop.
    pub(super) rate_per_s: Option<f64>,
    /// Before what is measured.
    pub(super) warm_up_s: u64,
    /// What is measured.
    pub(super) seconds: u64,
}

/// A load under way.
pub(super) struct Sender {
    process: Process,
    phases: mpsc::UnboundedReceiver<String>,
    json: PathBuf,
    length: Duration,
}

impl Sender {
    /// Starts it; call it on the main thread.
    pub(super) fn start(lab: &Lab, order: &Order, placement: &Placement) -> Result<Self, LabError> {
        let own = std::env::current_exe()
            .map_err(|source| LabError::Start { program: PathBuf::from("zen-perf"), source })?;
        let json = lab.directory.join("load.json");
        if json.exists() {
            std::fs::remove_file(&json).map_err(LabError::file(&json))?;
        }
        let arguments = arguments(lab, order, placement, &json);
        let arguments: Vec<_> = arguments.iter().map(OsString::as_os_str).collect();
        let (process, output) = Process::start_piped("load", &own, &arguments, &lab.log("load"), b"")?;
        let length = Duration::from_secs(order.seconds + order.warm_up_s);
        Ok(Self { process, phases: follow(output), json, length })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns when it says that `phase` begins.
    pub(super) async fn phase(&mut self, phase: &'static str) -> Result<(), LabError> {
        let deadline = self.length + PHASE_MARGIN;
        let line = format!("phase {phase}");
        let reached = async {
            while let Some(said) = self.phases.recv().await {
                if said == line {
                    return true;
                }
            }
            false
        };
        match timeout(deadline, reached).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.ended()),
            Err(_) => {
                Err(LabError::Late { what: "the load generator's next phase", seconds: deadline.as_secs() })
            }
        }
    }

    /// Waits for its end; what it saw.
    pub(super) async fn finish(mut self) -> Result<Load, LabError> {
        match self.process.wait(END_TIMEOUT).await {
            Some(status) if status.success() => {
                let load: Load = results::read(&self.json)?;
                // Results are published: where somebody keeps the source is nobody's business.
                let here = std::env::current_dir().map(|here| format!("{}/", here.display()));
                let command = load.command.replace(&here.unwrap_or_default(), "");
                Ok(Load { command, ..load })
            }
            Some(_) => Err(self.ended()),
            None => Err(LabError::Late { what: "the load generator's end", seconds: END_TIMEOUT.as_secs() }),
        }
    }

    fn ended(&mut self) -> LabError {
        LabError::Tool { what: "zen-perf load gave up".to_owned(), reason: self.process.log_tail() }
    }
}

fn arguments(lab: &Lab, order: &Order, placement: &Placement, json: &std::path::Path) -> Vec<OsString> {
    let mut all: Vec<OsString> =
        ["load", "--phases", "--quiet", "--key-exchange", "x25519"].map(OsString::from).to_vec();
    let mut option = |name: &str, value: OsString| all.extend([OsString::from(name), value]);
    option("--address", lab.public.to_string().into());
    option("--ca", lab.pki.public_ca().into());
    option("--endpoints", lab.directory.join("endpoints.json").into());
    // The one that every peer can check.
    option("--only", peers::endpoint(lab).id.into());
    option("--connections", order.connections.to_string().into());
    option("--warm-up-seconds", order.warm_up_s.to_string().into());
    option("--seconds", order.seconds.to_string().into());
    option("--json", json.into());
    match order.mix {
        Some(Mix::Github) => option("--mix", "github".into()),
        None => option("--size", order.body_bytes.to_string().into()),
    }
    if let Some(rate) = order.rate_per_s {
        option("--rate", format!("{rate:.0}").into());
    }
    if order.duplicates_percent > 0 {
        option("--duplicates", order.duplicates_percent.to_string().into());
    }
    if let [core, ..] = placement.of(Role::Sender) {
        option("--core", core.to_string().into());
    }
    if order.new_connections {
        all.extend(["--new-connections", "--no-resumption"].map(OsString::from));
    }
    all
}

/// Lines as they come; it ends with the process, which `Process` ends.
pub(super) fn follow(output: ChildStdout) -> mpsc::UnboundedReceiver<String> {
    let (lines, seen) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Shape;

    #[test]
    fn the_generator_is_asked_for_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::BENCH, 1).unwrap();
        let order = Order {
            body_bytes: 1024,
            mix: None,
            connections: 32,
            new_connections: true,
            duplicates_percent: 10,
            rate_per_s: Some(1234.4),
            warm_up_s: 1,
            seconds: 2,
        };
        let text = |order: &Order| {
            let all = arguments(&lab, order, &Placement::here(), "load.json".as_ref());
            all.into_iter().map(|one| one.into_string().unwrap()).collect::<Vec<_>>().join(" ")
        };
        let all = text(&order);
        for part in [
            "--connections 32",
            "--new-connections --no-resumption",
            "--rate 1234",
            "--duplicates 10",
            "--size 1024",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
        let mixed =
            text(&Order { mix: Some(Mix::Github), new_connections: false, rate_per_s: None, ..order });
        assert!(mixed.contains("--mix github") && !mixed.contains("--size"), "{mixed}");
        assert!(!mixed.contains("--new-connections") && !mixed.contains("--rate"), "{mixed}");
    }
}
