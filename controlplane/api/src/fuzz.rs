//! Entry points for fuzzing: arbitrary bytes in, broken invariants out as panics.
#![doc(hidden)]

use crate::{
    CertificateRequest, Configuration, EnrollmentBundle, EnrollmentRequest, SignedConfiguration, SigningKey,
    StatusReport,
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
    if let Ok(report) = serde_json::from_slice::<StatusReport>(data) {
        let text = serde_json::to_vec(&report).expect("a message is JSON");
        assert_eq!(serde_json::from_slice::<StatusReport>(&text).expect("what was written is read"), report);
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
