//! `Authorization: Bearer` (RFC 6750) and `Authorization: Basic` (RFC 7617): a secret shown as it is.
//!
//! It proves who sends, not what: nothing of body, time or headers is under it, and who reads it once can send
//! ever after. What was shown and each secret are compared as tags under one key, so that neither length nor
//! bytes show in time; every secret is compared, whatever matches.

use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use super::claim::required;
use super::secret::Secret;
use super::{Refusal, RequestView, SECRET_BYTES_MAX, SchemeError};
use crate::crypto::{HashAlgorithm, RunningMac, SignatureVerifier};

const HEADER: &str = "authorization";
/// Nothing secret: it makes tags of one length out of texts of any.
const COMPARE_KEY: &[u8] = b"zen-authorization";

/// How the secret is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationKind {
    /// The token itself.
    Bearer,
    /// Base64 of `user:password`.
    Basic,
}

/// What an endpoint wants in `Authorization`. `Debug` shows no secret.
#[derive(Debug)]
pub struct Authorization {
    kind: AuthorizationKind,
    secrets: Vec<Secret>,
}

impl Authorization {
    /// With an endpoint's tokens, or its `user:password` texts; any one counts.
    pub fn new(kind: AuthorizationKind, secrets: &[Vec<u8>]) -> Result<Self, SchemeError> {
        let secrets = Secret::list(secrets)?;
        let fits = |secret: &Secret| match kind {
            AuthorizationKind::Bearer => is_token(&secret.bytes),
            AuthorizationKind::Basic => secret.bytes.contains(&b':'),
        };
        match secrets.iter().find(|secret| !fits(secret)) {
            None => Ok(Self { kind, secrets }),
            Some(secret) => Err(SchemeError::Credential { index: secret.index }),
        }
    }

    /// The index of the secret that `request` shows.
    pub fn check<C: SignatureVerifier>(
        &self,
        request: &impl RequestView,
        crypto: &C,
    ) -> Result<usize, Refusal> {
        let value = required(request, HEADER, Refusal::MissingAuthorization)?;
        let shown = self.shown(value).ok_or(Refusal::MalformedAuthorization)?;
        self.matching(&shown, crypto).ok_or(Refusal::WrongAuthorization)
    }

    fn shown(&self, value: &str) -> Option<Zeroizing<Vec<u8>>> {
        let (scheme, text) = value.split_once(' ')?;
        let text = text.trim_start_matches(' ');
        let kind = match self.kind {
            AuthorizationKind::Bearer => "bearer",
            AuthorizationKind::Basic => "basic",
        };
        if !scheme.eq_ignore_ascii_case(kind) || text.len() > SECRET_BYTES_MAX.div_ceil(3) * 4 {
            return None;
        }
        match self.kind {
            AuthorizationKind::Bearer if is_token(text.as_bytes()) => {
                Some(Zeroizing::new(text.as_bytes().to_vec()))
            }
            AuthorizationKind::Bearer => None,
            AuthorizationKind::Basic => {
                STANDARD.decode(text).ok().map(Zeroizing::new).filter(|pair| pair.contains(&b':'))
            }
        }
    }

    /// Backwards, so that of equal secrets the first one's index wins.
    fn matching<C: SignatureVerifier>(&self, shown: &[u8], crypto: &C) -> Option<usize> {
        let tag = |bytes: &[u8]| {
            let mut running = crypto.hmac(HashAlgorithm::Sha256, COMPARE_KEY);
            running.update(bytes);
            Zeroizing::new(running.finish().0)
        };
        let shown = tag(shown);
        let mut found = u64::MAX;
        for secret in self.secrets.iter().rev() {
            let equal = tag(&secret.bytes).as_slice().ct_eq(shown.as_slice());
            found.conditional_assign(&(secret.index as u64), equal);
        }
        (found != u64::MAX).then_some(found as usize)
    }
}

/// `b64token` of RFC 6750 section 2.1.
fn is_token(bytes: &[u8]) -> bool {
    let text = bytes.iter().rposition(|byte| *byte != b'=').map_or(&[][..], |last| &bytes[..=last]);
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte))
}
