//! What the agent decides, without a socket, a file, a clock or randomness: time and random numbers are arguments.

mod acceptance;
mod backoff;
mod certificate;
mod enrollment;
mod keys;
mod link_keys;
mod link_statement;
mod member;
mod node_text;
mod orders;
mod publication;
mod recovery;
mod renewal;
mod witness;

pub use acceptance::{Acceptance, Alarm, OWN_NAMESPACE, Refusal};
pub use backoff::{Backoff, RETRY_AFTER_MAX_MS, RETRY_MAX_MS, jittered};
pub use certificate::{
    CERTIFICATE_WAIT_MAX_MS, Certificate, CertificateFault, begins_later, check_certificate,
};
pub use enrollment::{
    Begun, CLOCK_REFUSED_MS, CLOCK_WARNED_MS, ClockSkew, EnrolledWith, Enrolling, EnrollmentRefused, Known,
    Pending, agent_id, check_clock, skew_ms,
};
pub use keys::{key_name, key_number, retained};
pub use link_keys::{LINK_KEY_LIFE_MS, LinkState, Mint, MintedKey, OlderStatement, Recipients};
pub use link_statement::{Judge, StatementFault};
pub use member::{MemberState, Published};
pub use node_text::{NoPlaceholder, PLACEHOLDER, with_private_key};
pub use orders::OrderState;
pub use publication::{CURRENT, Content, Entry, Operation, Plan, generation_name, generation_number, plan};
pub use recovery::{NotOver, Recovering};
pub use renewal::{Health, Renewal, Validity};
pub use witness::{LogWitness, WitnessAlarm, WitnessState};

/// Both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Unix ms; may jump.
    pub wall_ms: u64,
    /// Ms since some moment; never jumps, and stands still while the machine sleeps.
    pub steady_ms: u64,
}
