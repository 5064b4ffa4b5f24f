//! The table of chains, each one change away from a good one.

use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

use crate::domain::{Ca, DAY_S, named, now, set_window, uri};
use crate::{Domain, Shown};

/// A chain with one fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which rule it breaks.
    pub rule: u8,
    /// For whoever reads a failure; each once.
    pub name: &'static str,
    /// What our side says of it.
    pub reason: &'static str,
    make: fn(&Domain, &str) -> Shown,
}

impl Fault {
    /// What a peer whose id has this path would show.
    pub fn make(&self, domain: &Domain, path: &str) -> Shown {
        (self.make)(domain, path)
    }

    /// Whether it is refused for the sake of a deny list, [`Denied::document`](crate::Denied::document).
    pub fn is_denial(&self) -> bool {
        self.rule == 20
    }

    /// Whether it is refused for the sake of a root that is in [`Domain::bundle`] beside the good one.
    pub fn needs_bundle(&self) -> bool {
        self.rule == 18
    }
}

/// Rules that no certificate which a peer shows can break, with why.
pub const NOT_AT_A_HOP: &[(u8, &str)] = &[
    (
        9,
        "a bundle without roots is refused as a file, see BUNDLE_FAULTS; a document's is in zen-identity's tests",
    ),
    (10, "no hop reads a SPIFFE bundle document: bundles come as PEM; zen-identity's tests read documents"),
    (
        21,
        "it is about our own chain: every row of FAULTS is refused as our own before it is shown to anybody",
    ),
];

