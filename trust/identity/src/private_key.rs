//! Where a private key is: in a file, or in a vault that hands it out.
//!
//! A file is read at every reload, as everything is that an operator may have changed. A vault may keep a
//! receipt of each opening, so it is asked only when there is another certificate or bundle than in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use zeroize::Zeroizing;

use crate::{IdentityError, files};

/// Where a private key is.
#[derive(Clone, Debug)]
pub enum PrivateKeySource {
    /// A PEM file, readable by its owner only.
    File(PathBuf),
    /// A vault, which is not asked without need.
    Vault(Arc<dyn PrivateKeyVault>),
}

/// One private key that is opened by somebody else; its `Display` is its name.
pub trait PrivateKeyVault: fmt::Debug + fmt::Display + Send + Sync {
    /// The key, PEM; the error names it, and says what to do.
    fn open(&self) -> io::Result<Zeroizing<Vec<u8>>>;
}

impl PrivateKeySource {
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        match self {
            Self::File(path) => files::read_private_key(path),
            Self::Vault(vault) => vault.open().map_err(|source| IdentityError::Vault { source }),
        }
    }

    /// Whether the key is read although its certificate is the one in force.
    pub(crate) fn is_read_always(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

impl fmt::Display for PrivateKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Vault(vault) => vault.fmt(f),
        }
    }
}
