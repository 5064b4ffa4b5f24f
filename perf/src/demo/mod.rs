//! The `demo` command: ingester, egress and a target in Python, with sample webhooks shown as they arrive.
//!
//! Runs until Ctrl-C, which drains and stops all. With `--check` it sends a number of events, requires each
//! at the target with its body and a signature that an independent library verifies, and exits with the
//! verdict.

mod screen;
mod tour;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use self::screen::Screen;
use self::tour::Tour;
use crate::error::LabError;
use crate::lab::{Io, Lab, Metrics, Process, Shape, TARGET_IDENTITY, node_program, wait_ready};
use crate::load::{LoadPlan, LoadReport, LoadState, Record, Repeats, answered_id, run_load};
use crate::pki::write_file;
use crate::random::system_seed;
use crate::record::{Accepted, Arrivals, Comparison};
use crate::samples::{Samples, SchemeName, Sizes};
use crate::signature::sha256;
use crate::stop::StopSignal;
use crate::tls::source_config;

const TARGET_PROGRAM: &str = include_str!("../../demo_target.py");
const CONNECTIONS: u32 = 8;
const RATE_PER_S: u32 = 4;
const CHECK_RATE_PER_S: u32 = 250;
const ARRIVAL_TIMEOUT: Duration = Duration::from_mins(1);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
const STATUS_PERIOD: Duration = Duration::from_secs(1);
const QUEUED_MAX: usize = 1024;
const OWN_BODY: &str = r#"{"hello":"zen"}"#;

/// Options of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Send a number of events, verify each at the target, and exit with the verdict.
    #[arg(long)]
    check: bool,
    /// Do not print a line per arrival.
    #[arg(long)]
    quiet: bool,
    /// How many events `--check` sends.
    #[arg(long, default_value_t = 1000)]
    events: u64,
    /// Events per second [default: 4, with --check 250].
    #[arg(long)]
    rate: Option<u32>,
    /// Directory of the lab; made anew each time.
    #[arg(long, default_value = "lab/demo")]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// A Python that has the package standardwebhooks.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Workers per node; 0 is one per core.
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// What drives the nodes' sockets and files.
    #[arg(long, value_enum, default_value_t)]
    io: Io,
}

/// A delivery as the target reports it.
#[derive(Debug, Deserialize)]
struct Arrival {
    event_id: String,
    endpoint: String,
    target: String,
    bytes: u64,
    sha256: String,
    headers: BTreeMap<String, String>,
    fault: Option<String>,
}

/// The processes, in the order in which they are stopped.
struct Processes {
    ingester: Process,
    egress: Process,
    target: Process,
}

impl Processes {
    fn check(&mut self) -> Result<(), LabError> {
        self.ingester.check()?;
        self.egress.check()?;
        self.target.check()
    }

    /// Drains all three; names those that did not end well.
    async fn stop(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        for process in [&mut self.ingester, &mut self.egress, &mut self.target] {
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

    fn log_tails(&self) -> String {
        [&self.ingester, &self.egress, &self.target].map(Process::log_tail).join("\n")
    }
}

/// A running demo.
struct Demo {
    lab: Lab,
    screen: Screen,
    arrivals: Arrivals,
    lines: mpsc::Receiver<String>,
    load: Arc<LoadState>,
}

/// Runs the demo; the exit code is the verdict of `--check`.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    let program = node_program(options.node.as_deref())?;
    let mut lab = Lab::make(&options.dir, Shape::DEMO, options.workers)?;
    lab.io = options.io;
    let (mut processes, output) = start(&lab, &program, &options.python)?;
    wait_ready(&lab.egresses[0], &mut processes.egress).await?;
    wait_ready(&lab.ingester, &mut processes.ingester).await?;
    let load = Arc::new(LoadState::default());
    let lines = read_lines(output);
    let screen = Screen::new(options.quiet);
    let mut demo = Demo { lab, screen, arrivals: Arrivals::default(), lines, load };
    let command = curl(&demo.lab, "ping", "$(cat /proc/sys/kernel/random/uuid)");
    demo.screen.line(&format!("lab in {}; send your own with\n\n{command}\n", demo.lab.directory.display()));
    let begun = Instant::now();
    let Demo { lab, screen, lines, .. } = &mut demo;
    let mut complaints = Tour { lab, program: &program, screen, lines }.run().await?;
    let mut accepted = Vec::new();
    if options.check {
        accepted.extend(send_own(&command).map_err(|complaint| complaints.push(complaint)).ok());
    }
    let plan = demo.plan(&options)?;
    let sending = tokio::spawn(run_load(plan, Arc::clone(&demo.load)));
    let expected = if options.check { Some(options.events + accepted.len() as u64) } else { None };
    demo.watch(expected, &mut processes, &mut stop).await?;
    demo.load.stop();
    let report = sending.await.expect("the load does not panic");
    complaints.extend(demo.stop(&mut processes).await);
    if !options.check {
        return Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { fail(&complaints, &processes) });
    }
    accepted.extend(report.accepted.iter().cloned());
    complaints.extend(shortfalls(&report, options.events));
    let comparison = Comparison::new(&accepted, &demo.arrivals);
    complaints.extend(comparison.complaints());
    println!(
        "check: accepted {}, delivered {}, duplicates {}, invalid {}, lost {} in {:.1} s; \
         bodies by SHA-256, signatures by the Python package standardwebhooks",
        comparison.accepted,
        comparison.delivered,
        comparison.duplicates,
        comparison.invalid.len(),
        comparison.lost.len(),
        begun.elapsed().as_secs_f64()
    );
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { fail(&complaints, &processes) })
}

