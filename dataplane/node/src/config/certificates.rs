//! Certificates and the deny list of a configuration: loaded at the start, replaced while the node runs.

use std::sync::Arc;

use zen_identity::{
    DenyList, NextCertificate, NextSvid, ReloadingCertificate, SvidFiles, SvidStore, TrustDomain,
};

use super::validate::Faults;
use super::{ConfigError, Located, Raw, raw};
use crate::trials::Trials;

/// Certificates that live across configurations and are reloaded from their files.
#[derive(Clone)]
pub struct Certificates {
    /// The node's own X.509-SVID, trust bundle and deny list.
    pub svid: Arc<SvidStore>,
    /// What sources see.
    pub public: Option<Arc<ReloadingCertificate>>,
    /// What policies that are only tried come to.
    pub trials: Arc<Trials>,
}

/// Those of a generation that is not in force yet.
pub struct NextCertificates {
    svid: NextSvid,
    public: Option<NextCertificate>,
}

impl Certificates {
    /// Loads what a configuration names.
    pub fn load(located: &Located, raw: &Raw) -> Result<Self, ConfigError> {
        let mut faults = faults_of(located, raw);
        let svid = svid_files(&raw.identity, &mut faults).and_then(|files| {
            SvidStore::load(files).map_err(|error| faults.push_identity("identity", SVID_KEY, &error)).ok()
        });
        let public = raw.ingester.as_ref().and_then(|ingester| public_certificate(ingester, &mut faults));
        let denied = denied(&raw.identity, &mut faults);
        match (svid, denied) {
            (Some(svid), Some(denied)) if faults.found.is_empty() => {
                svid.replace_deny_list(denied);
                Ok(Self { svid, public, trials: Arc::default() })
            }
            _ => Err(ConfigError::Faults(faults.found)),
        }
    }

    /// Reads those of another generation; nothing changes before they are installed.
    pub fn prepare(&self, located: &Located, raw: &Raw) -> Result<NextCertificates, ConfigError> {
        let mut faults = faults_of(located, raw);
        let svid = svid_files(&raw.identity, &mut faults).and_then(|files| {
            self.svid.prepare(files).map_err(|error| faults.push_identity("identity", SVID_KEY, &error)).ok()
        });
        let public = self.public.as_ref().zip(raw.ingester.as_ref()).and_then(|(public, ingester)| {
            let private_key = faults.private_key(PUBLIC_KEY, &ingester.private_key_file)?;
            public
                .prepare(faults.resolve(&ingester.certificate_file), private_key)
                .map_err(|error| faults.push_identity(PUBLIC_FILE, PUBLIC_KEY, &error))
                .ok()
        });
        match svid {
            Some(svid) if faults.found.is_empty() => Ok(NextCertificates { svid, public }),
            _ => Err(ConfigError::Faults(faults.found)),
        }
    }

    /// Puts what was prepared in force.
    pub fn install(&self, next: NextCertificates) {
        self.svid.install(next.svid);
        if let (Some(public), Some(next)) = (&self.public, next.public) {
            public.install(next);
        }
    }
}

/// Whom a configuration denies.
pub fn deny_list(located: &Located, raw: &Raw) -> Result<DenyList, ConfigError> {
    let mut faults = Faults::new(&located.file);
    denied(&raw.identity, &mut faults).ok_or(ConfigError::Faults(faults.found))
}

const SVID_KEY: &str = "identity.private_key_file";
const PUBLIC_FILE: &str = "ingester.certificate_file";
const PUBLIC_KEY: &str = "ingester.private_key_file";

fn faults_of(located: &Located, raw: &Raw) -> Faults {
    let mut faults = Faults::new(&located.file);
    faults.set_lockd(raw.lockd.as_ref());
    faults
}

fn svid_files(raw: &raw::Identity, faults: &mut Faults) -> Option<SvidFiles> {
    let remedy = "give the SPIFFE trust domain without spiffe://";
    let trust_domain = TrustDomain::parse(&raw.trust_domain)
        .map_err(|error| faults.push("identity.trust_domain", error, remedy))
        .ok()?;
    Some(SvidFiles {
        certificate_file: faults.resolve(&raw.certificate_file),
        private_key: faults.private_key(SVID_KEY, &raw.private_key_file)?,
        trust_bundle_file: faults.resolve(&raw.trust_bundle_file),
        trust_domain,
    })
}

fn public_certificate(raw: &raw::Ingester, faults: &mut Faults) -> Option<Arc<ReloadingCertificate>> {
    let private_key = faults.private_key(PUBLIC_KEY, &raw.private_key_file)?;
    ReloadingCertificate::load(faults.resolve(&raw.certificate_file), private_key)
        .map_err(|error| faults.push_identity(PUBLIC_FILE, PUBLIC_KEY, &error))
        .ok()
}

/// Nobody, where no list is named.
fn denied(raw: &raw::Identity, faults: &mut Faults) -> Option<DenyList> {
    let Some(file) = &raw.deny_list_file else { return Some(DenyList::default()) };
    DenyList::load(&faults.resolve(file))
        .map_err(|error| faults.push("identity.deny_list_file", error, "see docs/operations.md"))
        .ok()
}
