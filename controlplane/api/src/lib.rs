//! What control plane and agent say to each other; neither decides anything here.
//!
//! Enters and leaves: JSON of bounded size. Refused: unknown fields, unknown versions, names that are none, a
//! configuration that nobody signed, is for somebody else, or is not newer than the one in force.
//! Signatures are Ed25519 (RFC 8032) over text that begins with what it is for, so that none can be used elsewhere.

#![forbid(unsafe_code)]

mod bundle;
mod certificate;
mod configuration;
mod encoding;
mod enrollment;
pub mod fuzz;
mod link_keys;
mod link_text;
mod order;
mod problem;
mod recovery;
mod relay;
mod signing;
mod status;
mod sync;

pub use bundle::{
    BUNDLE_BYTES_MAX, BUNDLE_URLS_MAX, BundleError, CA_PINS_MAX, CaPin, EnrollmentBundle, PinError,
};
pub use certificate::{CERTIFICATES, CertificateAnswer, CertificateRequest, MEMBER_BYTES_MAX};
pub use configuration::{
    CONFIGURATION, CONFIGURATION_BYTES_MAX, Configuration, ConfigurationError, Member, SECRETS_MAX,
    SealedSecret, SignedConfiguration,
};
pub use encoding::{Base64, Hex16, is_name};
pub use enrollment::{
    CSR_BYTES_MAX, ENROLL, EXPORTER_BYTES, EXPORTER_LABEL, EnrollmentAnswer, EnrollmentProof,
    EnrollmentRequest, NONCE, NONCE_BYTES, NonceAnswer,
};
pub use link_keys::{
    LINK_KEYS, LINK_KEYS_MAX, LINK_NAME_BYTES_MAX, LINK_NAMESPACE, LINK_STATEMENT_BYTES_MAX, LINKS_MAX, Link,
    LinkKeys, LinkSide, LinkStatement, LinkStatementError, PEER_LINKS_MAX, SEALED_LINK_KEY_BYTES_MAX,
    SealedLinkKey, is_link_name, link_key_id, link_secret,
};
pub use link_text::{LinkRole, LinkTextError, LinkUses, with_link_keys};
pub use order::{
    ORDER_BYTES_MAX, ORDER_LETTERS_MAX, ORDER_LIFE_MS, Order, OrderError, SignedOrder, is_letter_id,
};
pub use problem::{PROBLEM_CONTENT_TYPE, Problem, ProblemType};
pub use recovery::{RECOVER, RECOVERY_NONCE, RecoveryProof, RecoveryRequest};
pub use relay::{
    DEAD_LETTERS, DELIVERIES, DELIVERIES_MAX, DIGEST_BYTES_MAX, DIGESTS_MAX, DeadLetter, DeadLetterReport,
    Delivery, DeliveryReport, DigestReport, LETTERS_MAX, RECEIPTS, RelayAnswer,
};
pub use signing::{PublicKey, SIGNATURE_BYTES, SignatureError, SigningKey};
pub use status::{MemberReport, Outcome, STATUS, StatusReport};
pub use sync::{
    CHECKPOINT_BYTES_MAX, LogReport, NOTE_KEY_BYTES_MAX, OrderEnd, OrderResult, REASON_BYTES_MAX, SYNC,
    SYNC_ORDERS_MAX, SyncAnswer, SyncRequest, WitnessReport,
};
