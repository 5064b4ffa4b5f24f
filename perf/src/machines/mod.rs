//! The `machines` command: one lab on two machines, `edge` with the ingester, `inside` with the egress and its target.
//!
//! `make` writes the lab's directory, which then has to be at the same path on both: it names files by their paths, and holds
//! the secrets of both. `edge` and `inside` start what belongs there and stay until Ctrl-C. The egress dials, so that only the
//! edge listens: for sources and for links. Load comes from `load`, with the address, CA and endpoints that `make` prints.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::lab::{
    Lab, Metrics, Node, Process, Shape, TARGET_IDENTITY, Tuning, node_program, read_json, wait_ready,
};
use crate::pki::{Pki, write_file};
use crate::stop::StopSignal;

const FILE: &str = "machines.json";
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// How long events that are still on their way may take once the inside is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Events that an egress has and that no target has yet.
const LIVE: &str = "zen_events_live";
/// So many looks in a row must find none: the next batch of a link may be on its way.
const EMPTY_LOOKS: u32 = 4;

/// Options of `machines`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, clap::Subcommand)]
enum Step {
    /// Write a lab for both machines.
    Make {
        /// The edge's address, which the inside and the sources can reach.
        #[arg(long)]
        edge: IpAddr,
        /// Directory of the lab, the same on both; made anew.
        #[arg(long)]
        dir: PathBuf,
        /// Workers per node; 0 is one per core.
        #[arg(long, default_value_t = 1)]
        workers: u32,
    },
    /// Run the ingester until Ctrl-C.
    Edge(Side),
    /// Run the egress and its target until Ctrl-C.
    Inside(Side),
}

#[derive(Debug, clap::Args)]
struct Side {
    /// What `make` wrote.
    #[arg(long)]
    dir: PathBuf,
    /// The node [default: zen-dataplane beside this program].
    #[arg(long)]
    node: Option<PathBuf>,
    /// The target writes each arrival to this file, for `account`.
    #[arg(long)]
    record: Option<PathBuf>,
}

/// What both machines have to know of the lab, in its directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Machines {
    public: SocketAddr,
    target: SocketAddr,
    ingester: NodePlace,
    egress: NodePlace,
}

/// A node of the lab, by what it is started with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodePlace {
    name: String,
    config: PathBuf,
    admin: SocketAddr,
}

impl NodePlace {
    fn of(node: &Node) -> Self {
        Self { name: node.name.clone(), config: node.config.clone(), admin: node.admin }
    }

    fn node(self) -> Node {
        Node { name: self.name, config: self.config, managed: None, admin: self.admin }
    }
}

/// Runs one step.
pub(crate) async fn run(options: Options) -> Result<ExitCode, LabError> {
    match options.step {
        Step::Make { edge, dir, workers } => make(edge, &dir, workers),
        Step::Edge(side) => {
            let machines = Machines::read(&side.dir)?;
            let own = start_node(&side, machines.ingester.node()).await?;
            println!("edge: sources at {}", machines.public);
            stay(vec![own], None).await
        }
        Step::Inside(side) => {
            let machines = Machines::read(&side.dir)?;
            let sink = start_sink(&side, machines.target)?;
            let admin = machines.egress.admin;
            let own = start_node(&side, machines.egress.node()).await?;
            println!("inside: the egress is ready, its target at {}", machines.target);
            stay(vec![own, sink], Some(admin)).await
        }
    }
}

fn make(edge: IpAddr, directory: &Path, workers: u32) -> Result<ExitCode, LabError> {
    let tuning = Tuning { public: Some(edge), link: Some(edge), ..Tuning::NONE };
    let lab = Lab::make_tuned(directory, Shape::BENCH, workers, tuning)?;
    let machines = Machines {
        public: lab.public,
        target: lab.target,
        ingester: NodePlace::of(&lab.ingester),
        egress: NodePlace::of(&lab.egresses[0]),
    };
    let text = serde_json::to_vec_pretty(&machines).expect("addresses and texts are JSON");
    write_file(&lab.directory.join(FILE), &text, 0o644)?;
    println!(
        "--address {} --ca {} --endpoints {}",
        lab.public,
        lab.pki.public_ca().display(),
        lab.directory.join("endpoints.json").display()
    );
    Ok(ExitCode::SUCCESS)
}

