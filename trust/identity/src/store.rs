//! Our SVID and trust bundle, replaced while connections are being made.
//!
//! A generation is certificate, key and bundle together. It takes effect with the next handshake, in
//! every configuration made from this store, or not at all: what does not verify changes nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{Context, SHA256};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::UnixTime;

use crate::key_pair::{Chain, KeyPairError};
use crate::{
    DenyList, IdentityError, PrivateKeySource, SpiffeId, Svid, SvidError, TrustBundle, TrustBundles,
    TrustDomain, files,
};

/// Where an identity lives. Certificate and key may be the same file.
#[derive(Clone, Debug)]
pub struct SvidFiles {
    /// PEM chain, leaf first.
    pub certificate_file: PathBuf,
    /// PEM private key.
    pub private_key: PrivateKeySource,
    /// PEM roots of `trust_domain`.
    pub trust_bundle_file: PathBuf,
    /// Whose roots those are; our own SVID belongs to it too.
    pub trust_domain: TrustDomain,
}

/// Whether a reload found something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// A new generation is in force.
    Changed,
    /// The files hold what is in force already.
    Unchanged,
}

/// Our identity and whom we trust; shared by all configurations made from it.
pub struct SvidStore {
    /// Locked while one generation replaces another.
    files: Mutex<SvidFiles>,
    current: ArcSwap<Generation>,
    refuses_all: AtomicBool,
}

/// What becomes of handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshakes {
    /// The checks and the policy decide.
    Judged,
    /// Nobody is taken, because the deny list may be old.
    Refused,
}

/// What was read at another place and verified, and is not in force yet.
#[derive(Debug)]
pub struct NextSvid {
    files: SvidFiles,
    /// None where it is what is in force.
    generation: Option<Generation>,
}

#[derive(Debug)]
struct Generation {
    svid: Svid,
    bundles: Arc<TrustBundles>,
    digest: [u8; 32],
}

/// What a generation is without its key.
struct Public {
    certificate: Vec<u8>,
    bundle: Vec<u8>,
    digest: [u8; 32],
}

impl SvidStore {
    /// Reads and verifies the first generation.
    pub fn load(files: SvidFiles) -> Result<Arc<Self>, IdentityError> {
        let generation = Generation::read(Public::read(&files)?, &files, UnixTime::now())?;
        Ok(Arc::new(Self {
            files: Mutex::new(files),
            current: ArcSwap::from_pointee(generation),
            refuses_all: AtomicBool::new(false),
        }))
    }

    /// Reads the files again; on any error what is in force stays in force.
    pub fn reload(&self) -> Result<Reloaded, IdentityError> {
        let files = self.replacing();
        let next = self.next(&files, &files.private_key)?;
        Ok(self.replace(next))
    }

    /// Reads the same from other files; nothing changes before it is installed.
    pub fn prepare(&self, files: SvidFiles) -> Result<NextSvid, IdentityError> {
        let current = self.replacing();
        let generation = self.next(&files, &current.private_key)?;
        Ok(NextSvid { files, generation })
    }

    /// Puts what was prepared in force; its files are read from now on.
    pub fn install(&self, next: NextSvid) -> Reloaded {
        let mut files = self.replacing();
        *files = next.files;
        self.replace(next.generation)
    }

    /// Replaces the deny list; live connections are asked with [`DenyList::denies`].
    pub fn replace_deny_list(&self, deny_list: DenyList) {
        let _one_at_a_time = self.replacing();
        let current = self.current.load();
        let bundles = TrustBundles::clone(&current.bundles).with_deny_list(Arc::new(deny_list));
        self.current.store(Arc::new(Generation {
            svid: current.svid.clone(),
            bundles: Arc::new(bundles),
            digest: current.digest,
        }));
    }

    /// What becomes of handshakes from now on; connections that are there stay.
    pub fn set_handshakes(&self, handshakes: Handshakes) {
        self.refuses_all.store(handshakes == Handshakes::Refused, Ordering::Release);
    }

