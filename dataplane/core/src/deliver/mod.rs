//! Delivery to one target: a queue machine, and the signed HTTP/1.1 request of each attempt.
//!
//! Deliveries, outcomes and times enter [`TargetQueue`]; attempts that may start now and a verdict per
//! outcome leave. It refuses deliveries beyond its bound. Composed in it, a file each: throttle, circuit
//! breaker, rate and adaptive concurrency, all behind one gate, and the order of deliveries that share a key.
//! [`OrderBy`] makes that key. [`Table`] knows which events are not done at all their targets, and which records of the journal they need. [`TargetSigner`] turns an event into MAC jobs and
//! a request head (RFC 9112 section 3), signed twice: Zen-Signature and Standard Webhooks. It refuses an
//! event whose fields could break out of a header line. One egress worker owns both; neither reads a clock
//! or draws randomness.

mod batch;
mod breaker;
mod carry;
pub mod cloudevents;
mod concurrency;
mod credentials;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod limits;
mod lives;
mod model;
mod order;
mod order_by;
mod outcome;
mod queue;
mod rate;
mod request;
mod schedule;
mod secret;
mod slots;
mod status;
mod table;
mod throttle;

pub use batch::{BATCH_EVENTS_MAX, BatchLimits, Batcher, LINGER_MS_MAX};
pub use breaker::{BreakerLimits, BreakerState, FAILURE_WINDOW_MAX, FailureShare};
pub use credentials::{
    CREDENTIALS_BYTES_MAX, Credentials, CredentialsError, PASSWORD_BYTES_MAX, TOKEN_BYTES_MAX,
};
pub use gate::Hold;
pub use limits::TargetLimits;
pub use order::ORDERED_PLACE_BYTES;
pub use order_by::OrderBy;
pub use outcome::{ConnectFailure, DeadReason, FaultKind, Next, Outcome};
pub use queue::{Delivery, PLACE_BYTES, QueueFull, TargetQueue, TargetState};
pub use rate::{RateLimit, RateLimiter};
pub use request::{
    Attempt, DeliveryRequest, HOST_BYTES_MAX, PATH_BYTES_MAX, RequestError, SIGNER_KEYS_MAX, SignerConfig,
    SignerError, TargetSigner, USER_AGENT, write_delivery,
};
pub use schedule::{RETRY_AFTER_MS_CEILING, parse_retry_after, steady_due_ms, unix_due_ms};
pub use secret::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, SecretError, parse_secret};
pub use status::{StatusError, StatusSet};
pub use table::{DeadLetter, DeliveryState, EventBytes, LIVE_BYTES, LetterKey, Live, Table, TargetLife};
pub use throttle::ThrottleLimits;
