//! Entry points for fuzzing: arbitrary bytes in, broken invariants out as panics.
#![doc(hidden)]

use rcgen::{CertificateSigningRequestParams, PublicKeyData as _, SanType};
use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zen_identity::SpiffeId;

use crate::check_csr;

/// What is accepted, a second reader accepts too: the same key, an empty subject, no name but the assigned one.
pub fn fuzz_csr(data: &[u8]) {
    let Ok(pem) = std::str::from_utf8(data) else { return };
    let assigned = SpiffeId::parse("spiffe://acme.example/agent/edge").expect("an id");
    let Ok(key) = check_csr(pem, &assigned) else { return };
    // Readers of PEM differ in what they skip; of DER they must not.
    let der = CertificateSigningRequestDer::from_pem_slice(data).expect("it was read before");
    let second = CertificateSigningRequestParams::from_der(&der).expect("the second reader takes it as well");
    assert_eq!(second.public_key.der_bytes(), key.der_bytes());
    assert_eq!(second.params.distinguished_name.iter().count(), 0);
    assert!(second.params.key_usages.is_empty() && second.params.extended_key_usages.is_empty());
    for name in &second.params.subject_alt_names {
        assert!(matches!(name, SanType::URI(uri) if uri.as_str() == assigned.as_str()), "{name:?}");
    }
}

/// What people may send: no panic, as another reader reads it, and again as it is kept.
pub fn fuzz_person_request(data: &[u8]) {
    crate::rest::fuzz::check(data);
}

/// What browsers and providers of identities send at sign-in: no panic, no field or cookie twice, nobody let in unsigned.
pub fn fuzz_sign_in(data: &[u8]) {
    crate::sign_in::fuzz::check(data);
}

/// A tenant's objects: what the good ones come to is TOML, with places for keys where they belong and nowhere else.
pub fn fuzz_compile(data: &[u8]) {
    crate::compile::fuzz::check(data);
}
