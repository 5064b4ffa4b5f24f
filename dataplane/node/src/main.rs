//! The Zen Mesh data plane node: an ingester, an egress, or both, from one configuration file.

mod admin;
mod cli;
mod clock;
mod config;
mod control;
mod crypto;
mod dedupe;
mod deny_age;
mod ebpf;
mod egress;
mod entropy;
mod hmac;
mod ingester;
mod journal;
mod link;
mod listeners;
mod mesh;
mod metrics;
mod oauth;
mod privileges;
mod quota;
mod reach;
mod receipts;
mod reload;
mod sockets;
mod spans;
mod start;
mod stream;
mod tls;
mod trials;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Fewer cycles than the C library's, and no system calls at a steady load; docs/performance.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Takes webhooks in, keeps them durably, and delivers them to private services.
#[derive(Parser)]
#[command(version, about, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The configuration file (TOML); see docs/configuration.md.
    #[arg(long, value_name = "FILE", required_unless_present = "managed", conflicts_with = "managed")]
    config: Option<PathBuf>,
    /// A directory in which an agent publishes configurations: the one that `current` leads to counts.
    #[arg(long, value_name = "DIR")]
    managed: Option<PathBuf>,
    /// What drives sockets and files: `uring`, `epoll`, or `auto`, which is epoll where `io_uring` is blocked.
    #[arg(long, value_name = "auto|uring|epoll", default_value_t)]
    io: zen_uring::Io,
    /// What computes HMACs: the name of a kernel, or `auto`, which measures what is the fastest on this processor.
    #[arg(long, value_name = "auto|KERNEL", default_value = "auto")]
    hmac: hmac::Choice,
    /// Check the file and everything it names, say what is wrong, and exit.
    #[arg(long)]
    check_config: bool,
    /// Print the effective configuration, defaults filled in, without secrets, and exit.
    #[arg(long)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<cli::Command>,
}

fn main() -> ExitCode {
    // A bug in one thread must not leave a node that looks alive: the journal is safe, the process goes.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("zen-dataplane: a bug: {panic}");
        std::process::abort();
    }));
    let arguments = Arguments::parse();
    if let Some(command) = arguments.command {
        return exit_code(cli::run(command));
    }
    let kernels = hmac::Kernels::install(arguments.hmac);
    let managed = arguments.managed.map(config::Place::Managed);
    let place = managed.or_else(|| arguments.config.map(config::Place::File));
    let place = place.expect("one of both is required without a command");
    exit_code(if arguments.print_config {
        start::print_config(&place)
    } else if arguments.check_config {
        start::check_config(&place)
    } else {
        start::run(place, arguments.io, kernels)
    })
}

fn exit_code<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zen-dataplane: {error}");
            ExitCode::FAILURE
        }
    }
}
