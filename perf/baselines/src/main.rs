//! The work of the mesh's first hop up to its 202, on other runtimes: what the node's own reactor is held against.
//!
//! In: webhooks over TLS 1.3. Each is checked (HMAC-SHA256 over the body), looked up by its `x-event-id`, written to a
//! journal with group commit, and answered with 202 once it is on disk. There is no link and no delivery.

mod group;
mod hop;
mod journal;
mod on_tokio;
mod on_uring;
mod request;
mod seen;
mod tls;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};

use crate::hop::Hop;
use crate::journal::JournalFile;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BACKLOG: i32 = 4096;

/// Zen Mesh lab: the ingest hop on tokio or tokio-uring.
#[derive(Debug, Parser)]
#[command(name = "zen-baseline", version)]
struct Arguments {
    /// Print the event ids in the journals of a directory, and end.
    #[arg(long, exclusive = true)]
    list: Option<PathBuf>,
    /// What runs the connections.
    #[arg(long, value_enum, default_value = "tokio")]
    runtime: Runtime,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Certificate chain, PEM.
    #[arg(long, required_unless_present = "list")]
    certificate: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, required_unless_present = "list")]
    key: Option<PathBuf>,
    /// File with the key of the sources' HMACs, taken as it is.
    #[arg(long, required_unless_present = "list")]
    secret_file: Option<PathBuf>,
    /// Header with `sha256=` and the HMAC in hexadecimal digits.
    #[arg(long, default_value = "x-signature")]
    header: String,
    /// Directory of the journals; those that are there begin anew.
    #[arg(long, required_unless_present = "list")]
    journal: Option<PathBuf>,
    /// Threads, each with its own listener, runtime and journal.
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Key exchanges that sources may choose from.
    #[arg(long, value_enum, default_value = "default")]
    key_exchange: KeyExchange,
}

/// What runs the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Runtime {
    /// tokio on epoll, a single-threaded runtime for each thread.
    Tokio,
    /// tokio-uring as `tokio_uring::start` sets it up.
    TokioUring,
    /// tokio-uring whose ring has `IORING_SETUP_COOP_TASKRUN`.
    TokioUringCoop,
}

/// Key exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyExchange {
    /// X25519 alone.
    X25519,
    /// Those of rustls, post-quantum first.
    Default,
}

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
enum StartError {
    /// A file.
    #[error("{path}: {source}; {remedy}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The listener.
    #[error("cannot listen on {address}: {source}; is the port in use? (--listen)")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Certificate or key.
    #[error("{path}: {reason}; it must be PEM (--certificate, --key)")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// The runtime.
    #[error("the runtime does not start: {0}; is io_uring blocked here?")]
    Runtime(std::io::Error),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.list {
        Some(directory) => journal::list(directory),
        None => serve(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zen-baseline: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs until it is killed.
fn serve(arguments: &Arguments) -> Result<(), StartError> {
    let given = |path: &Option<PathBuf>| path.clone().expect("clap requires it without --list");
    let tls =
        tls::server_config(&given(&arguments.certificate), &given(&arguments.key), arguments.key_exchange)?;
    let secret_file = given(&arguments.secret_file);
    let secret = std::fs::read(&secret_file).map_err(|source| StartError::File {
        path: secret_file,
        source,
        remedy: "name the file of the secret with --secret-file",
    })?;
    let hop = Arc::new(Hop::new(&secret, arguments.header.clone()));
    let mut threads = Vec::new();
    for number in 0..arguments.threads.max(1) {
        let file = JournalFile::create(&given(&arguments.journal), number)?;
        let listener = listen(arguments.listen)
            .map_err(|source| StartError::Listen { address: arguments.listen, source })?;
        let (runtime, tls, hop) = (arguments.runtime, Arc::clone(&tls), Arc::clone(&hop));
        threads.push(std::thread::spawn(move || match runtime {
            Runtime::Tokio => on_tokio::run(listener, tls, hop, file),
            Runtime::TokioUring => on_uring::run(listener, tls, hop, file, on_uring::Flags::Default),
            Runtime::TokioUringCoop => on_uring::run(listener, tls, hop, file, on_uring::Flags::CoopTaskrun),
        }));
    }
    for thread in threads {
        thread.join().expect("a thread of connections does not panic")?;
    }
    Ok(())
}

/// Each thread has a listener, and the kernel spreads connections over them.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
