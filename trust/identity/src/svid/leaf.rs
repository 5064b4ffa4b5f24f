//! What a leaf must be by itself: a certificate in, its SPIFFE id out (X509-SVID sections 2 to 4).

use crate::SpiffeId;
use crate::certificate::{Certificate, CertificateAuthority};
use crate::svid::SvidError;

/// All rules that need nothing but the leaf.
pub(crate) fn check_leaf(leaf: &Certificate<'_>) -> Result<SpiffeId, SvidError> {
    check_basic_constraints(leaf)?;
    check_key_usage(leaf)?;
    check_extended_key_usage(leaf)?;
    spiffe_id(leaf)
}

/// Exactly one URI name, which is a SPIFFE id with a path (X509-SVID sections 2 and 3.1).
pub(crate) fn spiffe_id(leaf: &Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = leaf.uris()?.ok_or(SvidError::NoUri)?;
    let uri = match names.uris[..] {
        [] => return Err(SvidError::NoUri),
        [uri] => uri,
        _ => return Err(SvidError::SeveralUris),
    };
    let id = SpiffeId::parse(uri).map_err(SvidError::Id)?;
    if id.path().is_empty() {
        return Err(SvidError::NoPath);
    }
    if leaf.subject_is_empty() && !names.critical {
        return Err(SvidError::NamesNotCritical);
    }
    Ok(id)
}

fn check_basic_constraints(leaf: &Certificate<'_>) -> Result<(), SvidError> {
    match leaf.basic_constraints()? {
        None => Err(SvidError::BasicConstraintsMissing),
        Some(CertificateAuthority::Yes) => Err(SvidError::LeafIsCa),
        Some(CertificateAuthority::No) => Ok(()),
    }
}

fn check_key_usage(leaf: &Certificate<'_>) -> Result<(), SvidError> {
    let usage = leaf.key_usage()?.ok_or(SvidError::KeyUsageMissing)?;
    if usage.value.key_cert_sign() {
        return Err(SvidError::KeyCertSign);
    }
    if usage.value.crl_sign() {
        return Err(SvidError::CrlSign);
    }
    if !usage.critical {
        return Err(SvidError::KeyUsageNotCritical);
    }
    if !usage.value.digital_signature() {
        return Err(SvidError::DigitalSignatureMissing);
    }
    let excess = [
        usage.value.non_repudiation(),
        usage.value.data_encipherment(),
        usage.value.encipher_only(),
        usage.value.decipher_only(),
    ];
    if excess.contains(&true) {
        return Err(SvidError::KeyUsageExcess);
    }
    Ok(())
}

/// When present, both purposes, because one SVID serves both ends of a hop (X509-SVID section 4.4).
fn check_extended_key_usage(leaf: &Certificate<'_>) -> Result<(), SvidError> {
    match leaf.tls_purposes()? {
        None => Ok(()),
        Some(purposes) if purposes.server && purposes.client => Ok(()),
        Some(_) => Err(SvidError::ExtendedKeyUsage),
    }
}
