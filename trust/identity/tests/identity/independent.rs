//! An independent reader of SVIDs, the crate `spiffe`, beside ours: what is good is good for both, and where it takes what we
//! refuse is written down with why. It looks at a chain without a bundle, so no rule about paths, roots and denials is its.

use std::collections::BTreeSet;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::{SpiffeId as Theirs, TrustDomain as TheirDomain, X509Bundle, X509Svid};
use zen_identity::SpiffeId;
use zen_svid_faults::{Domain, FAULTS, Shown};

use crate::pki::DOMAIN;

const PATH: &str = "ns/edge/sa/ingester";

/// Who takes what we refuse, and why: rows of the table by name.
const TAKEN_BY_THEM: &[(&str, &[&str])] = &[
    (
        "it has no bundle to build a path to, and no clock",
        &[
            "of an unknown root",
            "of a CA with our CA's name",
            "without its issuer",
            "ended",
            "not begun",
            "of an issuer that has ended",
            "below a CA that allows none below it",
            "of an issuer for other purposes",
            "of another trust domain",
            "with nine certificates",
            "of a root that has ended",
            "of a root that has not begun",
            "of an issuer with constraints on URIs",
        ],
    ),
    ("it has no deny list", &["with a denied serial number", "with a denied key", "with a denied id"]),
    (
        "it folds scheme and trust domain to lower case, so that two texts are one id",
        &["with an upper-case scheme", "with an upper-case trust domain"],
    ),
    (
        "the documents ask it of issuers and leave it open to readers (X509-SVID 3.1, 3.2, 4.3, 4.4)",
        &[
            "of an issuer with an id",
            "with keyUsage that is not critical",
            "with nonRepudiation",
            "for servers only",
            "for clients only",
            "with names that are not critical",
        ],
    ),
];

/// The id that the other reader finds.
fn read(shown: &Shown) -> Result<String, String> {
    let chain: Vec<u8> = CertificateDer::pem_slice_iter(shown.chain.as_bytes())
        .flat_map(|certificate| certificate.unwrap().to_vec())
        .collect();
    let key = PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap();
    X509Svid::parse_from_der(&chain, key.secret_der())
        .map(|svid| svid.spiffe_id().to_string())
        .map_err(|error| error.to_string())
}

#[test]
fn both_read_a_good_chain_and_its_bundle() {
    let domain = Domain::new(DOMAIN);
    assert_eq!(read(&domain.good(PATH)).unwrap(), domain.id(PATH));
    let roots: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(domain.bundle().as_bytes())
        .map(|root| root.unwrap().to_vec())
        .collect();
    let bundle = X509Bundle::parse_from_der(TheirDomain::new(DOMAIN).unwrap(), &roots.concat()).unwrap();
    let theirs: Vec<&[u8]> = bundle.authorities().iter().map(spiffe::cert::Certificate::as_bytes).collect();
    assert_eq!(theirs, roots);
}

#[test]
fn where_the_other_takes_what_we_refuse_is_known() {
    let domain = Domain::new(DOMAIN);
    let expected: BTreeSet<&str> = TAKEN_BY_THEM.iter().flat_map(|(_, names)| *names).copied().collect();
    let taken: BTreeSet<&str> = FAULTS
        .iter()
        .filter(|fault| read(&fault.make(&domain, PATH)).is_ok())
        .map(|fault| fault.name)
        .collect();
    assert_eq!(taken, expected);
}

/// Ids alone: theirs folds what must be in lower case, and so takes two spellings for one id.
#[test]
fn ids_differ_in_case_only() {
    for (text, is_ours, theirs) in [
        ("spiffe://example.org/a", true, Some("spiffe://example.org/a")),
        ("spiffe://Example.org/a", false, Some("spiffe://example.org/a")),
        ("Spiffe://example.org/a", false, Some("spiffe://example.org/a")),
        ("spiffe://example.org/A", true, Some("spiffe://example.org/A")),
        ("spiffe://example.org/a/", false, None),
        ("spiffe://example.org//a", false, None),
        ("spiffe://example.org/./a", false, None),
        ("spiffe://example.org:1/a", false, None),
        ("spiffe://u@example.org/a", false, None),
        ("spiffe://example.org/a?b", false, None),
        ("spiffe://example.org/%61", false, None),
        ("spiffe://example.org/\u{e4}", false, None),
        ("https://example.org/a", false, None),
        ("", false, None),
    ] {
        assert_eq!(SpiffeId::parse(text).is_ok(), is_ours, "{text}");
        assert_eq!(Theirs::new(text).ok().map(|id| id.to_string()).as_deref(), theirs, "{text}");
    }
}
