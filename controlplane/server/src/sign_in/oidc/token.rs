//! ID tokens (`OpenID` Connect Core section 3.1.3.7, RFC 8725): a token, keys and what is expected in; who it is, or which rule it
//! breaks, out. Pure: no clock, no network.
//!
//! The algorithm is one of a list, and the key's own; keys come from the provider's set and never from the token.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;
use serde_json::Value;

use super::keys::{Algorithm, Key};

/// Longest token, bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Longest issuer, subject or key's name, bytes.
pub(crate) const TOKEN_NAME_BYTES_MAX: usize = 255;
/// Most groups that are looked at.
pub(crate) const GROUPS_MAX: usize = 1024;
/// By how much clocks may differ, s.
const LEEWAY_SECONDS: u64 = 60;

/// What a token has to be for.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    /// Unix s.
    pub(super) now: u64,
    /// The claim that lists groups.
    pub(super) groups_claim: &'a str,
}

/// Who signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) subject: String,
    /// For eyes only; anybody may call himself anything.
    pub(super) display: String,
    pub(super) groups: Vec<String>,
}

/// Which rule a token breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenFault {
    #[error("the ID token is too long")]
    Length,
    #[error("the ID token is not three parts of base64url, with JSON in the first two")]
    Form,
    #[error("the ID token's algorithm is none of RS256, ES256 and EdDSA")]
    Algorithm,
    #[error("the ID token has extensions that have to be understood")]
    Critical,
    #[error("the provider has no such key for this algorithm")]
    Key,
    #[error("the ID token's signature is not by the provider's key")]
    Signature,
    #[error("the ID token is of another issuer")]
    Issuer,
    #[error("the ID token has no subject that could be kept")]
    Subject,
    #[error("the ID token is for another client")]
    Audience,
    #[error("the ID token was given to another client")]
    AuthorizedParty,
    #[error("the ID token is over")]
    Expired,
    #[error("the ID token is from the future")]
    Future,
    #[error("the ID token is not for this sign-in")]
    Nonce,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
    name: Option<Value>,
    preferred_username: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Who a token says it is, if it is good.
pub(super) fn check(token: &str, keys: &[Key], expected: &Expected<'_>) -> Result<Identity, TokenFault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenFault::Length);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenFault::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenFault::Form)?;
    let bytes = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenFault::Form);
    let header: Header = serde_json::from_slice(&bytes(header)?).map_err(|_| TokenFault::Form)?;
    let (payload, signature) = (bytes(payload)?, bytes(signature)?);
    let algorithm = Algorithm::named(&header.alg).ok_or(TokenFault::Algorithm)?;
    if header.crit.is_some() {
        return Err(TokenFault::Critical);
    }
    let key = key_of(keys, header.kid.as_deref(), algorithm).ok_or(TokenFault::Key)?;
    if !key.verifies(signed.as_bytes(), &signature) {
        return Err(TokenFault::Signature);
    }
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenFault::Form)?;
    check_claims(&claims, expected)?;
    let all: Value = serde_json::from_slice(&payload).map_err(|_| TokenFault::Form)?;
    let text = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
    let display = text(&claims.preferred_username).or_else(|| text(&claims.name)).unwrap_or_default();
    Ok(Identity {
        subject: claims.sub,
        display: display.chars().filter(|character| !character.is_control()).take(128).collect(),
        groups: groups(&all[expected.groups_claim]),
    })
}

/// The key of this name; without a name, the only one of the algorithm.
fn key_of<'a>(keys: &'a [Key], id: Option<&str>, algorithm: Algorithm) -> Option<&'a Key> {
    let mut fitting = keys.iter().filter(|key| key.algorithm() == algorithm);
    match id {
        Some(id) => fitting.find(|key| key.id.as_deref() == Some(id)),
        None => fitting.next().filter(|_| fitting.next().is_none()),
    }
}

fn check_claims(claims: &Claims, expected: &Expected<'_>) -> Result<(), TokenFault> {
    if claims.iss != expected.issuer {
        return Err(TokenFault::Issuer);
    }
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if !(1..=TOKEN_NAME_BYTES_MAX).contains(&claims.sub.len()) || !claims.sub.bytes().all(is_visible) {
        return Err(TokenFault::Subject);
    }
    let (is_for_us, are_several) = match &claims.aud {
        Audience::One(one) => (one == expected.client_id, false),
        Audience::Several(all) => (all.iter().any(|one| one == expected.client_id), all.len() > 1),
    };
    if !is_for_us {
        return Err(TokenFault::Audience);
    }
    if claims.azp.as_ref().map_or(are_several, |party| party != expected.client_id) {
        return Err(TokenFault::AuthorizedParty);
    }
    let (now, leeway) = (expected.now as f64, LEEWAY_SECONDS as f64);
    if claims.exp + leeway <= now {
        return Err(TokenFault::Expired);
    }
    if claims.iat > now + leeway || claims.nbf.is_some_and(|from| from > now + leeway) {
        return Err(TokenFault::Future);
    }
    if claims.nonce.as_deref() != Some(expected.nonce) {
        return Err(TokenFault::Nonce);
    }
    Ok(())
}

/// A text is one group.
fn groups(claim: &Value) -> Vec<String> {
    let one = claim.as_str().map(str::to_owned);
    let several = claim.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    one.into_iter().chain(several).take(GROUPS_MAX).collect()
}
