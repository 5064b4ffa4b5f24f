//! One test per rule of the X.509-SVID checklist. Each makes the chain that
//! [`a_valid_chain_is_accepted`] accepts, changes one thing, and expects that rule's own error.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints,
};
use rustls_pki_types::CertificateDer;
use zen_identity::{
    CHAIN_CERTIFICATES_MAX, Denial, DenyEntry, DenyList, PeerUsage, SpiffeId, SpiffeIdError, SvidError,
    TrustBundle, TrustBundles, TrustDomain, check_svid, peer_id, peer_not_after,
};

use crate::pki::{Ca, DAY, DOMAIN, ID, at, der, dns, extension, named, pem, set_window, uri};

const NOW: i64 = 1_800_000_000;
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

/// Root, intermediate, and a leaf with one edit; checked as client and as server.
fn check_leaf(edit: impl FnOnce(&mut CertificateParams)) -> Result<SpiffeId, SvidError> {
    let root = Ca::root(NOW, |_| {});
    let intermediate = root.intermediate(|_| {});
    let leaf = intermediate.leaf(edit);
    check(&[leaf.der, intermediate.der], &root.bundles())
}

/// The same with an edit of the intermediate.
fn check_intermediate(edit: impl FnOnce(&mut CertificateParams)) -> Result<SpiffeId, SvidError> {
    let root = Ca::root(NOW, |_| {});
    let intermediate = root.intermediate(edit);
    let leaf = intermediate.leaf(|_| {});
    check(&[leaf.der, intermediate.der], &root.bundles())
}

