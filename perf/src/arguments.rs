//! The command line: one subcommand per file, and the exit code.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::LabError;
use crate::pki::{Pki, Role};
use crate::{
    account, agents, bench, compare, crash, deliver, demo, duplicates, faults, flood, generator, idle, lab,
    machines, pairs, peers, power, report, scenario, send, sign, sink, soak, vault,
};

/// Zen Mesh lab: certificates, load, targets, demo, crash test and benchmark.
#[derive(Debug, Parser)]
#[command(name = "zen-perf", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a lab CA, SVIDs for the named workloads, and a public certificate for localhost.
    Pki(PkiOptions),
    /// Send signed webhooks as fast as they are answered, or at a rate.
    Send(send::Options),
    /// Sign a body as GitHub does, with the secret that comes on standard input.
    Sign(sign::Options),
    /// Receive deliveries over mutual TLS and check them.
    Sink(sink::Options),
    /// Hold what `load --record` sent against what `sink --record` saw.
    Account(account::Options),
    /// Start ingester, egress and target, send samples and show each arriving.
    Demo(demo::Options),
    /// Kill nodes at random moments under load and count what was lost.
    Crash(crash::Options),
    /// Send some events through both nodes and check that each arrives.
    Deliver(deliver::Options),
    /// Break one thing after the other under load, and count what was lost or stood still.
    Faults(faults::Options),
    /// Flood the listener from another namespace, with and without the guard, and measure what events are left.
    Flood(flood::Options),
    /// Mixed load for long, with a fault now and then; nothing may be lost, nothing may grow.
    Soak(soak::Options),
    /// Hold connections that say nothing.
    Idle(idle::Options),
    /// Cut the power of nodes and their drives at random moments under load and count what was lost.
    Power(power::Options),
    /// Send one event in ten twice while nodes are killed, and count what was accepted twice.
    Duplicates(duplicates::Options),
    /// Measure events per second, CPU per event and latency of the 202.
    Bench(bench::Options),
    /// Send signed webhooks from one core, at a rate or as fast as they are answered, and measure the answers.
    Load(generator::Options),
    /// Hold this load generator against wrk, on a server that is the limit for both.
    LoadCheck(generator::check::Options),
    /// Run scenarios on the nodes and their peers, in interleaved rounds, and say which goals are met.
    Scenarios(scenario::Options),
    /// Run one lab on two machines.
    Machines(machines::Options),
    /// Hold two nodes, or two systems, against each other in interleaved rounds.
    Compare(compare::Options),
    /// Make a page with plots of a run's results.
    Report(report::Options),
    /// Start each peer of the comparison, and show that it does what its row claims.
    Peers(peers::Options),
    /// Measure what one thing costs another, in paired rounds at half load.
    Pairs(pairs::Options),
    /// Measure how fast lockd answers, and a node's start with many secrets.
    Vault(vault::Options),
    /// Measure what thousands of agents cost the control plane, and how fast a change reaches all of them.
    Agents(agents::Options),
    /// Count the system calls of the nodes' workers per event.
    Syscalls(bench::syscalls::Options),
    /// Run a program that dies with its parent (used by the lab itself).
    #[command(hide = true)]
    Child {
        /// Process id of the lab.
        parent: u32,
        /// The program.
        program: OsString,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
struct PkiOptions {
    /// Directory to write to.
    #[arg(long)]
    out: PathBuf,
    /// An ingester's name; repeatable.
    #[arg(long, default_value = lab::INGESTER)]
    ingester: Vec<String>,
    /// An egress's name; repeatable.
    #[arg(long, default_value = "inside")]
    egress: Vec<String>,
    /// A target's name; repeatable.
    #[arg(long, default_value = lab::TARGET_IDENTITY)]
    target: Vec<String>,
}

impl PkiOptions {
    fn run(&self) -> Result<ExitCode, LabError> {
        let named =
            |role, names: &[String]| names.iter().map(|name| (role, name.clone())).collect::<Vec<_>>();
        let all = [
            named(Role::Ingester, &self.ingester),
            named(Role::Egress, &self.egress),
            named(Role::Target, &self.target),
        ]
        .concat();
        let workloads: Vec<(Role, &str)> = all.iter().map(|(role, name)| (*role, name.as_str())).collect();
        Pki::make(&self.out, &workloads)?;
        println!("{} certificates and two CAs in {}", workloads.len() + 1, self.out.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses the command line, runs the command, prints what went wrong.
pub(crate) fn run() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zen-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode, LabError> {
    match command {
        Command::Pki(options) => options.run(),
        Command::Send(options) => block_on(options.threads(), send::run(options)),
        Command::Sign(options) => sign::run(&options),
        Command::Sink(options) => block_on(2, sink::run(options)),
        Command::Account(options) => account::run(&options),
        Command::Demo(options) => block_on(2, demo::run(options)),
        Command::Crash(options) => block_on(2, crash::run(options)),
        Command::Deliver(options) => block_on(2, deliver::run(options)),
        Command::Faults(options) => block_on(2, faults::run(options)),
        Command::Flood(options) => block_on(2, flood::run(options)),
        Command::Soak(options) => block_on(2, soak::run(options)),
        Command::Idle(options) => block_on(2, idle::run(options)),
        Command::Power(options) => {
            power::enter_namespace()?;
            block_on(2, power::run(options))
        }
        Command::Duplicates(options) => block_on(2, duplicates::run(options)),
        Command::Bench(options) => block_on(2, bench::run(options)),
        Command::Load(options) => generator::run(&options),
        Command::LoadCheck(options) => generator::check::run(&options),
        Command::Scenarios(options) => block_on(2, scenario::run(options)),
        Command::Machines(options) => block_on(2, machines::run(options)),
        Command::Compare(options) => block_on(2, compare::run(options)),
        Command::Report(options) => report::run(&options),
        Command::Peers(options) => block_on(2, peers::run(options)),
        Command::Pairs(options) => block_on(2, pairs::run(options)),
        Command::Vault(options) => block_on(2, vault::run(options)),
        Command::Agents(options) => block_on(2, agents::run(options)),
        Command::Syscalls(options) => block_on(2, bench::syscalls::run(options)),
        Command::Child { parent, program, arguments } => {
            let source = lab::become_child(parent, &program, &arguments);
            Err(LabError::Start { program: program.into(), source })
        }
    }
}

/// Runs on the main thread, so that children started by `future` live as long as the process.
fn block_on(
    threads: usize,
    future: impl Future<Output = Result<ExitCode, LabError>>,
) -> Result<ExitCode, LabError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(LabError::socket("cannot start the runtime"))?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
