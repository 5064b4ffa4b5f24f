//! Trust bundles: the roots of one trust domain each, never pooled (SPIFFE Federation section 7).
//!
//! Enters: PEM files, or SPIFFE bundle documents (SPIFFE Trust Domain and Bundle section 4). Leaves:
//! roots that were checked themselves. Refused: a root without `cA` or `keyCertSign`, or whose own
//! SPIFFE id has a path (X509-SVID section 3.2); path validation looks at none of that. The validity
//! of a root is checked with each peer, because it passes while we run.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use serde::Deserialize;

use crate::certificate::{Certificate, CertificateAuthority, Unreadable, Validity};
use crate::{DenyList, SpiffeId, TrustDomain};

/// Most roots of one trust domain; a rotation needs two or three.
pub const BUNDLE_ROOTS_MAX: usize = 64;

/// The roots of one trust domain.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
    validities: Vec<Validity>,
}

impl TrustBundle {
    /// The certificates of a PEM file; other sections are ignored, an empty file is refused.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::empty(trust_domain);
        for root in CertificateDer::pem_slice_iter(pem) {
            bundle.push(&root.map_err(BundleError::Pem)?)?;
        }
        if bundle.anchors.is_empty() {
            return Err(BundleError::Empty);
        }
        Ok(bundle)
    }

    /// The `x509-svid` keys of a SPIFFE bundle document, first certificate of each `x5c`.
    ///
    /// Unknown `kty` and `use`, and entries without `x5c`, are ignored (X509-SVID section 6.2);
    /// a `kid` is refused (section 6.1). A document without roots is a bundle that trusts nobody.
    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        let document: JwkSet = serde_json::from_slice(json).map_err(|_| BundleError::Document)?;
        let mut bundle = Self::empty(trust_domain);
        for value in document.keys {
            let Ok(key) = serde_json::from_value::<Jwk>(value) else { continue };
            if key.purpose != "x509-svid" || !matches!(key.kty.as_str(), "EC" | "RSA" | "OKP") {
                continue;
            }
            if key.kid.is_some() {
                return Err(BundleError::KeyId);
            }
            let Some(root) = key.x5c.first() else { continue };
            let root = STANDARD.decode(root).map_err(|_| BundleError::Document)?;
            bundle.push(&CertificateDer::from(root))?;
        }
        Ok(bundle)
    }

    /// A bundle that trusts nobody: every SVID of its domain is invalid.
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, anchors: Vec::new(), validities: Vec::new() }
    }

    /// Whose roots these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// How many roots there are.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether this bundle trusts nobody.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The validity of an anchor that was taken from [`Self::anchors`].
    pub(crate) fn validity_of(&self, anchor: &TrustAnchor<'_>) -> Option<Validity> {
        // By place, not by value: a re-issued root has the same name and key, but another window.
        let at = self.anchors.iter().position(|own| std::ptr::eq(own, anchor))?;
        Some(self.validities[at])
    }

    pub(crate) fn push(&mut self, der: &CertificateDer<'_>) -> Result<(), BundleError> {
        let index = self.anchors.len();
        if index == BUNDLE_ROOTS_MAX {
            return Err(BundleError::TooMany);
        }
        let validity = check_root(der).map_err(|fault| BundleError::Root { index, fault })?;
        let anchor = webpki::anchor_from_trusted_cert(der)
            .map_err(|_| BundleError::Root { index, fault: RootFault::Malformed })?;
        self.anchors.push(anchor.to_owned());
        self.validities.push(validity);
        Ok(())
    }
}

/// Bundles by trust domain, and who of them is denied all the same.
#[derive(Clone, Debug, Default)]
pub struct TrustBundles {
    by_domain: BTreeMap<TrustDomain, TrustBundle>,
    deny_list: Arc<DenyList>,
}

impl TrustBundles {
    /// These bundles; of two for one domain the later one counts.
    pub fn new(bundles: impl IntoIterator<Item = TrustBundle>) -> Self {
        let by_domain = bundles.into_iter().map(|bundle| (bundle.trust_domain.clone(), bundle)).collect();
        Self { by_domain, deny_list: Arc::default() }
    }

    /// The same bundles with another deny list.
    #[must_use]
    pub fn with_deny_list(self, deny_list: Arc<DenyList>) -> Self {
        Self { deny_list, ..self }
    }

    /// The bundle of one trust domain, and of that domain only.
    pub fn get(&self, trust_domain: &str) -> Option<&TrustBundle> {
        self.by_domain.get(trust_domain)
    }

    /// Who is refused whatever the bundles say.
    pub fn deny_list(&self) -> &DenyList {
        &self.deny_list
    }

    pub(crate) fn shared_deny_list(&self) -> Arc<DenyList> {
        self.deny_list.clone()
    }
}

/// Why a bundle was not read.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not PEM.
    #[error("the bundle is not PEM: {0}")]
    Pem(pem::Error),
    /// Not a SPIFFE bundle document, or a certificate in it is not base64.
    #[error("the bundle is not a SPIFFE bundle document")]
    Document,
    /// An `x509-svid` key carries a `kid` (X509-SVID section 6.1).
    #[error("an x509-svid key of the bundle has a kid, which its publisher must not set")]
    KeyId,
    /// No certificate at all.
    #[error("the bundle holds no certificate")]
    Empty,
    /// Over [`BUNDLE_ROOTS_MAX`].
    #[error("the bundle holds more than 64 roots")]
    TooMany,
    /// A root that must not sign.
    #[error("root {index} of the bundle {fault}")]
    Root {
        /// Which one, counted from 0.
        index: usize,
        /// What is wrong with it.
        fault: RootFault,
    },
}

/// What is wrong with a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootFault {
    /// Not a certificate.
    #[error("is not a readable certificate")]
    Malformed,
    /// basicConstraints absent or `cA` false (X509-SVID section 4.1).
    #[error("is not a CA: basicConstraints lacks cA")]
    NotCa,
    /// keyUsage absent or without `keyCertSign` (X509-SVID section 4.3).
    #[error("may not sign certificates: keyUsage lacks keyCertSign")]
    KeyCertSign,
    /// Its own SPIFFE id has a path or is malformed (X509-SVID section 3.2).
    #[error("has a SPIFFE id with a path, which a signing certificate must not have")]
    SpiffeId,
}

impl From<Unreadable> for RootFault {
    fn from(_: Unreadable) -> Self {
        Self::Malformed
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: String,
    kid: Option<serde_json::Value>,
    #[serde(default)]
    x5c: Vec<String>,
}

fn check_root(der: &[u8]) -> Result<Validity, RootFault> {
    let root = Certificate::parse(der)?;
    if root.basic_constraints()? != Some(CertificateAuthority::Yes) {
        return Err(RootFault::NotCa);
    }
    if !root.key_usage()?.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(RootFault::KeyCertSign);
    }
    if !signing_id_is_allowed(&root)? {
        return Err(RootFault::SpiffeId);
    }
    Ok(root.validity())
}

/// Whether each SPIFFE id of a signing certificate is a bare trust domain (X509-SVID section 3.2).
pub(crate) fn signing_id_is_allowed(certificate: &Certificate<'_>) -> Result<bool, Unreadable> {
    let Some(names) = certificate.uris()? else {
        return Ok(true);
    };
    let is_spiffe = |uri: &&&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    let bare = |uri: &&str| SpiffeId::parse(uri).is_ok_and(|id| id.path().is_empty());
    Ok(names.uris.iter().filter(is_spiffe).all(bare))
}
