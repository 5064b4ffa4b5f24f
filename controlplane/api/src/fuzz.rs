//! Entry points for fuzzing: arbitrary bytes in, broken invariants out as panics.
#![doc(hidden)]

use crate::{
    CertificateRequest, Configuration, DeliveryReport, EnrollmentBundle, EnrollmentRequest, LINK_KEYS_MAX,
    LinkRole, LinkStatement, LinkTextError, Order, PEER_LINKS_MAX, RecoveryRequest, SignedConfiguration,
    SignedOrder, SigningKey, StatusReport, is_link_name, with_link_keys,
};

/// An accepted bundle is read back as it was, with the same key.
pub fn fuzz_bundle(data: &[u8]) {
    let Ok(bundle) = EnrollmentBundle::decode(data) else { return };
    let again = EnrollmentBundle::decode(bundle.encode().as_bytes()).expect("what was written is read");
    assert_eq!(again.key().public(), bundle.key().public());
    assert_eq!((again.bundle_id, &again.control_plane), (bundle.bundle_id, &bundle.control_plane));
}

/// Messages are read back as they were written.
pub fn fuzz_messages(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<EnrollmentRequest>(data) {
        let text = serde_json::to_vec(&request).expect("a message is JSON");
        let again: EnrollmentRequest = serde_json::from_slice(&text).expect("what was written is read");
        assert_eq!((again.csr, again.signature), (request.csr, request.signature));
    }
    if let Ok(request) = serde_json::from_slice::<CertificateRequest>(data) {
        assert!(request.names_well() || request.member.is_some());
    }
    if let Ok(request) = serde_json::from_slice::<RecoveryRequest>(data) {
        let text = serde_json::to_vec(&request).expect("a message is JSON");
        let again: RecoveryRequest = serde_json::from_slice(&text).expect("what was written is read");
        assert_eq!(
            (&again.csr, again.nonce, again.signature),
            (&request.csr, request.nonce, request.signature)
        );
        assert!(!request.names_well() || crate::is_name(&again.cluster));
    }
    if let Ok(report) = serde_json::from_slice::<StatusReport>(data) {
        let text = serde_json::to_vec(&report).expect("a message is JSON");
        assert_eq!(serde_json::from_slice::<StatusReport>(&text).expect("what was written is read"), report);
    }
    if let Ok(report) = serde_json::from_slice::<DeliveryReport>(data)
        && report.is_bounded()
    {
        let labels = report.deliveries.iter().flat_map(|delivery| [&delivery.target, &delivery.verdict]);
        assert!(labels.into_iter().all(|label| label.bytes().all(|byte| byte.is_ascii_graphic())));
    }
    if let Ok(order) = serde_json::from_slice::<Order>(data) {
        let key = SigningKey::from_seed([7; 32].into());
        let signed = SignedOrder::sign(&order, &key);
        let taken = signed.verify(&key.public(), ("acme", "edge"), 1, 1);
        assert!(taken.is_err() || (order.is_whole() && order.number > 1 && order.expires_at_ms > 1));
    }
}

/// An accepted configuration is for its cluster, newer, and no name in it leaves its directory.
pub fn fuzz_configuration(data: &[u8]) {
    let key = SigningKey::from_seed([7; 32].into());
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(read) = serde_json::from_str::<Configuration>(text) else { return };
    let signed = SignedConfiguration::sign(&read, &key);
    let Ok(taken) = signed.verify(&key.public(), ("acme", "edge"), 1) else { return };
    assert!(taken.version > 1 && taken.tenant == "acme" && taken.cluster == "edge");
    assert!(
        taken
            .members
            .keys()
            .chain(taken.secrets.keys())
            .all(|name| !name.split('/').any(|part| part.starts_with('.')))
    );
}

/// An accepted statement is within its bounds, says the same when it is read again, and no key signed it by chance.
pub fn fuzz_link_statement(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let chain = String::new();
    let statement = LinkStatement { text: text.to_owned(), chain, signature: crate::Base64([7; 64]) };
    assert!(statement.verify(data).is_err());
    let Ok(said) = statement.unverified() else { return };
    assert!(said.links.len() <= PEER_LINKS_MAX && said.links.keys().all(|name| is_link_name(name)));
    for side in said.links.values() {
        assert!(side.keys.len() <= LINK_KEYS_MAX && side.held.len() <= LINK_KEYS_MAX);
        assert!(side.keys.windows(2).all(|pair| pair[0].number < pair[1].number));
    }
    let text = serde_json::to_string(&said).expect("texts and numbers are JSON");
    let again = LinkStatement { text, ..statement }.unverified().expect("what was written is read");
    assert_eq!(again, said);
}

/// What is left has no place any more, and all that is no place is as it was.
pub fn fuzz_link_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let keys = |_: &str, role| if role == LinkRole::Sender { vec![1] } else { vec![1, 2] };
    match with_link_keys(text, keys) {
        Ok((written, uses)) => {
            assert!(uses.keys().all(|(link, _)| is_link_name(link) && written.contains(link.as_str())));
            assert_eq!(uses.is_empty(), written == text);
        }
        Err(LinkTextError::Malformed(at)) => assert!(text[at..].starts_with("{{link_key")),
        Err(LinkTextError::NoKey(link)) => unreachable!("{link} has keys"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good input, cut off and changed at each byte.
    fn mutate(good: &str, check: fn(&[u8])) {
        check(good.as_bytes());
        for at in 0..good.len() {
            check(&good.as_bytes()[..at]);
            for byte in *b"\0\"0a{}:,/ \xff" {
                let mut changed = good.as_bytes().to_vec();
                changed[at] = byte;
                check(&changed);
                changed.insert(at, byte);
                check(&changed);
            }
        }
    }

    #[test]
    fn what_was_changed_breaks_no_invariant() {
        mutate(
            r#"{"cluster":"edge","peer":"core","made_at_ms":7,"recipient":"age1qqqq","links":{"a":{"keys":[{"number":1,"sealed":"YQ=="},{"number":2,"sealed":"YQ=="}]},"b":{"held":[1,2]}}}"#,
            fuzz_link_statement,
        );
        mutate(
            "k = \"{{link_key_id:e-c}}\" f = \"{{link_key:e-c}}\" a = \"{{link_keys:e-c}}\"\n",
            fuzz_link_text,
        );
    }
}