    /// For whoever is good otherwise.
    pub(crate) fn check_deny_list(&self) -> Result<(), SvidError> {
        if self.refuses_all.load(Ordering::Acquire) { Err(SvidError::DenyListStale) } else { Ok(()) }
    }

    /// Who we are.
    pub fn id(&self) -> SpiffeId {
        self.current.load().svid.id().clone()
    }

    /// The last second of the leaf in force.
    pub fn not_after(&self) -> UnixTime {
        self.current.load().svid.not_after()
    }

    /// Whom we trust now.
    pub fn bundles(&self) -> Arc<TrustBundles> {
        self.current.load().bundles.clone()
    }

    /// Who is denied now.
    pub fn deny_list(&self) -> Arc<DenyList> {
        self.current.load().bundles.shared_deny_list()
    }

    fn replacing(&self) -> MutexGuard<'_, SvidFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the files hold, if it is not in force; a vault is not asked without need.
    fn next(
        &self,
        files: &SvidFiles,
        key_in_force: &PrivateKeySource,
    ) -> Result<Option<Generation>, IdentityError> {
        let (public, current) = (Public::read(files)?, self.current.load());
        let is_new = public.digest != current.digest;
        let is_known = files.private_key.to_string() == key_in_force.to_string();
        if !is_new && is_known && !files.private_key.is_read_always() {
            // The bytes are the same, but the clock is not.
            let verified = current.svid.verify(&current.bundles, UnixTime::now());
            return verified.map(|()| None).map_err(|source| files.refused(source));
        }
        let next = Generation::read(public, files, UnixTime::now())?;
        Ok(is_new.then_some(next))
    }

    /// The deny list stays.
    fn replace(&self, next: Option<Generation>) -> Reloaded {
        let Some(mut next) = next else { return Reloaded::Unchanged };
        let deny_list = self.deny_list();
        next.bundles = Arc::new(Arc::unwrap_or_clone(next.bundles).with_deny_list(deny_list));
        self.current.store(Arc::new(next));
        Reloaded::Changed
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        self.current.load().svid.certified().clone()
    }
}

impl ResolvesServerCert for SvidStore {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }
}

impl ResolvesClientCert for SvidStore {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for SvidStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SvidStore").field("svid", &self.current.load().svid).finish_non_exhaustive()
    }
}

impl SvidFiles {
    fn refused(&self, source: SvidError) -> IdentityError {
        IdentityError::Svid { file: self.certificate_file.clone(), source }
    }

    fn unusable(&self, source: KeyPairError) -> IdentityError {
        IdentityError::KeyPair {
            certificate_file: self.certificate_file.clone(),
            private_key: self.private_key.clone(),
            source,
        }
    }
}

impl Public {
    fn read(files: &SvidFiles) -> Result<Self, IdentityError> {
        let certificate = files::read(&files.certificate_file)?;
        let bundle = files::read(&files.trust_bundle_file)?;
        let digest = digest(&[&certificate, &bundle]);
        Ok(Self { certificate, bundle, digest })
    }
}

impl Generation {
    /// The key comes last: what no peer would take needs none.
    fn read(public: Public, files: &SvidFiles, now: UnixTime) -> Result<Self, IdentityError> {
        let chain = Chain::from_pem(&public.certificate).map_err(|source| files.unusable(source))?;
        let bundle = TrustBundle::from_pem(files.trust_domain.clone(), &public.bundle)
            .map_err(|source| IdentityError::Bundle { file: files.trust_bundle_file.clone(), source })?;
        let bundles = TrustBundles::new([bundle]);
        chain.verify(&bundles, now).map_err(|source| files.refused(source))?;
        let key = files.private_key.read()?;
        let svid = Svid::new(chain, &key).map_err(|source| files.unusable(source))?;
        Ok(Self { svid, bundles: Arc::new(bundles), digest: public.digest })
    }
}

/// SHA-256 over the parts, each with its length.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 is 32 bytes")
}