fn check(chain: &[CertificateDer<'_>], bundles: &TrustBundles) -> Result<SpiffeId, SvidError> {
    let client = check_svid(chain, bundles, at(NOW), PeerUsage::Client);
    assert_eq!(client, check_svid(chain, bundles, at(NOW), PeerUsage::Server));
    client
}

#[test]
fn a_valid_chain_is_accepted() {
    assert_eq!(check_leaf(|_| {}).unwrap().as_str(), ID);
    assert_eq!(check_intermediate(|_| {}).unwrap().as_str(), ID);
}

#[test]
fn a_leaf_of_the_root_itself_is_accepted_and_read_back() {
    let root = Ca::root(NOW, |_| {});
    let leaf = root.leaf(|params| params.subject_alt_names.push(dns("ingester.example.org")));
    let chain = [leaf.der];
    assert_eq!(check(&chain, &root.bundles()).unwrap().as_str(), ID);
    assert_eq!(peer_id(Some(&chain)).unwrap().as_str(), ID);
    assert_eq!(peer_not_after(Some(&chain)), Some(at(NOW + DAY)));
    assert_eq!(peer_id(None), None);
    assert_eq!(peer_id(Some(&[])), None);
}

#[test]
fn rule_1_only_the_bundle_of_the_leafs_own_domain_counts() {
    let ours = Ca::root(NOW, |_| {});
    let theirs = Ca::root(NOW, |params| params.distinguished_name = named("other root"));
    let bundles = TrustBundles::new([ours.bundle(DOMAIN), theirs.bundle("other.example")]);
    let stranger = "spiffe://other.example/ns/edge/sa/ingester";
    let honest = theirs.leaf(|params| params.subject_alt_names = vec![uri(stranger)]);
    assert_eq!(check(&[honest.der], &bundles).unwrap().as_str(), stranger);
    let forged = ours.leaf(|params| params.subject_alt_names = vec![uri(stranger)]);
    assert_eq!(check(&[forged.der], &bundles), Err(SvidError::UnknownIssuer));
}

#[test]
fn rule_1_a_wrong_signature_is_refused() {
    let root = Ca::root(NOW, |_| {});
    let mut leaf = root.leaf(|_| {}).der.to_vec();
    *leaf.last_mut().unwrap() ^= 1;
    assert_eq!(check(&[leaf.into()], &root.bundles()), Err(SvidError::Signature));
    let same_name = Ca::root(NOW, |_| {});
    assert_eq!(check(&[root.leaf(|_| {}).der], &same_name.bundles()), Err(SvidError::Signature));
}

#[test]
fn rule_1_a_missing_intermediate_is_refused() {
    let root = Ca::root(NOW, |_| {});
    let leaf = root.intermediate(|_| {}).leaf(|_| {});
    assert_eq!(check(&[leaf.der], &root.bundles()), Err(SvidError::UnknownIssuer));
}

#[test]
fn rule_1_both_ends_of_the_validity_belong_to_it() {
    let root = Ca::root(NOW, |_| {});
    let bundles = root.bundles();
    let leaf = [root.leaf(|params| set_window(params, NOW - 10, NOW + 10)).der];
    let check = |seconds| check_svid(&leaf, &bundles, at(seconds), PeerUsage::Client);
    assert_eq!(check(NOW - 11), Err(SvidError::NotYetValid));
    assert!(check(NOW - 10).is_ok());
    assert!(check(NOW + 10).is_ok());
    assert_eq!(check(NOW + 11), Err(SvidError::Expired));
}

#[test]
fn rule_1_an_intermediate_outside_its_validity_is_refused() {
    assert_eq!(check_intermediate(|params| set_window(params, NOW - 10, NOW - 1)), Err(SvidError::Expired));
    assert_eq!(
        check_intermediate(|params| set_window(params, NOW + 1, NOW + 10)),
        Err(SvidError::NotYetValid)
    );
}

#[test]
fn rule_1_path_length_and_purpose_of_an_issuer_bind() {
    let root = Ca::root(NOW, |_| {});
    let first = root.intermediate(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let second = first.intermediate(|params| params.distinguished_name = named("second"));
    let chain = [second.leaf(|_| {}).der, second.der.clone(), first.der.clone()];
    let refused = Err(SvidError::Path(webpki::Error::PathLenConstraintViolated));
    assert_eq!(check(&chain, &root.bundles()), refused);

    let client_only =
        root.intermediate(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let chain = [client_only.leaf(|_| {}).der, client_only.der.clone()];
    assert!(check_svid(&chain, &root.bundles(), at(NOW), PeerUsage::Client).is_ok());
    let server = check_svid(&chain, &root.bundles(), at(NOW), PeerUsage::Server);
    assert!(
        matches!(server, Err(SvidError::Path(webpki::Error::RequiredEkuNotFoundContext(_)))),
        "{server:?}"
    );
}

#[test]
fn rule_1_an_issuer_that_is_no_ca_is_refused() {
    assert_eq!(check_intermediate(|params| params.is_ca = IsCa::ExplicitNoCa), Err(SvidError::IssuerNotCa));
}

#[test]
fn rule_2_a_leaf_that_is_a_ca_is_refused() {
    let edit = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(check_leaf(edit), Err(SvidError::LeafIsCa));
}

#[test]
fn rule_3_a_leaf_that_signs_certificates_is_refused() {
    let edit = |params: &mut CertificateParams| params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    assert_eq!(check_leaf(edit), Err(SvidError::KeyCertSign));
}

#[test]
fn rule_4_a_leaf_that_signs_revocation_lists_is_refused() {
    let edit = |params: &mut CertificateParams| params.key_usages.push(KeyUsagePurpose::CrlSign);
    assert_eq!(check_leaf(edit), Err(SvidError::CrlSign));
}

#[test]
fn rule_5_exactly_one_uri_name() {
    for second in ["spiffe://example.org/other", ID, "https://example.org/"] {
        let edit = |params: &mut CertificateParams| params.subject_alt_names.push(uri(second));
        assert_eq!(check_leaf(edit), Err(SvidError::SeveralUris), "{second}");
    }
    let dns_only = |params: &mut CertificateParams| params.subject_alt_names = vec![dns("example.org")];
    assert_eq!(check_leaf(dns_only), Err(SvidError::NoUri));
    assert_eq!(check_leaf(|params| params.subject_alt_names.clear()), Err(SvidError::NoUri));
}

fn check_id(id: &str) -> Result<SpiffeId, SvidError> {
    check_leaf(|params| params.subject_alt_names = vec![uri(id)])
}

#[test]
fn rule_6_only_the_spiffe_scheme() {
    assert_eq!(check_id("https://example.org/a"), Err(SvidError::Id(SpiffeIdError::Scheme)));
}

#[test]
fn rule_7_a_leafs_id_has_a_path() {
    assert_eq!(check_id("spiffe://example.org"), Err(SvidError::NoPath));
    assert_eq!(check_id("spiffe://example.org/"), Err(SvidError::Id(SpiffeIdError::TrailingSlash)));
}

#[test]
fn rule_8_the_grammar_of_ids() {
    for (id, error) in [
        ("spiffe:///a", SpiffeIdError::TrustDomainEmpty),
        ("spiffe://user@example.org/a", SpiffeIdError::TrustDomainCharacter),
        ("spiffe://example.org:443/a", SpiffeIdError::TrustDomainCharacter),
        ("spiffe://example.org/a?b", SpiffeIdError::PathCharacter),
        ("spiffe://example.org/a#b", SpiffeIdError::PathCharacter),
        ("spiffe://example.org/%61", SpiffeIdError::PathCharacter),
        ("spiffe://example.org//a", SpiffeIdError::EmptySegment),
        ("spiffe://example.org/a/../b", SpiffeIdError::DotSegment),
        ("spiffe://example.org/a\0", SpiffeIdError::PathCharacter),
    ] {
        assert_eq!(check_id(id), Err(SvidError::Id(error)), "{id:?}");
    }
    let longest = format!("spiffe://example.org/{}", "a".repeat(2048 - "spiffe://example.org/".len()));
    assert!(check_id(&longest).is_ok());
    assert_eq!(check_id(&format!("{longest}a")), Err(SvidError::Id(SpiffeIdError::TooLong)));
}

#[test]
fn rule_8_a_name_that_is_not_text_is_refused() {
    let names = der(0x30, &der(0x86, b"spiffe://example.org/\xff"));
    let edit = |params: &mut CertificateParams| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![extension(SUBJECT_ALT_NAME, true, &names)];
    };
    assert_eq!(check_leaf(edit), Err(SvidError::Malformed));
}

#[test]
fn rule_9_an_empty_bundle_trusts_nobody() {
    let root = Ca::root(NOW, |_| {});
    let chain = [root.leaf(|_| {}).der];
    let empty = TrustBundle::empty(TrustDomain::parse(DOMAIN).unwrap());
    assert_eq!(check(&chain, &TrustBundles::new([empty])), Err(SvidError::BundleEmpty));
    assert_eq!(check(&chain, &TrustBundles::default()), Err(SvidError::UnknownTrustDomain));
}

// Rule 10, the bundle document, is in `bundles`.

#[test]
fn rule_11_a_signing_certificate_does_not_authenticate() {
    let root = Ca::root(NOW, |_| {});
    let intermediate = root.intermediate(|params| params.subject_alt_names = vec![uri(ID)]);
    assert_eq!(check(&[intermediate.der], &root.bundles()), Err(SvidError::LeafIsCa));
}

#[test]
fn rule_11_a_signing_certificates_id_has_no_path() {
    for id in ["spiffe://example.org/ca", "spiffe://Example.org", "SPIFFE://example.org/ca"] {
        let edit = |params: &mut CertificateParams| params.subject_alt_names = vec![uri(id)];
        assert_eq!(check_intermediate(edit), Err(SvidError::SigningCertificateId), "{id}");
    }
    assert!(
        check_intermediate(|params| params.subject_alt_names = vec![uri("https://example.org/ca")]).is_ok()
    );
    assert!(check_intermediate(|params| params.subject_alt_names.clear()).is_ok());
}

#[test]
fn rule_12_key_usage_is_present_critical_and_for_signatures() {
    assert_eq!(check_leaf(|params| params.key_usages.clear()), Err(SvidError::KeyUsageMissing));
    let not_critical = |params: &mut CertificateParams| {
        params.key_usages.clear();
        params.custom_extensions = vec![extension(KEY_USAGE, false, &[0x03, 0x02, 0x07, 0x80])];
    };
    assert_eq!(check_leaf(not_critical), Err(SvidError::KeyUsageNotCritical));
    let no_signature =
        |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    assert_eq!(check_leaf(no_signature), Err(SvidError::DigitalSignatureMissing));
}

#[test]
fn rule_12_a_signing_certificate_may_sign_certificates() {
    let refused = Err(SvidError::SigningCertificateUsage);
    assert_eq!(check_intermediate(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), refused);
    assert_eq!(check_intermediate(|params| params.key_usages.clear()), refused);
}

#[test]
fn rule_13_key_usage_holds_nothing_else() {
    use KeyUsagePurpose as Usage;
    for excess in
        [Usage::ContentCommitment, Usage::DataEncipherment, Usage::EncipherOnly, Usage::DecipherOnly]
    {
        let edit = |params: &mut CertificateParams| params.key_usages.push(excess);
        assert_eq!(check_leaf(edit), Err(SvidError::KeyUsageExcess), "{excess:?}");
    }
    for allowed in [Usage::KeyEncipherment, Usage::KeyAgreement] {
        assert!(check_leaf(|params| params.key_usages.push(allowed)).is_ok());
    }
}

#[test]
fn rule_14_extended_key_usage_holds_both_purposes_or_is_absent() {
    use ExtendedKeyUsagePurpose as Purpose;
    for purposes in [vec![Purpose::ServerAuth], vec![Purpose::ClientAuth], vec![Purpose::Any]] {
        let edit = |params: &mut CertificateParams| params.extended_key_usages = purposes;
        assert_eq!(check_leaf(edit), Err(SvidError::ExtendedKeyUsage));
    }
    assert!(check_leaf(|params| params.extended_key_usages.clear()).is_ok());
}

#[test]
fn rule_15_basic_constraints_are_present() {
    assert_eq!(check_leaf(|params| params.is_ca = IsCa::NoCa), Err(SvidError::BasicConstraintsMissing));
}

#[test]
fn rule_16_names_are_critical_when_the_subject_is_empty() {
    let names = der(0x30, &der(0x86, ID.as_bytes()));
    let with_names = |critical, subject| {
        let names = extension(SUBJECT_ALT_NAME, critical, &names);
        check_leaf(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions = vec![names];
            params.distinguished_name = subject;
        })
    };
    assert!(with_names(true, rcgen::DistinguishedName::new()).is_ok());
    assert!(with_names(false, named("ingester")).is_ok());
    assert_eq!(with_names(false, rcgen::DistinguishedName::new()), Err(SvidError::NamesNotCritical));
}

#[test]
fn rule_17_nothing_is_folded() {
    for (id, error) in [
        ("Spiffe://example.org/a", SpiffeIdError::Scheme),
        ("SPIFFE://example.org/a", SpiffeIdError::Scheme),
        ("spiffe://Example.org/a", SpiffeIdError::TrustDomainCharacter),
    ] {
        assert_eq!(check_id(id), Err(SvidError::Id(error)), "{id}");
    }
}

// What rule 18 says of a root's cA and keyCertSign is in `bundles`.

#[test]
fn rule_18_a_root_outside_its_validity_is_refused() {
    let root = Ca::root(NOW, |params| set_window(params, NOW - 10, NOW + 10));
    let bundles = root.bundles();
    let chain = [root.leaf(|_| {}).der];
    let check = |seconds| check_svid(&chain, &bundles, at(seconds), PeerUsage::Server);
    assert_eq!(check(NOW - 11), Err(SvidError::RootNotYetValid));
    assert!(check(NOW - 10).is_ok());
    assert!(check(NOW + 10).is_ok());
    assert_eq!(check(NOW + 11), Err(SvidError::RootExpired));
}

#[test]
fn rule_18_a_root_issued_again_with_the_same_key_takes_over() {
    let expired = Ca::root(NOW, |params| set_window(params, NOW - 10, NOW - 1));
    let key = KeyPair::from_pem(&expired.key_pem()).unwrap();
    let renewed = Ca::root_with_key(NOW, key, |_| {});
    let domain = TrustDomain::parse(DOMAIN).unwrap();
    let both = pem(&[&expired.der, &renewed.der]);
    let bundles = TrustBundles::new([TrustBundle::from_pem(domain, both.as_bytes()).unwrap()]);
    let chain = [expired.leaf(|_| {}).der];
    assert!(check(&chain, &bundles).is_ok());
    assert_eq!(check(&chain, &expired.bundles()), Err(SvidError::RootExpired));
}

#[test]
fn rule_19_uri_name_constraints_fail_closed() {
    let permitted = der(0x30, &der(0xa0, &der(0x30, &der(0x86, b"example.org"))));
    let edit = |params: &mut CertificateParams| {
        params.custom_extensions = vec![extension(NAME_CONSTRAINTS, true, &permitted)];
    };
    assert_eq!(check_intermediate(edit), Err(SvidError::NameConstraints));
}

#[test]
fn rule_19_other_name_constraints_bind_names_of_their_type() {
    let constrain = |domain: &str| {
        let root = Ca::root(NOW, |_| {});
        let intermediate = root.intermediate(|params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName(domain.into())],
                excluded_subtrees: vec![],
            });
        });
        let leaf = intermediate.leaf(|params| params.subject_alt_names.push(dns("a.example.org")));
        check(&[leaf.der, intermediate.der], &root.bundles())
    };
    assert!(constrain("example.org").is_ok());
    assert_eq!(constrain("other.example"), Err(SvidError::NameConstraints));
}

