//! All that an endpoint wants of who sends: a client certificate, an `Authorization`, a signature.
//!
//! Each that is configured must hold; at least one is. What can be told from the head is told before any
//! body byte, the cheapest first. Of the certificate only the verdict comes in: TLS has checked the rest.

use super::{Authorization, Check, Held, Refusal, RequestView, Scheme, Started, Verified};
use crate::crypto::{SignatureVerifier, Tag};

/// Whether an endpoint wants a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRule {
    /// Whatever the connection shows, or does not.
    NotAsked,
    /// One that the endpoint allows.
    Required,
}

/// What the connection shows, as the endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownCertificate {
    /// No certificate.
    None,
    /// One of somebody that the endpoint does not allow.
    Other,
    /// One whose time was over while the connection lived.
    Expired,
    /// One that the endpoint allows.
    Allowed,
}

/// An endpoint that wants no proof would take events from anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a signature, nor an authorization, nor a client certificate: anybody could send")]
pub struct NoProof;

/// The proofs that an endpoint wants.
#[derive(Debug)]
pub struct Authentication {
    certificate: CertificateRule,
    authorization: Option<Authorization>,
    signature: Option<Scheme>,
}

impl Authentication {
    /// All of these; refused if there is none.
    pub fn new(
        certificate: CertificateRule,
        authorization: Option<Authorization>,
        signature: Option<Scheme>,
    ) -> Result<Self, NoProof> {
        if certificate == CertificateRule::NotAsked && authorization.is_none() && signature.is_none() {
            return Err(NoProof);
        }
        Ok(Self { certificate, authorization, signature })
    }

    /// Checks what the head of `request` can tell at `now_ms` (Unix), and prepares for its body: in one piece beside
    /// others, where it can be held.
    pub fn start<C: SignatureVerifier>(
        &self,
        request: &impl RequestView,
        shown: ShownCertificate,
        now_ms: u64,
        crypto: &C,
    ) -> Result<Started<C>, Refusal> {
        if self.certificate == CertificateRule::Required {
            match shown {
                ShownCertificate::Allowed => {}
                ShownCertificate::None => return Err(Refusal::MissingCertificate),
                ShownCertificate::Other => return Err(Refusal::WrongCertificate),
                ShownCertificate::Expired => return Err(Refusal::ExpiredCertificate),
            }
        }
        let authorized =
            self.authorization.as_ref().map(|wanted| wanted.check(request, crypto)).transpose()?;
        match &self.signature {
            Some(scheme) => scheme.start_held(request, now_ms, crypto),
            None => Ok(Started::Running(Check::proven(authorized.unwrap_or(0)))),
        }
    }

    /// As [`Scheme::held_secrets`].
    pub fn held_secrets(&self) -> impl Iterator<Item = &[u8]> {
        self.signature.iter().flat_map(Scheme::held_secrets)
    }

    /// The verdict on a request that is held, as [`Scheme::finish_held`].
    pub fn finish_held<'r>(
        &self,
        held: &Held,
        expected: &[Tag],
        request: &'r impl RequestView,
    ) -> Result<Verified<'r>, Refusal> {
        self.holding().finish_held(held, expected, request)
    }

    /// Goes on in pieces, as [`Scheme::release`].
    pub fn release<C: SignatureVerifier>(&self, held: &Held, body: &[u8], crypto: &C) -> Check<C> {
        self.holding().release(held, body, crypto)
    }

    /// The verdict of a check that [`Authentication::start`] began on the same `request`; `body` as for
    /// [`Scheme::finish`].
    pub fn finish<'r, C: SignatureVerifier>(
        &self,
        check: Check<C>,
        request: &'r impl RequestView,
        body: &[u8],
        crypto: &C,
    ) -> Result<Verified<'r>, Refusal> {
        if let Some(scheme) = &self.signature {
            return scheme.finish(check, request, body, crypto);
        }
        let secret_index = check.finish(crypto, body).ok_or(Refusal::Mismatch)?;
        Ok(Verified { source_id: None, secret_index })
    }

    fn holding(&self) -> &Scheme {
        self.signature.as_ref().expect("only a scheme holds requests back")
    }
}
