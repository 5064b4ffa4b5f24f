//! What can be wrong: [`Refusal`] is the peer's fault, [`SchemeError`] the configuration's.

use super::{
    AFFIX_BYTES_MAX, HEADER_NAME_BYTES_MAX, PUBLIC_KEY_CHECKS_MAX, SECRET_BYTES_MAX, SECRETS_MAX,
    SIGNATURES_MAX, SOURCE_ID_BYTES_MAX, WINDOW_MS_MAX,
};

/// Why a request is not from who it should be. The fault is always the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The signature header is absent.
    #[error("the signature header is missing")]
    MissingSignature,
    /// The timestamp header is absent.
    #[error("the timestamp header is missing")]
    MissingTimestamp,
    /// The event id header is absent, and the scheme signs it.
    #[error("the event id header is missing")]
    MissingSourceId,
    /// A header that the scheme reads came more than once.
    #[error("a signature, timestamp or event id header came more than once")]
    DoubledHeader,
    /// The signature has the wrong prefix, length or encoding.
    #[error("the signature is malformed")]
    MalformedSignature,
    /// The timestamp is not a plain decimal number.
    #[error("the timestamp is malformed")]
    MalformedTimestamp,
    /// The event id is empty, too long, or has a character that is not allowed.
    #[error("the event id is empty, malformed or over {SOURCE_ID_BYTES_MAX} bytes")]
    MalformedSourceId,
    /// More signatures than a request may bring.
    #[error("over {SIGNATURES_MAX} signatures, or over {PUBLIC_KEY_CHECKS_MAX} public-key checks")]
    TooManySignatures,
    /// Signatures, but none of a version that the endpoint has a key for.
    #[error("no signature of a version that this endpoint has a key for")]
    UnsupportedSignature,
    /// The timestamp is older than the window.
    #[error("the timestamp is too old")]
    StaleTimestamp,
    /// The timestamp is further ahead than the window.
    #[error("the timestamp is in the future")]
    FutureTimestamp,
    /// No secret gives this signature over these bytes.
    #[error("the signature does not match")]
    Mismatch,
    /// The `Authorization` header is absent.
    #[error("the Authorization header is missing")]
    MissingAuthorization,
    /// Another kind of `Authorization`, or not in its form.
    #[error("the Authorization header is of another kind, or malformed")]
    MalformedAuthorization,
    /// No secret of the endpoint.
    #[error("the Authorization header does not match")]
    WrongAuthorization,
    /// No client certificate in the handshake.
    #[error("the client certificate is missing")]
    MissingCertificate,
    /// A client certificate of somebody else.
    #[error("the client certificate is not one that the endpoint allows")]
    WrongCertificate,
    /// A client certificate that ran out while the connection lived.
    #[error("the client certificate has expired")]
    ExpiredCertificate,
}

impl Refusal {
    /// Every refusal, in the order of declaration.
    pub const ALL: [Self; 18] = [
        Self::MissingSignature,
        Self::MissingTimestamp,
        Self::MissingSourceId,
        Self::DoubledHeader,
        Self::MalformedSignature,
        Self::MalformedTimestamp,
        Self::MalformedSourceId,
        Self::TooManySignatures,
        Self::UnsupportedSignature,
        Self::StaleTimestamp,
        Self::FutureTimestamp,
        Self::Mismatch,
        Self::MissingAuthorization,
        Self::MalformedAuthorization,
        Self::WrongAuthorization,
        Self::MissingCertificate,
        Self::WrongCertificate,
        Self::ExpiredCertificate,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::MissingSignature => "missing_signature",
            Self::MissingTimestamp => "missing_timestamp",
            Self::MissingSourceId => "missing_source_id",
            Self::DoubledHeader => "doubled_header",
            Self::MalformedSignature => "malformed_signature",
            Self::MalformedTimestamp => "malformed_timestamp",
            Self::MalformedSourceId => "malformed_source_id",
            Self::TooManySignatures => "too_many_signatures",
            Self::UnsupportedSignature => "unsupported_signature",
            Self::StaleTimestamp => "stale_timestamp",
            Self::FutureTimestamp => "future_timestamp",
            Self::Mismatch => "mismatch",
            Self::MissingAuthorization => "missing_authorization",
            Self::MalformedAuthorization => "malformed_authorization",
            Self::WrongAuthorization => "wrong_authorization",
            Self::MissingCertificate => "missing_certificate",
            Self::WrongCertificate => "wrong_certificate",
            Self::ExpiredCertificate => "expired_certificate",
        }
    }
}

/// Why a scheme cannot be configured like this. `index` counts the secrets from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// Nothing to verify with.
    #[error("no secret: an endpoint needs at least one")]
    NoSecret,
    /// More secrets than a rotation needs.
    #[error("over {SECRETS_MAX} secrets: remove those that are no longer in use")]
    TooManySecrets,
    /// A secret of no bytes verifies anybody.
    #[error("secret {index} is empty")]
    EmptySecret {
        /// Which one.
        index: usize,
    },
    /// A secret over its bound.
    #[error("secret {index} is over {SECRET_BYTES_MAX} bytes")]
    LongSecret {
        /// Which one.
        index: usize,
    },
    /// Not the form in which Standard Webhooks gives secrets.
    #[error("secret {index} is not base64 after an optional `whsec_` or `whpk_`")]
    NotBase64 {
        /// Which one.
        index: usize,
    },
    /// The sender's half of a key pair.
    #[error("secret {index} is a signing key (`whsk_`): give the public key (`whpk_`)")]
    SigningKey {
        /// Which one.
        index: usize,
    },
    /// Not 32 bytes.
    #[error("secret {index} is not a public key: Ed25519 has 32 bytes")]
    PublicKeyLength {
        /// Which one.
        index: usize,
    },
    /// Not what an `Authorization` header can show.
    #[error("secret {index} is not a bearer token (RFC 6750 b64token), or not user:password")]
    Credential {
        /// Which one.
        index: usize,
    },
    /// SHA-1.
    #[error("SHA-1 is not accepted: use sha256 or sha512")]
    WeakAlgorithm,
    /// Not a header name.
    #[error(
        "a header name is empty, over {HEADER_NAME_BYTES_MAX} bytes, or has a character outside RFC 9110 `token`"
    )]
    HeaderName,
    /// One header cannot be two things.
    #[error("signature and timestamp cannot be the same header")]
    SameHeader,
    /// A prefix that cannot be sent in a header.
    #[error("the prefix is over {AFFIX_BYTES_MAX} bytes or not printable ASCII")]
    Prefix,
    /// A separator that would let bytes move between timestamp and body.
    #[error("the separator is over {AFFIX_BYTES_MAX} bytes, not printable ASCII, or begins with a digit")]
    Separator,
    /// A window of nothing, or one that protects nothing.
    #[error("the window is not between 1 and {WINDOW_MS_MAX} ms")]
    Window,
}
