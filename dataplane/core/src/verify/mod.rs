//! Who sent this? A request's headers and raw body bytes enter; the secret that matched and the
//! provider's event id leave.
//!
//! A [`Scheme`] is prepared from configuration. [`Scheme::start`] reads the headers and refuses what is
//! missing, doubled, malformed or outside the window before any body byte; [`Check`] takes the body in
//! pieces, and [`Scheme::finish`] compares all candidates in constant time. HMAC is RFC 2104, Ed25519 is RFC 8032 section 5.1.
//!
//! Each scheme turns headers into a `Claim`: the text signed before the body, and what proves it. A scheme
//! that signs a URL puts method and target there; one that signs a form needs the whole body.
//! A stronger signature that fails is never rescued by a weaker one.

mod authentication;
mod authorization;
mod check;
mod claim;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod generic;
mod github;
mod held;
mod secret;
mod standard_webhooks;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;

pub use authentication::{Authentication, CertificateRule, NoProof, ShownCertificate};
pub use authorization::{Authorization, AuthorizationKind};
pub use check::{Check, Verified};
pub use claim::Encoding;
pub use error::{Refusal, SchemeError};
pub use generic::{GenericHmac, HmacSettings, TimestampSettings, TimestampUnit, is_header_name};
pub use github::GitHub;
pub use held::{Held, Started};
pub use standard_webhooks::StandardWebhooks;

use self::claim::Claim;
use self::secret::Secret;
use crate::crypto::{SignatureVerifier, Tag};

/// Most secrets of one endpoint.
pub const SECRETS_MAX: usize = 8;
/// Longest secret, bytes after decoding.
pub const SECRET_BYTES_MAX: usize = 1024;
/// Most signatures in one header, of known and unknown versions.
pub const SIGNATURES_MAX: usize = 16;
/// Most public-key checks that one request may cost: keys times signatures.
pub const PUBLIC_KEY_CHECKS_MAX: usize = 16;
/// Longest event id of a provider, bytes.
pub const SOURCE_ID_BYTES_MAX: usize = 256;
/// Longest name of a configured header, bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 64;
/// Longest configured prefix or separator, bytes.
pub const AFFIX_BYTES_MAX: usize = 32;
/// Standard Webhooks' window on either side of the clock, ms.
pub const STANDARD_WINDOW_MS: u64 = 300_000;
/// Widest window that can be configured, ms.
pub const WINDOW_MS_MAX: u64 = 3_600_000;

/// A request's head, as the schemes read it.
pub trait RequestView {
    /// The method, as sent.
    fn method(&self) -> &str;

    /// The request target, as sent.
    fn target(&self) -> &str;

    /// The first value of header `name` (given in lower case) without surrounding white space, if it is text.
    fn header(&self, name: &str) -> Option<&str>;

    /// How many header lines are called `name` (given in lower case).
    fn header_count(&self, name: &str) -> usize;
}

/// How an endpoint's source signs, with its secrets. `Debug` shows no secret.
#[derive(Debug)]
pub enum Scheme {
    /// GitHub: `X-Hub-Signature-256`.
    GitHub(GitHub),
    /// Standard Webhooks 1.0.0: `v1` (HMAC-SHA256) and `v1a` (Ed25519).
    StandardWebhooks(StandardWebhooks),
    /// HMAC in a configured header.
    Hmac(GenericHmac),
}

impl Scheme {
    /// GitHub's scheme; a secret is the text entered there, as bytes.
    pub fn github(secrets: &[Vec<u8>]) -> Result<Self, SchemeError> {
        GitHub::new(secrets).map(Self::GitHub)
    }

    /// Standard Webhooks; a secret is `whsec_` and base64, bare base64, or `whpk_` and a public key.
    pub fn standard_webhooks(secrets: &[String]) -> Result<Self, SchemeError> {
        StandardWebhooks::new(secrets).map(Self::StandardWebhooks)
    }

    /// HMAC as `settings` say.
    pub fn hmac(settings: HmacSettings, secrets: &[Vec<u8>]) -> Result<Self, SchemeError> {
        GenericHmac::new(settings, secrets).map(Self::Hmac)
    }

    /// Reads the headers of `request` at `now_ms` (Unix) and prepares for its body.
    pub fn start<C: SignatureVerifier>(
        &self,
        request: &impl RequestView,
        now_ms: u64,
        crypto: &C,
    ) -> Result<Check<C>, Refusal> {
        Ok(Check::new(self.claim(request, now_ms)?, crypto))
    }

    /// The verdict of a check that [`Scheme::start`] began on the same `request`. `body` is all of it where
    /// [`Check::needs_whole_body`], and is not read otherwise.
    pub fn finish<'r, C: SignatureVerifier>(
        &self,
        check: Check<C>,
        request: &'r impl RequestView,
        body: &[u8],
        crypto: &C,
    ) -> Result<Verified<'r>, Refusal> {
        let secret_index = check.finish(crypto, body).ok_or(Refusal::Mismatch)?;
        Ok(self.verified(secret_index, request))
    }

    /// As [`Scheme::start`], but what one HMAC-SHA256 proves is held back, to be computed beside others.
    pub fn start_held<C: SignatureVerifier>(
        &self,
        request: &impl RequestView,
        now_ms: u64,
        crypto: &C,
    ) -> Result<Started<C>, Refusal> {
        Ok(Started::new(self.claim(request, now_ms)?, crypto))
    }

    /// The secrets under which held requests are signed, in the order of their expected tags.
    pub fn held_secrets(&self) -> impl Iterator<Item = &[u8]> {
        self.secrets().iter().map(|secret| secret.bytes.as_slice())
    }

    /// The verdict on a request held back by [`Scheme::start_held`]: `expected` has a tag of preamble and body for
    /// each of [`Scheme::held_secrets`].
    pub fn finish_held<'r>(
        &self,
        held: &Held,
        expected: &[Tag],
        request: &'r impl RequestView,
    ) -> Result<Verified<'r>, Refusal> {
        let secret_index = held.matching(self.secrets(), expected).ok_or(Refusal::Mismatch)?;
        Ok(self.verified(secret_index, request))
    }

    /// Goes on in pieces behind `body`, all that has come of it, which is too long to be held.
    pub fn release<C: SignatureVerifier>(&self, held: &Held, body: &[u8], crypto: &C) -> Check<C> {
        Check::released(held, self.secrets(), body, crypto)
    }

    fn claim<'a>(&'a self, request: &'a impl RequestView, now_ms: u64) -> Result<Claim<'a>, Refusal> {
        match self {
            Self::GitHub(scheme) => scheme.claim(request),
            Self::StandardWebhooks(scheme) => scheme.claim(request, now_ms),
            Self::Hmac(scheme) => scheme.claim(request, now_ms),
        }
    }

    fn secrets(&self) -> &[Secret] {
        match self {
            Self::GitHub(scheme) => scheme.secrets(),
            Self::StandardWebhooks(scheme) => scheme.secrets(),
            Self::Hmac(scheme) => scheme.secrets(),
        }
    }

    fn verified<'r>(&self, secret_index: usize, request: &'r impl RequestView) -> Verified<'r> {
        let header = match self {
            Self::GitHub(_) => Some(github::SOURCE_ID_HEADER),
            Self::StandardWebhooks(_) => Some(standard_webhooks::SOURCE_ID_HEADER),
            Self::Hmac(scheme) => scheme.source_id_header(),
        };
        Verified { source_id: header.and_then(|name| request.header(name)), secret_index }
    }
}
