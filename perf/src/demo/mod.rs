//! The `demo` command: ingester, egress and a target in Python, with sample webhooks shown as they arrive.
//!
//! Runs until Ctrl-C, which drains and stops all. With `--check` it sends a number of events, requires each
//! at the target with its body and a signature that an independent library verifies, looks for secrets in
//! clear, and exits with the verdict.

mod own;
mod processes;
mod screen;
mod search;
mod sockets;
mod tour;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use self::own::{Curl, send_own};
use self::processes::Processes;
use self::screen::Screen;
use self::search::Search;
use self::sockets::Ports;
use self::tour::Tour;
use crate::error::LabError;
use crate::lab::{Io, Lab, Metrics, Process, Shape, Steps, Trust, Vault, node_program};
use crate::load::{LoadPlan, LoadReport, LoadState, Record, Repeats, run_load};
use crate::random::system_seed;
use crate::record::{Arrivals, Comparison};
use crate::samples::{Samples, Sizes};
use crate::stop::StopSignal;
use crate::tls::source_config;

const CONNECTIONS: u32 = 8;
const RATE_PER_S: u32 = 4;
const CHECK_RATE_PER_S: u32 = 250;
const ARRIVAL_TIMEOUT: Duration = Duration::from_mins(1);
const STATUS_PERIOD: Duration = Duration::from_secs(1);
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
    /// The small version: no control plane and no agent, certificates and configurations are files of the lab.
    #[arg(long = "static")]
    is_static: bool,
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
    let mut steps = Steps::begin();
    let (mut lab, vault, trust) = if options.is_static {
        let (lab, vault) = Lab::make_sealed(&options.dir, Shape::DEMO, options.workers, &program)?;
        (lab, vault, None)
    } else {
        let (lab, vault, trust) = Lab::make_managed(&options.dir, Shape::DEMO, options.workers, &program)?;
        (lab, vault, Some(trust))
    };
    lab.io = options.io;
    let (mut processes, lines) =
        Processes::start(&lab, (&vault, trust.as_ref()), (&program, &options.python), &mut steps).await?;
    let load = Arc::new(LoadState::default());
    let screen = Screen::new(options.quiet);
    let mut demo = Demo { lab, screen, arrivals: Arrivals::default(), lines, load };
    let curl = Curl::new(&demo.lab, &vault)?;
    let command = curl.line("ping", "$(cat /proc/sys/kernel/random/uuid)");
    demo.introduce(&vault, trust.as_ref(), &command);
    let begun = Instant::now();
    let Demo { lab, screen, lines, .. } = &mut demo;
    let tour = Tour { lab, program: &program, curl: &curl, screen, lines, steps: &mut steps };
    let mut complaints = tour.run().await?;
    if trust.is_some() {
        screen.line(&format!("a newcomer's path:\n{steps}"));
    }
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
    if !options.check {
        complaints.extend(demo.stop(&mut processes).await);
        return Ok(verdict(&complaints, &processes));
    }
    let ports = Ports::of(&demo.lab, trust.as_ref()).check(&processes.all(), &options.python)?;
    demo.screen.line(&ports.line);
    complaints.extend(ports.complaints);
    let search = Search::new(&demo.lab, &vault)?;
    complaints.extend(demo.search(&search, "while all run", &processes.all())?);
    complaints.extend(demo.stop(&mut processes).await);
    complaints.extend(demo.search(&search, "after the stop", &[])?);
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
    Ok(verdict(&complaints, &processes))
}

fn verdict(complaints: &[String], processes: &Processes) -> ExitCode {
    if complaints.is_empty() {
        return ExitCode::SUCCESS;
    }
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
    /// Says where everything is, and how a person joins in.
    fn introduce(&self, vault: &Vault, trust: Option<&Trust>, command: &str) {
        let trust = trust.map_or(String::new(), |trust| format!("{trust}\n"));
        self.screen.line(&format!(
            "lab in {}\n{trust}secrets are sealed with age in {}, and zen-lockd hands them out; \
             in clear on a node is its own key only, {} (mode 0400)\nsend your own with\n\n{command}\n",
            self.lab.directory.display(),
            vault.sealed().display(),
            vault.own_key().display()
        ));
    }

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

    /// Looks for secrets in clear; the complaints.
    fn search(&self, search: &Search, when: &str, running: &[&Process]) -> Result<Vec<String>, LabError> {
        let report = search.run(when, running)?;
        self.screen.line(&report.line);
        Ok(report.complaints)
    }

    /// Stops the processes while arrivals are still taken, so that the drain is not held up.
    async fn stop(&mut self, processes: &mut Processes) -> Vec<String> {
        self.screen.line(&format!("stopping: {}", processes.names()));
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