/// Every chain that is refused.
pub const FAULTS: &[Fault] = &[
    fault(1, "of an unknown root", "no root of the leaf's trust domain issued this chain", |domain, path| {
        let stranger = Ca::root(&domain.name, |params| params.distinguished_name = named("a stranger"));
        stranger.leaf(&domain.id(path), |_| {}).behind(&[&stranger])
    }),
    fault(1, "of a CA with our CA's name", "a signature of the chain is wrong", |domain, path| {
        // The same name as the issuing CA of the domain, and another key.
        let twin = domain.root.ca(&domain.name, |_| {});
        twin.leaf(&domain.id(path), |_| {}).behind(&[&domain.issuing])
    }),
    fault(1, "without its issuer", "no root of the leaf's trust domain issued this chain", |domain, path| {
        domain.issuing.leaf(&domain.id(path), |_| {})
    }),
    fault(1, "ended", "a certificate of the chain has expired", |domain, path| {
        domain.leaf(path, |params| set_window(params, now() - DAY_S, now() - 60))
    }),
    fault(
        1,
        "not begun",
        "a certificate of the chain is not valid yet; compare the clocks",
        |domain, path| domain.leaf(path, |params| set_window(params, now() + 3600, now() + DAY_S)),
    ),
    fault(1, "of an issuer that has ended", "a certificate of the chain has expired", |domain, path| {
        domain.leaf_of(path, |params| set_window(params, now() - DAY_S, now() - 60))
    }),
    fault(1, "of an issuer that is no CA", "an issuer of the chain is not a CA", |domain, path| {
        domain.leaf_of(path, |params| params.is_ca = IsCa::ExplicitNoCa)
    }),
    fault(1, "below a CA that allows none below it", "path validation failed", |domain, path| {
        let first =
            domain.root.ca(&domain.name, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
        let second = first.ca(&domain.name, |params| params.distinguished_name = named("one too many"));
        second.leaf(&domain.id(path), |_| {}).behind(&[&second, &first])
    }),
    fault(1, "of an issuer for other purposes", "path validation failed", |domain, path| {
        domain.leaf_of(path, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])
    }),
    fault(
        1,
        "of another trust domain",
        "there is no trust bundle for the leaf's trust domain",
        |domain, path| named_as(domain, &format!("spiffe://other.example/{path}")),
    ),
    fault(1, "with nine certificates", "the chain has more than 8 certificates", |domain, path| {
        domain.leaf(path, |_| {}).behind(&[&domain.root; 7])
    }),
    fault(1, "with an extension twice", "a certificate of the chain cannot be read", |domain, path| {
        domain.leaf(path, |params| params.custom_extensions = vec![key_usage(true)])
    }),
    fault(2, "a CA", "the leaf is a CA", |domain, path| {
        domain.leaf(path, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
    }),
    fault(3, "with keyCertSign", "the leaf may sign certificates", |domain, path| {
        domain.leaf(path, |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))
    }),
    fault(4, "with cRLSign", "the leaf may sign revocation lists", |domain, path| {
        domain.leaf(path, |params| params.key_usages.push(KeyUsagePurpose::CrlSign))
    }),
    fault(5, "with a second SPIFFE id", "the leaf has more than one URI name", |domain, path| {
        domain.leaf(path, |params| params.subject_alt_names.push(uri(&domain.id("other"))))
    }),
    fault(5, "with a web address beside the id", "the leaf has more than one URI name", |domain, path| {
        domain.leaf(path, |params| params.subject_alt_names.push(uri("https://example.org/")))
    }),
    fault(5, "without a name", "the leaf has no URI name", |domain, path| {
        domain.leaf(path, |params| params.subject_alt_names.clear())
    }),
    fault(6, "with a web address for an id", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &format!("https://{}/{path}", domain.name))
    }),
    fault(7, "with the trust domain's id", "the leaf's SPIFFE id has no path", |domain, _| {
        named_as(domain, &format!("spiffe://{}", domain.name))
    }),
    fault(8, "with a port", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &format!("spiffe://{}:443/{path}", domain.name))
    }),
    fault(8, "with a user", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &format!("spiffe://user@{}/{path}", domain.name))
    }),
    fault(8, "without a trust domain", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &format!("spiffe:///{path}"))
    }),
    fault(8, "with a query", "not a SPIFFE id: ", |domain, path| named_as(domain, &(domain.id(path) + "?a"))),
    fault(8, "with a fragment", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &(domain.id(path) + "#a"))
    }),
    fault(8, "with a percent sign", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &(domain.id(path) + "%61"))
    }),
    fault(8, "with an empty segment", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &domain.id(&format!("/{path}")))
    }),
    fault(8, "with a dot segment", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &domain.id(&format!("./{path}")))
    }),
    fault(8, "with a slash at the end", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &(domain.id(path) + "/"))
    }),
    fault(8, "with an id of 2049 bytes", "not a SPIFFE id: ", |domain, path| {
        let id = domain.id(path);
        named_as(domain, &format!("{id}{}", "a".repeat(2049 - id.len())))
    }),
    fault(11, "a signing certificate itself", "the leaf is a CA", |domain, path| {
        let own =
            domain.root.ca(&domain.name, |params| params.subject_alt_names = vec![uri(&domain.id(path))]);
        Shown { chain: own.pem.clone(), key: own.key_pem }
    }),
    fault(
        11,
        "of an issuer with an id",
        "a signing certificate has a SPIFFE id with a path",
        |domain, path| domain.leaf_of(path, |params| params.subject_alt_names = vec![uri(&domain.id("ca"))]),
    ),
    fault(
        11,
        "of an issuer without keyCertSign",
        "a signing certificate may not sign certificates",
        |domain, path| domain.leaf_of(path, |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]),
    ),
    fault(12, "without keyUsage", "the leaf has no keyUsage", |domain, path| {
        domain.leaf(path, |params| params.key_usages.clear())
    }),
    fault(12, "with keyUsage that is not critical", "the leaf's keyUsage is not critical", |domain, path| {
        domain.leaf(path, |params| {
            params.key_usages.clear();
            params.custom_extensions = vec![key_usage(false)];
        })
    }),
    fault(12, "without digitalSignature", "the leaf's keyUsage lacks digitalSignature", |domain, path| {
        domain.leaf(path, |params| params.key_usages = vec![KeyUsagePurpose::KeyAgreement])
    }),
    fault(13, "with nonRepudiation", "the leaf's keyUsage has bits that no SVID needs", |domain, path| {
        domain.leaf(path, |params| params.key_usages.push(KeyUsagePurpose::ContentCommitment))
    }),
    fault(14, "for servers only", BOTH_PURPOSES, |domain, path| {
        domain.leaf(path, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])
    }),
    fault(14, "for clients only", BOTH_PURPOSES, |domain, path| {
        domain.leaf(path, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])
    }),
    fault(15, "without basicConstraints", "the leaf has no basicConstraints", |domain, path| {
        domain.leaf(path, |params| params.is_ca = IsCa::NoCa)
    }),
    fault(16, "with names that are not critical", "its subjectAltName is not critical", |domain, path| {
        let names = names(&domain.id(path));
        domain.leaf(path, |params| {
            params.subject_alt_names.clear();
            params.custom_extensions = vec![names];
        })
    }),
    fault(17, "with an upper-case scheme", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &format!("Spiffe://{}/{path}", domain.name))
    }),
    fault(17, "with an upper-case trust domain", "not a SPIFFE id: ", |domain, path| {
        named_as(domain, &format!("spiffe://{}/{path}", domain.name.to_ascii_uppercase()))
    }),
    fault(18, "of a root that has ended", "the root of the chain has expired", |domain, path| {
        domain.ended.leaf(&domain.id(path), |_| {})
    }),
    fault(18, "of a root that has not begun", "the root of the chain is not valid yet", |domain, path| {
        domain.coming.leaf(&domain.id(path), |_| {})
    }),
    fault(
        19,
        "of an issuer with constraints on URIs",
        "a name constraint of the chain does not hold",
        |domain, path| {
            let constraints = uri_constraint(&domain.name);
            domain.leaf_of(path, |params| params.custom_extensions = vec![constraints])
        },
    ),
    fault(20, "with a denied serial number", "the peer is on the deny list (Serial)", |domain, path| {
        domain.leaf(path, |params| params.serial_number = Some(Domain::denied_serial()))
    }),
    fault(20, "with a denied key", "the peer is on the deny list (PublicKey)", |domain, path| {
        domain.issuing.leaf_for(&domain.denied_key, &domain.id(path), |_| {}).behind(&[&domain.issuing])
    }),
    fault(20, "with a denied id", "the peer is on the deny list (Id)", |domain, path| {
        domain.leaf(&format!("{path}-denied"), |_| {})
    }),
];