impl Machines {
    fn read(directory: &Path) -> Result<Self, LabError> {
        read_json(&directory.join(FILE))
    }
}

async fn start_node(side: &Side, node: Node) -> Result<Process, LabError> {
    let program = node_program(side.node.as_deref())?;
    let log = side.dir.join(format!("{}.log", node.name));
    let arguments = ["--config".as_ref(), node.config.as_os_str()];
    let mut process = Process::start(&node.name, &program, &arguments, &log)?;
    wait_ready(&node, &mut process).await?;
    Ok(process)
}

fn start_sink(side: &Side, listen: SocketAddr) -> Result<Process, LabError> {
    let own = std::env::current_exe()
        .map_err(|source| LabError::Start { program: PathBuf::from("zen-perf"), source })?;
    let directory = side.dir.canonicalize().map_err(LabError::file(&side.dir))?;
    let pki = Pki::at(&directory.join("pki"));
    let mut arguments = vec![
        "sink".into(),
        "--listen".into(),
        listen.to_string().into(),
        "--certificate".into(),
        pki.certificate(TARGET_IDENTITY).into_os_string(),
        "--key".into(),
        pki.key(TARGET_IDENTITY).into_os_string(),
        "--client-ca".into(),
        pki.bundle().into_os_string(),
        "--targets".into(),
        directory.join("targets.json").into_os_string(),
    ];
    match &side.record {
        Some(record) => arguments.extend(["--record".into(), record.clone().into_os_string()]),
        None => arguments.push("--count-only".into()),
    }
    let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(std::ffi::OsString::as_os_str).collect();
    Process::start("sink", &own, &arguments, &side.dir.join("sink.log"))
}

/// Waits for Ctrl-C, or for a process that ends before it; then until the egress at `drained` has delivered all; then stops.
async fn stay(mut processes: Vec<Process>, drained: Option<SocketAddr>) -> Result<ExitCode, LabError> {
    let mut stop = StopSignal::new()?;
    while tokio::time::timeout(CHECK_EVERY, stop.wait()).await.is_err() {
        processes.iter_mut().try_for_each(Process::check)?;
    }
    if let Some(admin) = drained {
        drain(admin).await;
    }
    for process in &mut processes {
        if process.stop(STOP_TIMEOUT).await.is_none() {
            eprintln!("{} had to be killed", process.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn drain(admin: SocketAddr) {
    let (begun, mut empty) = (Instant::now(), 0);
    while empty < EMPTY_LOOKS {
        if begun.elapsed() >= DRAIN_TIMEOUT {
            eprintln!("events are still on their way after {} s", DRAIN_TIMEOUT.as_secs());
            return;
        }
        let live = Metrics::scrape(admin).await.sum(LIVE, "");
        empty = if live == 0.0 { empty + 1 } else { 0 };
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::INGESTER;

    #[test]
    fn both_machines_find_what_they_start() {
        let directory = tempfile::tempdir().unwrap();
        let lab = directory.path().join("lab");
        make("127.0.0.9".parse().unwrap(), &lab, 1).unwrap();
        let machines = Machines::read(&lab).unwrap();
        assert_eq!(machines.public.ip().to_string(), "127.0.0.9");
        assert!(machines.target.ip().is_loopback() && machines.ingester.admin.ip().is_loopback());
        let ingester = std::fs::read_to_string(&machines.ingester.config).unwrap();
        let egress = std::fs::read_to_string(&machines.egress.config).unwrap();
        let line = ingester.lines().find(|line| line.starts_with("link_listen")).unwrap();
        let link = line.split('"').nth(1).unwrap();
        assert!(link.starts_with("127.0.0.9:"), "{line}");
        assert!(egress.contains(&format!("address = \"{link}\"")), "the egress dials the edge");
        assert_eq!(machines.ingester.name, INGESTER);
    }

    #[test]
    fn a_directory_without_a_lab_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = Machines::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("machines.json"), "{error}");
    }
}
