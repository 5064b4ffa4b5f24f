//! Entry points for fuzzing: arbitrary bytes in, broken invariants out as panics.
#![doc(hidden)]

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    DENY_LIST_BYTES_MAX, DENY_LIST_ENTRIES_MAX, DenyList, PeerUsage, SpiffeId, SpiffePattern, TrustBundle,
    TrustBundles, TrustDomain, check_svid, peer_id,
};

/// An accepted id is its own text, splits into itself, and its domain stands alone.
pub fn fuzz_spiffe_id(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(id) = SpiffeId::parse(text) else { return };
    assert_eq!(id.as_str(), text);
    assert!(text.is_ascii() && text.len() <= crate::spiffe_id::SPIFFE_ID_BYTES_MAX);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert!(TrustDomain::parse(id.trust_domain()).is_ok());
    let segments: Vec<&str> = id.segments().collect();
    assert_eq!(segments.join("/"), id.path().trim_start_matches('/'));
    assert!(id.segments().all(|segment| !matches!(segment, "" | "." | "..")));
}

/// An accepted pattern prints as it was read, and a prefix matches its children only.
pub fn fuzz_pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(pattern) = SpiffePattern::parse(text) else { return };
    assert_eq!(pattern.to_string(), text);
    let Some(prefix) = text.strip_suffix("/*") else {
        let id = SpiffeId::parse(text).expect("an exact pattern is an id");
        assert!(pattern.matches(&id));
        return;
    };
    let below = |tail: &str| SpiffeId::parse(&format!("{prefix}{tail}")).is_ok_and(|id| pattern.matches(&id));
    assert!(!below("") && !below("x") && !below("x/y"));
    assert!(below("/x") || prefix.len() + 2 > crate::spiffe_id::SPIFFE_ID_BYTES_MAX);
}

/// No bytes are an SVID of a bundle that trusts nobody, and bundles refuse or read them quietly.
pub fn fuzz_certificate(data: &[u8]) {
    let domain = TrustDomain::parse("example.org").expect("a valid name");
    let chain = [CertificateDer::from(data), CertificateDer::from(data)];
    let bundles = TrustBundles::new([TrustBundle::empty(domain.clone())]);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_001));
    assert!(check_svid(&chain, &bundles, now, PeerUsage::Client).is_err());
    if let Some(id) = peer_id(Some(&chain)) {
        assert!(!id.path().is_empty());
        fuzz_spiffe_id(id.as_str().as_bytes());
    }
    for bundle in [TrustBundle::from_pem(domain.clone(), data), TrustBundle::from_spiffe_json(domain, data)] {
        assert!(
            bundle.is_err() || bundle.is_ok_and(|bundle| bundle.len() <= crate::bundle::BUNDLE_ROOTS_MAX)
        );
    }
}

/// What is read as a deny list keeps to its bounds, and says the same when it is read again.
pub fn fuzz_deny_list(data: &[u8]) {
    let Ok(list) = DenyList::from_json(data) else { return };
    assert!(data.len() <= DENY_LIST_BYTES_MAX && list.len() <= DENY_LIST_ENTRIES_MAX);
    assert!(DenyList::from_json(data).is_ok_and(|again| again == list));
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_001));
    assert!(list.denies(&[], now).is_none() && list.denies(&[CertificateDer::from(data)], now).is_none());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn ids_and_patterns(text in "(spiffe://)?[a-zA-Z0-9._/*%?@:-]{0,40}") {
            super::fuzz_spiffe_id(text.as_bytes());
            super::fuzz_pattern(text.as_bytes());
        }

        #[test]
        fn deny_lists(entries in r#"(\{"(serial|spki_sha256|spiffe_id)":"[0-9a-f]{0,8}"(,"until_ms":[0-9]{1,9})?\},?){0,4}"#) {
            super::fuzz_deny_list(format!("{{\"version\":1,\"entries\":[{entries}]}}").as_bytes());
        }

        #[test]
        fn certificates(data in prop::collection::vec(any::<u8>(), 0..200)) {
            super::fuzz_certificate(&data);
        }
    }
}