const BOTH_PURPOSES: &str = "the leaf's extendedKeyUsage does not hold both serverAuth and clientAuth";

const fn fault(
    rule: u8,
    name: &'static str,
    reason: &'static str,
    make: fn(&Domain, &str) -> Shown,
) -> Fault {
    Fault { rule, name, reason, make }
}

/// A leaf whose only URI name is this.
fn named_as(domain: &Domain, id: &str) -> Shown {
    domain.leaf("a", |params| params.subject_alt_names = vec![uri(id)])
}

/// `digitalSignature`.
fn key_usage(critical: bool) -> CustomExtension {
    extension(&[2, 5, 29, 15], critical, &[0x03, 0x02, 0x07, 0x80])
}

/// A subjectAltName with one URI, not critical.
fn names(id: &str) -> CustomExtension {
    extension(&[2, 5, 29, 17], false, &der(0x30, &der(0x86, id.as_bytes())))
}

/// Permits URIs of one host (RFC 5280 section 4.2.1.10).
fn uri_constraint(host: &str) -> CustomExtension {
    let permitted = der(0x30, &der(0xa0, &der(0x30, &der(0x86, host.as_bytes()))));
    extension(&[2, 5, 29, 30], true, &permitted)
}

fn extension(oid: &[u64], critical: bool, content: &[u8]) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content.to_vec());
    extension.set_criticality(critical);
    extension
}

/// DER of one value shorter than 128 bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 128);
    [&[tag, length.expect("a short value")], content].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{BUNDLE_FAULTS, RULES};

    #[test]
    fn every_rule_has_a_row_or_a_reason() {
        let rows = FAULTS.iter().map(|fault| fault.rule).chain(BUNDLE_FAULTS.iter().map(|fault| fault.rule));
        let named = NOT_AT_A_HOP.iter().map(|(rule, _)| *rule);
        assert_eq!(rows.chain(named).collect::<BTreeSet<u8>>(), RULES.collect());
        let names: BTreeSet<&str> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len(), "each name once");
    }

    #[test]
    fn every_row_can_be_made() {
        let domain = Domain::new("example.org");
        for fault in FAULTS {
            let shown = fault.make(&domain, "a/b");
            assert!(shown.chain.starts_with("-----BEGIN CERTIFICATE-----"), "{}", fault.name);
            assert_ne!(shown.chain, domain.good("a/b").chain, "{}", fault.name);
        }
        for fault in BUNDLE_FAULTS {
            assert_ne!(fault.make(&domain), domain.bundle(), "{}", fault.name);
        }
    }
}
