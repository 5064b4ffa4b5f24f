//! What a command may have to say.

use std::io;
use std::path::{Path, PathBuf};

use zen_lock::{ClientError, NameError, SecretName};
use zen_lockd::daemon::{ConfigError, DaemonError};
use zen_lockd::files::{KeyFileError, TreeError};
use zen_lockd::receipts::ReceiptsError;
use zen_lockd::vault::{AuthorError, EnvelopeError, KeyError, OpenError, SealError};

use super::input::InputError;
use super::manifest::ManifestError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{0}")]
    Daemon(#[from] DaemonError),
    #[error("receipts: {0}; without a receipt nothing is done")]
    Receipts(#[from] ReceiptsError),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    KeyFile(#[from] KeyFileError),
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error("{0}")]
    Author(#[from] AuthorError),
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    #[error("{0}")]
    Seal(#[from] SealError),
    #[error("{0}")]
    Tree(#[from] TreeError),
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Input(#[from] InputError),
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    #[error("{name}: {source}")]
    Open { name: SecretName, source: OpenError },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: is there already; give another name, or --replace", .0.display())]
    Exists(PathBuf),
    #[error("the value would be shown on a terminal; give --out FILE, or send it to a file or a pipe")]
    Terminal,
    #[error("{0} cannot be opened with the newest key alone: run rekey first, then finish")]
    Stragglers(usize),
    #[error("--key: {0}")]
    LogKey(#[from] zen_audit::KeyError),
    #[error("{0}")]
    Usage(&'static str),
}

impl CliError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| match source.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists(path.to_owned()),
            _ => Self::Io { path: path.to_owned(), source },
        }
    }
}
