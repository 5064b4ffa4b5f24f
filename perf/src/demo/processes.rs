//! The demo's processes: zen-lockd first, then a target in Python, egress and ingester.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::ChildStdout;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::tour::DOWN_FILE;
use crate::error::LabError;
use crate::lab::{Kind, Lab, Process, Steps, TARGET_IDENTITY, Trust, Vault, wait_ready};
use crate::pki::write_file;

const TARGET_PROGRAM: &str = include_str!("../../demo_target.py");
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
const QUEUED_MAX: usize = 1024;

/// The processes, in the order in which they are stopped: ingester, egress and target; agent and control plane, if there
/// are some; zen-lockd.
pub(super) struct Processes(Vec<Process>);

/// What the target reads from its standard input.
#[derive(Serialize)]
struct TargetSecrets<'a> {
    private_key: &'a str,
    secrets: BTreeMap<&'a str, &'a str>,
}

impl Processes {
    /// Starts all and waits until they are ready; also what the target prints.
    pub(super) async fn start(
        lab: &Lab,
        (vault, trust): (&Vault, Option<&Trust>),
        (program, python): (&Path, &Path),
        steps: &mut Steps,
    ) -> Result<(Self, mpsc::Receiver<String>), LabError> {
        let mut lockd = vault.start()?;
        vault.wait_ready(&mut lockd).await?;
        let mut beside = Vec::new();
        if let Some(trust) = trust {
            let mut control = trust.start_control(lab)?;
            trust.enroll(lab, vault, &mut control, steps).await?;
            let mut agent = trust.start_agent(lab)?;
            trust.wait_published(lab, &mut agent).await?;
            steps.done("zen-agent has checked it and brought it to the nodes, with their certificates");
            beside.extend([agent, control]);
        }
        let (target, output) = start_target(lab, trust, python)?;
        let mut egress = lab.start(&lab.egresses[0], program)?;
        let mut ingester = lab.start(&lab.ingester, program)?;
        wait_ready(&lab.egresses[0], &mut egress).await?;
        wait_ready(&lab.ingester, &mut ingester).await?;
        steps.done("the nodes are ready");
        let all = [ingester, egress, target].into_iter().chain(beside).chain([lockd]);
        Ok((Self(all.collect()), read_lines(output)))
    }

    /// An error if one has ended.
    pub(super) fn check(&mut self) -> Result<(), LabError> {
        self.0.iter_mut().try_for_each(Process::check)
    }

    /// Drains all; names those that did not end well.
    pub(super) async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for process in &mut self.0 {
            match process.stop(DRAIN_TIMEOUT).await {
                Some(status) if status.success() => {}
                Some(status) => complaints.push(format!("{} ended with {status}", process.name)),
                None => complaints.push(format!(
                    "{} did not stop within {} s of SIGTERM and was killed",
                    process.name,
                    DRAIN_TIMEOUT.as_secs()
                )),
            }
        }
        complaints
    }

    /// The end of each log.
    pub(super) fn log_tails(&self) -> String {
        self.0.iter().map(Process::log_tail).collect::<Vec<_>>().join("\n")
    }

    /// All, in the order in which they are stopped.
    pub(super) fn all(&self) -> Vec<&Process> {
        self.0.iter().collect()
    }

    /// Their names, in that order.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|process| process.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Its secrets go through a pipe: they are in no file, argument or environment.
fn start_target(lab: &Lab, trust: Option<&Trust>, python: &Path) -> Result<(Process, ChildStdout), LabError> {
    let script = lab.directory.join("demo_target.py");
    write_file(&script, TARGET_PROGRAM.as_bytes(), 0o644)?;
    let listen = lab.target.to_string();
    let (certificate, bundle, key) = match trust {
        Some(trust) => trust.target()?,
        None => {
            let key = lab.secret(Kind::PrivateKey, TARGET_IDENTITY).as_bytes().to_vec();
            (lab.pki.certificate(TARGET_IDENTITY), lab.pki.bundle(), Zeroizing::new(key))
        }
    };
    let down = lab.directory.join(DOWN_FILE);
    let arguments: [&OsStr; 10] = [
        "-u".as_ref(),
        script.as_ref(),
        "--listen".as_ref(),
        listen.as_ref(),
        "--certificate".as_ref(),
        certificate.as_ref(),
        "--client-ca".as_ref(),
        bundle.as_ref(),
        "--flaky-down".as_ref(),
        down.as_ref(),
    ];
    let secrets = TargetSecrets {
        private_key: std::str::from_utf8(&key).expect("a key in PEM is text"),
        secrets: lab.targets.iter().map(|target| (target.name.as_str(), target.secret.as_str())).collect(),
    };
    let input = Zeroizing::new(serde_json::to_vec(&secrets).expect("texts are JSON"));
    Process::start_piped("target", python, &arguments, &lab.log("target"), &input)
}

/// The target's lines; its reader ends with the pipe.
fn read_lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(QUEUED_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
