//! The public listener: a server certificate with hot reload, TLS 1.3 only (RFC 8446).
//!
//! Where sources are anonymous (their signatures prove who they are), tickets are safe and spare them a
//! handshake. Where they may show certificates there are none: a ticket would outlive what was checked.
//! Early data is refused: it can be replayed.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls_pki_types::UnixTime;

use crate::certificate::Window;
use crate::key_pair::{Chain, KeyPair, KeyPairError};
use crate::source::source_verifier;
use crate::svid::unix_time;
use crate::tls::provider;
use crate::{IdentityError, PrivateKeySource, Reloaded, files};

/// Tickets a source gets; each is good for one resumption.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// A public server certificate that is replaced while connections are being made.
pub struct ReloadingCertificate {
    /// Locked while one certificate replaces another.
    source: Mutex<Source>,
    current: ArcSwap<KeyPair>,
}

/// What was read at another place, and is not in force yet.
pub struct NextCertificate {
    source: Source,
    /// None where it is what is in force.
    key_pair: Option<KeyPair>,
}

struct Source {
    certificate_file: PathBuf,
    private_key: PrivateKeySource,
}

impl ReloadingCertificate {
    /// Reads a PEM chain, leaf first, and its private key.
    pub fn load(
        certificate_file: impl Into<PathBuf>,
        private_key: PrivateKeySource,
    ) -> Result<Arc<Self>, IdentityError> {
        let source = Source { certificate_file: certificate_file.into(), private_key };
        let current = ArcSwap::from_pointee(source.key_pair(source.chain()?)?);
        Ok(Arc::new(Self { source: Mutex::new(source), current }))
    }

    /// Reads the files again; on any error what is in force stays in force.
    pub fn reload(&self) -> Result<Reloaded, IdentityError> {
        let source = self.replacing();
        let next = self.next(&source, &source.private_key)?;
        Ok(self.replace(next))
    }

    /// Reads the same from other files; nothing changes before it is installed.
    pub fn prepare(
        &self,
        certificate_file: impl Into<PathBuf>,
        private_key: PrivateKeySource,
    ) -> Result<NextCertificate, IdentityError> {
        let source = Source { certificate_file: certificate_file.into(), private_key };
        let key_pair = self.next(&source, &self.replacing().private_key)?;
        Ok(NextCertificate { source, key_pair })
    }

    /// Puts what was prepared in force; its files are read from now on.
    pub fn install(&self, next: NextCertificate) -> Reloaded {
        let mut source = self.replacing();
        *source = next.source;
        self.replace(next.key_pair)
    }

    /// The last second of the leaf in force.
    pub fn not_after(&self) -> UnixTime {
        unix_time(self.current.load().validity.not_after)
    }

    fn replacing(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the files hold, if it is not in force; a vault is not asked without need.
    fn next(
        &self,
        source: &Source,
        key_in_force: &PrivateKeySource,
    ) -> Result<Option<KeyPair>, IdentityError> {
        let chain = source.chain()?;
        let is_new = chain.certificates != self.current.load().certified.cert;
        let is_known = source.private_key.to_string() == key_in_force.to_string();
        if !is_new && is_known && !source.private_key.is_read_always() {
            return Ok(None);
        }
        let next = source.key_pair(chain)?;
        Ok(is_new.then_some(next))
    }

    fn replace(&self, next: Option<KeyPair>) -> Reloaded {
        let Some(next) = next else { return Reloaded::Unchanged };
        self.current.store(Arc::new(next));
        Reloaded::Changed
    }
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}

impl fmt::Debug for ReloadingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadingCertificate")
            .field("certificate_file", &self.replacing().certificate_file)
            .finish_non_exhaustive()
    }
}

/// The public listener's configuration; all workers share it, so that they share its ticket keys. With
/// `client_roots`, PEM, sources are asked for a certificate.
pub fn public_server_config(
    certificate: Arc<ReloadingCertificate>,
    client_roots: Option<&[u8]>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites and key exchange groups");
    let mut config = match client_roots {
        Some(roots) => builder.with_client_cert_verifier(source_verifier(roots)?),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    if client_roots.is_none() {
        config.ticketer = Ticketer::new().expect("aws-lc-rs aborts by itself when it has no randomness");
        config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    }
    Ok(Arc::new(config))
}

impl Source {
    /// The chain by itself, within its validity.
    fn chain(&self) -> Result<Chain, IdentityError> {
        let certificate = files::read(&self.certificate_file)?;
        let chain = Chain::from_pem(&certificate).map_err(|source| self.unusable(source))?;
        if chain.validity.at(UnixTime::now()) != Window::Within {
            return Err(IdentityError::Validity { file: self.certificate_file.clone() });
        }
        Ok(chain)
    }

    fn key_pair(&self, chain: Chain) -> Result<KeyPair, IdentityError> {
        let key = self.private_key.read()?;
        chain.with_key(&key).map_err(|source| self.unusable(source))
    }

    fn unusable(&self, source: KeyPairError) -> IdentityError {
        IdentityError::KeyPair {
            certificate_file: self.certificate_file.clone(),
            private_key: self.private_key.clone(),
            source,
        }
    }
}