#[test]
fn rule_20_denied_by_serial_key_and_id() {
    let root = Ca::root(NOW, |_| {});
    let intermediate = root.intermediate(|_| {});
    let leaf = intermediate.leaf(|params| params.serial_number = Some(vec![0xf0, 0x0d].into()));
    let hash =
        |key: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key).as_ref().try_into().unwrap();
    let leaf_key = hash(&rcgen::PublicKeyData::subject_public_key_info(&leaf.key));
    let issuer_key = KeyPair::from_pem(&intermediate.key_pem()).unwrap();
    let issuer_key = hash(&rcgen::PublicKeyData::subject_public_key_info(&issuer_key));
    let chain = [leaf.der, intermediate.der];
    for (entry, denial) in [
        (DenyEntry::Serial(vec![0xf0, 0x0d]), Denial::Serial),
        (DenyEntry::Serial(vec![0, 0xf0, 0x0d]), Denial::Serial),
        (DenyEntry::PublicKey(leaf_key), Denial::PublicKey),
        (DenyEntry::PublicKey(issuer_key), Denial::PublicKey),
        (DenyEntry::Id(SpiffeId::parse(ID).unwrap()), Denial::Id),
    ] {
        let list = DenyList::new([entry.clone()]);
        assert_eq!(list.denies(&chain, at(NOW)), Some(denial), "{entry:?}");
        let bundles = root.bundles().with_deny_list(list.into());
        assert_eq!(check(&chain, &bundles), Err(SvidError::Denied(denial)), "{entry:?}");
    }
    let id = r#"{"version":1,"entries":[{"spiffe_id":"ID","until_ms":END}]}"#.replace("ID", ID);
    for (end, denied) in [(NOW - 1, None), (NOW, Some(Denial::Id)), (NOW + 1, Some(Denial::Id))] {
        let list = DenyList::from_json(id.replace("END", &format!("{end}000")).as_bytes()).unwrap();
        assert_eq!(list.denies(&chain, at(NOW)), denied, "until {end}");
        let bundles = root.bundles().with_deny_list(list.into());
        assert_eq!(check(&chain, &bundles).err(), denied.map(SvidError::Denied), "until {end}");
    }
    let others = DenyList::new([
        DenyEntry::Serial(vec![0x0d]),
        DenyEntry::PublicKey([0; 32]),
        DenyEntry::Id(SpiffeId::parse("spiffe://example.org/ns/edge").unwrap()),
    ]);
    assert_eq!(others.denies(&chain, at(NOW)), None);
    assert!(check(&chain, &root.bundles().with_deny_list(others.into())).is_ok());
}

