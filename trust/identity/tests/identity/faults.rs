//! The table of chains and bundles that each break one rule, by this crate alone; at the hops, each binary does the same
//! with sockets (`svid_rules` among its tests).

use std::fs;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use zen_identity::{
    DenyList, PeerUsage, PrivateKeySource, SvidFiles, SvidStore, TrustBundle, TrustBundles, TrustDomain,
    check_svid,
};
use zen_svid_faults::{BUNDLE_FAULTS, Domain, FAULTS, Shown};

use crate::pki::DOMAIN;

const PATH: &str = "ns/edge/sa/ingester";

fn bundles(domain: &Domain) -> TrustBundles {
    let bundle =
        TrustBundle::from_pem(TrustDomain::parse(DOMAIN).unwrap(), domain.bundle().as_bytes()).unwrap();
    let denied = DenyList::from_json(domain.denied(PATH).document().as_bytes()).unwrap();
    TrustBundles::new([bundle]).with_deny_list(denied.into())
}

fn chain(shown: &Shown) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(shown.chain.as_bytes()).collect::<Result<_, _>>().unwrap()
}

#[test]
fn each_chain_is_refused_for_its_reason_and_the_good_one_is_not() {
    let domain = Domain::new(DOMAIN);
    let bundles = bundles(&domain);
    for usage in [PeerUsage::Client, PeerUsage::Server] {
        let good = check_svid(&chain(&domain.good(PATH)), &bundles, UnixTime::now(), usage);
        assert_eq!(good.unwrap().as_str(), domain.id(PATH));
        for fault in FAULTS {
            let refused = check_svid(&chain(&fault.make(&domain, PATH)), &bundles, UnixTime::now(), usage);
            let said = refused.expect_err(fault.name).to_string();
            assert!(said.contains(fault.reason), "rule {}, {}: {said}", fault.rule, fault.name);
        }
    }
}

/// What we load as our own; the chain in a file, as an issuer gave it.
fn load(shown: &Shown, bundle: &str) -> Result<(), String> {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(files.path().join(name), text).unwrap();
        files.path().join(name)
    };
    let private = file("svid.key", &shown.key);
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let files = SvidFiles {
        certificate_file: file("svid.pem", &shown.chain),
        private_key: PrivateKeySource::File(private),
        trust_bundle_file: file("bundle.pem", bundle),
        trust_domain: TrustDomain::parse(DOMAIN).unwrap(),
    };
    SvidStore::load(files).map(|_| ()).map_err(|error| error_chain(&error))
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or(String::new(), error_chain);
    format!("{error}; {source}")
}

#[test]
fn rule_21_no_such_chain_becomes_our_own() {
    let domain = Domain::new(DOMAIN);
    load(&domain.good(PATH), &domain.bundle()).unwrap();
    for fault in FAULTS.iter().filter(|fault| !fault.is_denial()) {
        let said = load(&fault.make(&domain, PATH), &domain.bundle()).expect_err(fault.name);
        assert!(said.contains(fault.reason), "rule {}, {}: {said}", fault.rule, fault.name);
    }
}

#[test]
fn each_bundle_is_refused_for_its_reason() {
    let domain = Domain::new(DOMAIN);
    for fault in BUNDLE_FAULTS {
        let said = load(&domain.good(PATH), &fault.make(&domain)).expect_err(fault.name);
        assert!(said.contains(fault.reason), "rule {}, {}: {said}", fault.rule, fault.name);
    }
}
