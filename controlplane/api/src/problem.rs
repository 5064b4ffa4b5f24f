//! Problems (RFC 9457): what went wrong, in words for people and a type for programs.

use serde::{Deserialize, Serialize};

/// The content type of a problem.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The HTTP status.
    pub status: u16,
    /// The kind in words.
    pub title: String,
    /// This occurrence, and what to do; nothing that the caller did not send or may not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// A request that breaks its schema.
    Malformed,
    /// Nobody who may do this.
    Forbidden,
    /// No such thing.
    NotFound,
    /// Longer than it may be.
    TooLarge,
    /// A nonce that was used, is over, or was never given.
    NonceRefused,
    /// A signature that does not hold.
    ProofRefused,
    /// A certificate request that asks for what it may not.
    CsrRefused,
    /// A bundle that is over or was revoked.
    BundleExpired,
    /// A bundle that another key has used.
    BundleConsumed,
    /// An identity that is over, and is not given again.
    RecoveryRefused,
    /// An identity that is used in two places, and is locked.
    CloneSuspected,
    /// It was changed meanwhile.
    Conflict,
    /// Too many requests.
    Busy,
    /// Our fault.
    Internal,
}

impl ProblemType {
    /// The status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::CsrRefused => 400,
            Self::Forbidden
            | Self::NonceRefused
            | Self::ProofRefused
            | Self::RecoveryRefused
            | Self::CloneSuspected => 403,
            Self::NotFound => 404,
            Self::BundleConsumed | Self::Conflict => 409,
            Self::BundleExpired => 410,
            Self::TooLarge => 413,
            Self::Busy => 429,
            Self::Internal => 500,
        }
    }

    /// As `type` spells it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::NonceRefused => "nonce_refused",
            Self::ProofRefused => "proof_refused",
            Self::CsrRefused => "csr_refused",
            Self::BundleExpired => "bundle_expired",
            Self::BundleConsumed => "bundle_consumed",
            Self::RecoveryRefused => "recovery_refused",
            Self::CloneSuspected => "clone_suspected",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is malformed",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::TooLarge => "The request is too large",
            Self::NonceRefused => "The nonce is not good any more",
            Self::ProofRefused => "The proof does not hold",
            Self::CsrRefused => "The certificate request asks for what it may not",
            Self::BundleExpired => "The enrollment bundle is over",
            Self::BundleConsumed => "The enrollment bundle was used with another key",
            Self::RecoveryRefused => "The identity is over and is not recovered",
            Self::CloneSuspected => "The identity seems to be used in two places",
            Self::Conflict => "It was changed meanwhile",
            Self::Busy => "Too many requests",
            Self::Internal => "The control plane failed",
        }
    }

    /// A problem of this kind.
    pub fn with(self, detail: impl ToString) -> Problem {
        let detail = Some(detail.to_string());
        Problem { kind: self, status: self.status(), title: self.title().to_owned(), detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_as_documented() {
        let text = serde_json::to_string(&ProblemType::BundleConsumed.with("make a new one")).unwrap();
        assert_eq!(
            text,
            r#"{"type":"bundle_consumed","status":409,"title":"The enrollment bundle was used with another key","detail":"make a new one"}"#
        );
    }
}
