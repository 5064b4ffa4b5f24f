//! New CAs: key and certificate of a root, or of an issuing CA under one.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use zeroize::Zeroizing;

use super::{AUTHORITY_BACKDATE, ISSUING_LIFE_MS, ROOT_LIFE, SERIAL_BYTES, moment, parameters};
use crate::deny::hex;

/// A CA that was made, PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// A root for five years.
pub(super) fn root(now_ms: u64) -> Result<Made, rcgen::Error> {
    let mut params = authority_parameters("Zen Mesh root CA", 1);
    params.not_before = moment(now_ms) - AUTHORITY_BACKDATE;
    params.not_after = moment(now_ms) + ROOT_LIFE;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(Made { certificate, key: Zeroizing::new(key.serialize_pem()) })
}

/// An issuing CA for 90 days, or until its root ends.
pub(super) fn issuing(
    root: &Issuer<'_, KeyPair>,
    root_ends_at_ms: u64,
    now_ms: u64,
) -> Result<Made, rcgen::Error> {
    let mut params = authority_parameters("Zen Mesh issuing CA", 0);
    params.not_before = moment(now_ms) - AUTHORITY_BACKDATE;
    params.not_after = moment((now_ms + ISSUING_LIFE_MS).min(root_ends_at_ms));
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, root)?.pem();
    Ok(Made { certificate, key: Zeroizing::new(key.serialize_pem()) })
}

fn authority_parameters(name: &str, intermediates: u8) -> CertificateParams {
    let (mut params, serial) = parameters();
    let tail = hex(&serial[SERIAL_BYTES - 4..]);
    params.distinguished_name.push(DnType::CommonName, format!("{name} {tail}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(intermediates));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
