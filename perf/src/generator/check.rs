//! The `load-check` command: this generator against wrk, on a server that is the limit for both.
//!
//! nginx on one core gives 1 KiB over TLS 1.3; each client in turn asks for it from another core, closed loop, keep-alive, as many
//! connections. Out: events per second of both in interleaved rounds, and a goal. Refused: a machine with one core,
//! a program that is not installed, answers other than 200.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use crate::error::LabError;
use crate::lab::{Process, claim, claim_port};
use crate::pki::{PUBLIC, Pki, write_file};
use crate::results::{self, Load};

/// Answers, bytes.
const PAGE_BYTES: usize = 1024;
/// How far from wrk's throughput ours may be.
const DIFFERENCE_MAX: f64 = 0.10;
/// A server that is less busy than this was not the limit.
const SERVER_BUSY_MIN: f64 = 0.90;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Options of `load-check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each client runs.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Connections at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Directory for the server; made anew each time.
    #[arg(long, default_value = "lab/load-check")]
    dir: PathBuf,
    /// wrk.
    #[arg(long, default_value = "wrk")]
    wrk: PathBuf,
    /// nginx.
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
}

/// One run of one client.
#[derive(Clone, Copy, Debug)]
struct Run {
    answers_per_s: f64,
    /// Share of the time that the server's process was on a processor.
    server_busy: f64,
}

/// Where the server is.
struct Server {
    process: Process,
    address: SocketAddr,
    ca: PathBuf,
    result: PathBuf,
}

/// Runs both in turn, prints each round, and says whether they agree.
pub(crate) fn run(options: &Options) -> Result<ExitCode, LabError> {
    let cores = zen_uring::online_cores();
    let [server_core, client_core, ..] = cores[..] else {
        let reason = "one core for the server and another for the clients are needed".to_owned();
        return Err(LabError::Tool { what: "load-check".to_owned(), reason });
    };
    for (program, package) in [(&options.wrk, "wrk"), (&options.nginx, "nginx")] {
        // Either answers at once; what it says does not matter.
        Command::new(program).arg("-v").output().map_err(|source| LabError::Tool {
            what: program.display().to_string(),
            reason: format!("{source}; install it (apt-get install {package}), or name it with --{package}"),
        })?;
    }
    let (directory, _lock) = claim(&options.dir)?;
    let mut server = Server::start(options, &directory, server_core)?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        // Who goes first changes, so that a machine that slows down favours nobody.
        let (theirs, ours) = if round % 2 == 1 {
            let theirs = server.wrk(options, client_core)?;
            (theirs, server.load(options, client_core)?)
        } else {
            let ours = server.load(options, client_core)?;
            (server.wrk(options, client_core)?, ours)
        };
        let ratio = ours.answers_per_s / theirs.answers_per_s;
        println!(
            "round {round}: wrk {:.0}/s (server busy {:.0} %), load {:.0}/s (server busy {:.0} %), ratio {ratio:.3}",
            theirs.answers_per_s,
            theirs.server_busy * 100.0,
            ours.answers_per_s,
            ours.server_busy * 100.0
        );
        rounds.push((theirs, ours));
    }
    server.process.check()?;
    server.process.kill();
    Ok(verdict(&rounds))
}

fn verdict(rounds: &[(Run, Run)]) -> ExitCode {
    let ratios: Vec<f64> =
        rounds.iter().map(|(theirs, ours)| ours.answers_per_s / theirs.answers_per_s).collect();
    let (least, ratio, most) = spread(&ratios);
    let (_, theirs, _) = spread(&rounds.iter().map(|(theirs, _)| theirs.answers_per_s).collect::<Vec<_>>());
    let (_, ours, _) = spread(&rounds.iter().map(|(_, ours)| ours.answers_per_s).collect::<Vec<_>>());
    println!(
        "medians: wrk {theirs:.0}/s, load {ours:.0}/s, ratio of a round {ratio:.3} ({least:.3} to {most:.3})"
    );
    let idle = rounds
        .iter()
        .flat_map(|(theirs, ours)| [theirs, ours])
        .filter(|run| run.server_busy < SERVER_BUSY_MIN);
    let idle = idle.count();
    if idle > 0 {
        println!(
            "in {idle} of {} runs the server was not the limit: something else used the cores",
            2 * rounds.len()
        );
    }
    // A server that had time to spare says nothing of either client.
    let counts = idle <= rounds.len();
    let is_met = counts && (ratio - 1.0).abs() <= DIFFERENCE_MAX;
    let word = if is_met { "met" } else { "missed" };
    println!("goal load-against-wrk: {ratio:.2} (wanted 0.90 to 1.10 of wrk's throughput) {word}");
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Least, median and most.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

impl Server {
    fn start(options: &Options, directory: &Path, core: usize) -> Result<Self, LabError> {
        let pki = Pki::make(&directory.join("pki"), &[])?;
        let pages = directory.join("pages");
        fs::create_dir_all(&pages).map_err(LabError::file(&pages))?;
        write_file(&pages.join("page"), &[b'x'; PAGE_BYTES], 0o644)?;
        let address = claim_port(None)?;
        let config = directory.join("nginx.conf");
        write_file(&config, configuration(directory, &pki, address).as_bytes(), 0o644)?;
        // One process that this one started, so that its time is all of the server's.
        let arguments =
            ["-c".as_ref(), config.as_os_str(), "-g".as_ref(), "daemon off; master_process off;".as_ref()];
        let core = core.to_string();
        let pinned = [&["-c".as_ref(), core.as_ref(), options.nginx.as_os_str()], &arguments[..]].concat();
        let log = directory.join("nginx.log");
        let mut process = Process::start("nginx", Path::new("taskset"), &pinned, &log)?;
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            process.check()?;
            if begun.elapsed() > START_TIMEOUT {
                return Err(process.not_ready());
            }
            std::thread::sleep(POLL);
        }
        Ok(Self { process, address, ca: pki.public_ca(), result: directory.join("load.json") })
    }

    fn wrk(&self, options: &Options, core: usize) -> Result<Run, LabError> {
        let url = format!("https://{}/page", self.address);
        let (connections, seconds) = (options.connections.to_string(), options.seconds.to_string());
        let program = options.wrk.to_string_lossy().into_owned();
        let words =
            ["taskset", "-c", &core.to_string(), &program, "-t1", "-c", &connections, "-d", &seconds, &url]
                .map(str::to_owned);
        let (output, server_busy) = self.watched(&words)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers_per_s = requests_per_s(&text).ok_or_else(|| complaint("wrk", &output))?;
        Ok(Run { answers_per_s, server_busy })
    }

    fn load(&self, options: &Options, core: usize) -> Result<Run, LabError> {
        let own = std::env::current_exe()
            .map_err(|source| LabError::Start { program: PathBuf::from("zen-perf"), source })?;
        let text = |path: &Path| path.display().to_string();
        let fixed = ["load", "--get", "/page", "--warm-up-seconds", "0", "--quiet"].map(str::to_owned);
        let named = [
            ("--address", self.address.to_string()),
            ("--ca", text(&self.ca)),
            ("--core", core.to_string()),
            ("--connections", options.connections.to_string()),
            ("--seconds", options.seconds.to_string()),
            ("--json", text(&self.result)),
        ];
        let named = named.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        let words: Vec<String> = [text(&own)].into_iter().chain(fixed).chain(named).collect();
        let (output, server_busy) = self.watched(&words)?;
        let load: Load = results::read(&self.result).map_err(|_| complaint("load", &output))?;
        if load.accepted != load.sent {
            return Err(complaint("load", &output));
        }
        Ok(Run { answers_per_s: load.accepted_per_s, server_busy })
    }

    /// Runs a client to its end, and says how busy the server was meanwhile.
    fn watched(&self, words: &[String]) -> Result<(Output, f64), LabError> {
        let (before, begun) = (self.cpu_ticks(), Instant::now());
        let output = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output();
        let output =
            output.map_err(|source| LabError::Start { program: PathBuf::from(&words[0]), source })?;
        if !output.status.success() {
            return Err(complaint(&words.join(" "), &output));
        }
        let ticks = (self.cpu_ticks() - before) as f64;
        // `USER_HZ` is 100 on every Linux that runs here (proc(5)).
        Ok((output, ticks / 100.0 / begun.elapsed().as_secs_f64()))
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    }
}

fn configuration(directory: &Path, pki: &Pki, address: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "user root;\npid {directory}/nginx.pid;\nerror_log stderr warn;\nworker_processes 1;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {directory}/body;\n  proxy_temp_path {directory}/proxy;\n  \
         fastcgi_temp_path {directory}/fastcgi;\n  uwsgi_temp_path {directory}/uwsgi;\n  scgi_temp_path {directory}/scgi;\n  \
         keepalive_timeout 300s;\n  keepalive_requests 1000000000;\n  \
         server {{\n    listen {address} ssl;\n    ssl_protocols TLSv1.3;\n    ssl_certificate {};\n    \
         ssl_certificate_key {};\n    root {directory}/pages;\n  }}\n}}\n",
        pki.certificate(PUBLIC).display(),
        pki.key(PUBLIC).display()
    )
}

/// What wrk says, if every answer was good.
fn requests_per_s(text: &str) -> Option<f64> {
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
    line.trim().parse().ok()
}

fn complaint(what: &str, output: &Output) -> LabError {
    let mut text = Vec::new();
    let _ = text.write_all(&output.stdout).and_then(|()| text.write_all(&output.stderr));
    LabError::Tool { what: what.to_owned(), reason: String::from_utf8_lossy(&text).trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 3s test @ https://127.0.0.1:1/page\n  1 threads and 8 connections\n  \
        100 requests in 3.00s, 1.2MB read\nRequests/sec:  48211.07\nTransfer/sec:     60.27MB\n";

    #[test]
    fn what_wrk_says_is_read_unless_it_complains() {
        assert_eq!(requests_per_s(SAID), Some(48_211.07));
        for complaint in ["  Non-2xx or 3xx responses: 5\n", "  Socket errors: connect 0, read 1\n"] {
            assert_eq!(requests_per_s(&format!("{SAID}{complaint}")), None);
        }
        assert_eq!(requests_per_s(""), None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let (least, median, most) = spread(&[3.0, 1.0, 2.0]);
        assert_eq!([least, median, most].map(|value| value as u32), [1, 2, 3]);
    }
}