fn fail(complaints: &[String], processes: &Processes) -> ExitCode {
    for complaint in complaints {
        println!("WRONG: {complaint}");
    }
    println!("{}", processes.log_tails());
    ExitCode::FAILURE
}

/// What the load itself has to complain of.
fn shortfalls(report: &LoadReport, events: u64) -> Vec<String> {
    let mut complaints: Vec<String> = report
        .refused
        .iter()
        .map(|(status, count)| format!("{count} refused with status {status}"))
        .collect();
    if report.accepted.len() as u64 != events {
        complaints.push(format!("{} of {events} events were accepted", report.accepted.len()));
    }
    complaints
}

impl Demo {
    fn plan(&self, options: &Options) -> Result<LoadPlan, LabError> {
        let (events_max, rate, record) = if options.check {
            (options.events, CHECK_RATE_PER_S, Record::Events)
        } else {
            (u64::MAX, RATE_PER_S, Record::Counts)
        };
        Ok(LoadPlan {
            address: self.lab.public,
            tls: TlsConnector::from(source_config(&self.lab.pki.public_ca())?),
            endpoints: Arc::clone(&self.lab.endpoints),
            samples: Arc::new(Samples::new(Sizes::Realistic)?),
            connections: CONNECTIONS,
            events_max,
            rate_per_s: options.rate.unwrap_or(rate),
            record,
            run: system_seed(),
            repeats: Repeats::None,
        })
    }

    /// Shows arrivals until a signal, until all `expected` have come, or until they stay away too long.
    async fn watch(
        &mut self,
        expected: Option<u64>,
        processes: &mut Processes,
        stop: &mut StopSignal,
    ) -> Result<(), LabError> {
        let mut ticks = tokio::time::interval(STATUS_PERIOD);
        let mut last_arrival = Instant::now();
        loop {
            tokio::select! {
                () = stop.wait() => return Ok(()),
                Some(line) = self.lines.recv() => {
                    self.arrive(&line);
                    last_arrival = Instant::now();
                }
                _ = ticks.tick() => {
                    processes.check()?;
                    self.show_status().await;
                }
            }
            let Some(expected) = expected else { continue };
            if self.arrivals.0.len() as u64 >= expected || last_arrival.elapsed() > ARRIVAL_TIMEOUT {
                self.show_status().await;
                return Ok(());
            }
        }
    }

    /// Stops the processes while arrivals are still taken, so that the drain is not held up.
    async fn stop(&mut self, processes: &mut Processes) -> Vec<String> {
        self.screen.line("stopping: ingester, egress, target");
        let mut complaints = None;
        let mut stopping = std::pin::pin!(processes.stop());
        while complaints.is_none() {
            let line = tokio::select! {
                found = &mut stopping => { complaints = Some(found); None }
                line = self.lines.recv() => line,
            };
            match line {
                Some(line) => self.arrive(&line),
                None if complaints.is_none() => complaints = Some((&mut stopping).await),
                None => {}
            }
        }
        while let Ok(line) = self.lines.try_recv() {
            self.arrive(&line);
        }
        self.screen.finish();
        complaints.unwrap_or_default()
    }