// Rule 21, our own chain before it is installed, is in `reload`.

#[test]
fn a_chain_is_bounded() {
    let root = Ca::root(NOW, |_| {});
    let leaf = root.leaf(|_| {}).der;
    let mut chain = vec![leaf];
    chain.resize(CHAIN_CERTIFICATES_MAX, root.der.clone());
    assert!(check(&chain, &root.bundles()).is_ok());
    chain.push(root.der.clone());
    assert_eq!(check(&chain, &root.bundles()), Err(SvidError::ChainTooLong));
    assert_eq!(check(&[], &root.bundles()), Err(SvidError::EmptyChain));
}

#[test]
fn every_truncation_extension_and_doubled_extension_is_malformed() {
    let root = Ca::root(NOW, |_| {});
    let leaf = root.leaf(|_| {}).der;
    let bundles = root.bundles();
    for end in 0..leaf.len() {
        assert_eq!(check(&[leaf[..end].into()], &bundles), Err(SvidError::Malformed), "{end}");
    }
    let longer = [&leaf[..], &[0]].concat();
    assert_eq!(check(&[longer.into()], &bundles), Err(SvidError::Malformed));
    let doubled = |params: &mut CertificateParams| {
        params.custom_extensions = vec![extension(KEY_USAGE, true, &[0x03, 0x02, 0x07, 0x80])];
    };
    assert_eq!(check_leaf(doubled), Err(SvidError::Malformed));
}

#[test]
fn no_flipped_bit_makes_another_identity() {
    let root = Ca::root(NOW, |_| {});
    let leaf = root.leaf(|_| {}).der;
    let bundles = root.bundles();
    for at_byte in 0..leaf.len() {
        let mut bytes = leaf.to_vec();
        bytes[at_byte] ^= 1 << (at_byte % 8);
        let chain = [bytes.into()];
        for usage in [PeerUsage::Client, PeerUsage::Server] {
            assert!(check_svid(&chain, &bundles, at(NOW), usage).is_err(), "{at_byte}");
        }
    }
}
