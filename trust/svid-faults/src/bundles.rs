//! Trust bundles that each break one rule: what reads them refuses them whole.

use rcgen::{CertificateParams, IsCa, KeyUsagePurpose};

use crate::Domain;
use crate::domain::{Ca, uri};

/// A bundle with one fault.
#[derive(Clone, Copy, Debug)]
pub struct BundleFault {
    /// Which rule it breaks.
    pub rule: u8,
    /// For whoever reads a failure.
    pub name: &'static str,
    /// What our side says of it.
    pub reason: &'static str,
    make: fn(&Domain) -> String,
}

impl BundleFault {
    /// The bundle, PEM: that of the domain and one root more, or nothing.
    pub fn make(&self, domain: &Domain) -> String {
        (self.make)(domain)
    }
}

/// Every bundle that is refused.
pub const BUNDLE_FAULTS: &[BundleFault] = &[
    BundleFault {
        rule: 9,
        name: "an empty bundle",
        reason: "the bundle holds no certificate",
        make: |_| String::new(),
    },
    BundleFault {
        rule: 11,
        name: "a root whose SPIFFE id has a path",
        reason: "has a SPIFFE id with a path, which a signing certificate must not have",
        make: |domain| with(domain, |params| params.subject_alt_names = vec![uri(&domain.id("ca"))]),
    },
    BundleFault {
        rule: 18,
        name: "a root that is no CA",
        reason: "is not a CA: basicConstraints lacks cA",
        make: |domain| with(domain, |params| params.is_ca = IsCa::ExplicitNoCa),
    },
    BundleFault {
        rule: 18,
        name: "a root that may not sign certificates",
        reason: "may not sign certificates: keyUsage lacks keyCertSign",
        make: |domain| with(domain, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
    },
];

fn with(domain: &Domain, edit: impl FnOnce(&mut CertificateParams)) -> String {
    domain.bundle() + &Ca::root(&domain.name, edit).pem
}