    fn arrive(&mut self, line: &str) {
        let Ok(arrival) = serde_json::from_str::<Arrival>(line) else {
            return self.screen.line(&format!("target: {line}"));
        };
        let endpoint = self.lab.endpoints.iter().find(|endpoint| endpoint.id == arrival.endpoint);
        self.screen.arrival(&arrival, endpoint.map_or("?", |endpoint| endpoint.scheme.label()));
        self.arrivals.add(&arrival.event_id, arrival.sha256, arrival.fault);
    }

    async fn show_status(&mut self) {
        let accepting = Metrics::scrape(self.lab.ingester.admin).await;
        let delivering = Metrics::scrape(self.lab.egresses[0].admin).await;
        self.screen.status(self.arrivals.0.len(), &accepting, &delivering);
    }
}

fn start(lab: &Lab, program: &Path, python: &Path) -> Result<(Processes, ChildStdout), LabError> {
    let script = lab.directory.join("demo_target.py");
    write_file(&script, TARGET_PROGRAM.as_bytes(), 0o644)?;
    let listen = lab.target.to_string();
    let (certificate, key) = (lab.pki.certificate(TARGET_IDENTITY), lab.pki.key(TARGET_IDENTITY));
    let (bundle, targets) = (lab.pki.bundle(), lab.directory.join("targets.json"));
    let down = lab.directory.join(tour::DOWN_FILE);
    let arguments: [&OsStr; 14] = [
        "-u".as_ref(),
        script.as_ref(),
        "--listen".as_ref(),
        listen.as_ref(),
        "--certificate".as_ref(),
        certificate.as_ref(),
        "--key".as_ref(),
        key.as_ref(),
        "--client-ca".as_ref(),
        bundle.as_ref(),
        "--targets".as_ref(),
        targets.as_ref(),
        "--flaky-down".as_ref(),
        down.as_ref(),
    ];
    let (target, output) = Process::start_piped("target", python, &arguments, &lab.log("target"))?;
    let egress = lab.start(&lab.egresses[0], program)?;
    let ingester = lab.start(&lab.ingester, program)?;
    Ok((Processes { ingester, egress, target }, output))
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

/// A shell line that signs and sends a webhook of one's own: its kind, and its id as the shell makes it.
fn curl(lab: &Lab, kind: &str, delivery: &str) -> String {
    let endpoint = lab.endpoints.iter().find(|endpoint| endpoint.scheme == SchemeName::GitHub);
    let endpoint = endpoint.expect("the demo's shape has an endpoint of each scheme");
    let directory = lab.directory.display();
    format!(
        "body='{OWN_BODY}'; curl -sS --cacert '{}' https://localhost:{}/hooks/{id} \
         -H 'content-type: application/json' -H 'x-github-event: {kind}' \
         -H \"x-github-delivery: {delivery}\" \
         -H \"x-hub-signature-256: sha256=$(printf %s \"$body\" | openssl dgst -sha256 -hmac \"$(cat '{directory}/secrets/{id}')\" | sed 's/.* //')\" \
         --data-binary \"$body\"",
        lab.pki.public_ca().display(),
        lab.public.port(),
        id = endpoint.id,
    )
}

/// Runs the printed line as a person would, and returns what it promised.
fn send_own(command: &str) -> Result<Accepted, String> {
    let (event_id, _) = send(command)?;
    Ok(Accepted { number: u64::MAX, event_id, body_sha256: sha256(OWN_BODY.as_bytes()) })
}

/// Runs such a line; the event's id, and the whole answer.
fn send(command: &str) -> Result<(String, String), String> {
    let mut shell = Command::new("sh");
    for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        shell.env_remove(proxy);
    }
    let output = shell.args(["-c", command]).output().map_err(|error| format!("the curl line: {error}"))?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let event_id = answered_id(&output.stdout).ok_or_else(|| {
        format!("the curl line was not accepted: {answer}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((event_id, answer))
}
