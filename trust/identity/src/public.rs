//! The public listener: a server certificate from files with hot reload, TLS 1.3 only (RFC 8446).
//!
//! Where sources are anonymous (their signatures prove who they are), tickets are safe and spare them a
//! handshake. Where they may show certificates there are none: a ticket would outlive what was checked.
//! Early data is refused: it can be replayed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls_pki_types::UnixTime;

use crate::certificate::Window;
use crate::key_pair::KeyPair;
use crate::source::source_verifier;
use crate::svid::unix_time;
use crate::tls::provider;
use crate::{IdentityError, Reloaded, files};

/// Tickets a source gets; each is good for one resumption.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// A public server certificate that is replaced while connections are being made.
pub struct ReloadingCertificate {
    certificate_file: PathBuf,
    private_key_file: PathBuf,
    current: ArcSwap<KeyPair>,
    replacing: Mutex<()>,
}

impl ReloadingCertificate {
    /// Reads a PEM chain, leaf first, and its private key.
    pub fn load(
        certificate_file: impl Into<PathBuf>,
        private_key_file: impl Into<PathBuf>,
    ) -> Result<Arc<Self>, IdentityError> {
        let (certificate_file, private_key_file) = (certificate_file.into(), private_key_file.into());
        let current = ArcSwap::from_pointee(read(&certificate_file, &private_key_file)?);
        Ok(Arc::new(Self { certificate_file, private_key_file, current, replacing: Mutex::new(()) }))
    }

    /// Reads the files again; on any error what is in force stays in force.
    pub fn reload(&self) -> Result<Reloaded, IdentityError> {
        let _one_at_a_time = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = read(&self.certificate_file, &self.private_key_file)?;
        if next.certified.cert == self.current.load().certified.cert {
            return Ok(Reloaded::Unchanged);
        }
        self.current.store(Arc::new(next));
        Ok(Reloaded::Changed)
    }

    /// The last second of the leaf in force.
    pub fn not_after(&self) -> UnixTime {
        unix_time(self.current.load().validity.not_after)
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
            .field("certificate_file", &self.certificate_file)
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

fn read(certificate_file: &Path, private_key_file: &Path) -> Result<KeyPair, IdentityError> {
    let certificate = files::read(certificate_file)?;
    let key = files::read_private_key(private_key_file)?;
    let key_pair = KeyPair::from_pem(&certificate, &key).map_err(|source| IdentityError::KeyPair {
        certificate_file: certificate_file.into(),
        private_key_file: private_key_file.into(),
        source,
    })?;
    if key_pair.validity.at(UnixTime::now()) != Window::Within {
        return Err(IdentityError::Validity { file: certificate_file.into() });
    }
    Ok(key_pair)
}
