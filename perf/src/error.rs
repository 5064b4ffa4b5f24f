//! What can go wrong in the lab, sorted by whose fault it is: the machine's, a process under test,
//! or the run itself. Each message names what to do or where to look.

use std::io;
use std::path::{Path, PathBuf};

/// Why a lab command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LabError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The lab directory holds something that is not a lab.
    #[error("{0}: exists and is not a lab directory; name another with --dir")]
    NotOurs(PathBuf),
    /// Another run uses the directory.
    #[error("{0}: another run is using this lab; stop it, or name another directory with --dir")]
    Busy(PathBuf),
    /// No port was free.
    #[error("no free TCP port on 127.0.0.1 from {} to {}; stop other labs and tests", zen_ports::RANGE.start, zen_ports::RANGE.end - 1)]
    Ports,
    /// A socket could not be used.
    #[error("{what}: {source}")]
    Socket {
        /// What it was for.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate or key could not be used.
    #[error("TLS: {0}")]
    Tls(String),
    /// A fixture or a file of the lab does not parse.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// A scenario's file does not parse.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where it stops making sense.
        source: Box<toml::de::Error>,
    },
    /// Nothing is called so.
    #[error("no {what} is called {name}; there are: {known}")]
    Unknown {
        /// What was named.
        what: &'static str,
        /// As it was named.
        name: String,
        /// All that could have been.
        known: String,
    },
    /// A program could not be started.
    #[error("{program}: {source}; build it, or name it with --node or --python")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program that prepares the lab failed.
    #[error("{program} failed; {remedy}:\n{output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What to do.
        remedy: &'static str,
        /// What it said.
        output: String,
    },
    /// A file of a Debian package is not there.
    #[error("{what} is missing; apt-get install {package}")]
    Missing {
        /// The file.
        what: &'static str,
        /// Who has it.
        package: &'static str,
    },
    /// A file is not what a report is made of.
    #[error("{path}: {reason}; name a directory or a result.json that scripts/bench has written")]
    NotARun {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something did not happen.
    #[error("{what}: not within {seconds} s")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// What is compared does not do the same work.
    #[error("{0}")]
    Unequal(String),
    /// A process ended that should run.
    #[error("{name} ended by itself ({status}); the end of {log}:\n{tail}")]
    Ended {
        /// Its name in the lab.
        name: String,
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A process did not become ready.
    #[error("{name} is not ready after {seconds} s; the end of {log}:\n{tail}")]
    NotReady {
        /// Its name in the lab.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A file system did not survive a power cut.
    #[error("the file system did not survive: {0}")]
    FileSystem(Box<LabError>),
    /// lockd gave no secret.
    #[error("{0}")]
    Lockd(#[from] zen_lock::ClientError),
    /// A tool of the system, or the system itself, refused.
    #[error("{what}: {reason}")]
    Tool {
        /// What was wanted, or the program.
        what: String,
        /// What came of it, and what to do.
        reason: String,
    },
}

impl LabError {
    /// Attaches a path to a file error.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// Attaches a purpose to a socket error.
    pub(crate) fn socket(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { what, source }
    }
}
