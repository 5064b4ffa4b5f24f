//! Why an identity or a configuration could not be made; each says the file and the remedy.

use std::io;
use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::deny::DenyListError;
use crate::key_pair::KeyPairError;
use crate::private_key::PrivateKeySource;
use crate::svid::SvidError;

/// Why loading or reloading failed; what was in force before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("{}: {source}; make it exist and readable for this user", file.display())]
    Read {
        /// Which one.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is larger than any certificate chain or bundle.
    #[error("{}: over 1 MiB; is this the right file?", file.display())]
    TooLarge {
        /// Which one.
        file: PathBuf,
    },
    /// Others than its owner may use the private key.
    #[error("{}: mode {mode:04o} lets others read or change the private key; run: chmod 0600 {}", file.display(), file.display())]
    KeyPermissions {
        /// Which one.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A vault does not give the private key.
    #[error("{source}")]
    Vault {
        /// What it said; [`crate::PrivateKeyVault::open`] made it.
        source: io::Error,
    },
    /// Certificate and key are unreadable or do not belong together.
    #[error("{} with {private_key}: {source}", certificate_file.display())]
    KeyPair {
        /// The certificate chain.
        certificate_file: PathBuf,
        /// Where the private key is.
        private_key: PrivateKeySource,
        /// What is wrong.
        source: KeyPairError,
    },
    /// The trust bundle is refused.
    #[error("{}: {source}; ask whoever issues it for a correct one", file.display())]
    Bundle {
        /// Which one.
        file: PathBuf,
        /// What is wrong.
        source: BundleError,
    },
    /// The deny list is refused.
    #[error("{}: {source}; ask whoever publishes it for a correct one", file.display())]
    DenyList {
        /// Which one.
        file: PathBuf,
        /// What is wrong.
        source: DenyListError,
    },
    /// Our own SVID would be refused by every peer that holds our bundle.
    #[error("{}: {source}; issue a new certificate, or install the bundle that matches it", file.display())]
    Svid {
        /// The certificate chain.
        file: PathBuf,
        /// The rule it breaks.
        source: SvidError,
    },
    /// A public certificate is outside its validity.
    #[error("{}: the certificate is expired or not valid yet; renew it and compare the clocks", file.display())]
    Validity {
        /// The certificate chain.
        file: PathBuf,
    },
    /// The target's private CA file holds no usable root.
    #[error("the private CA holds no usable PEM certificate")]
    NoRoots,
    /// The operating system has no CA certificates.
    #[error("the system has no CA certificates; install the package ca-certificates")]
    NoSystemRoots,
    /// rustls refused a configuration.
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
}
