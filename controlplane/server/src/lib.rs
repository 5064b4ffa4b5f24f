//! The control plane in one process: it lets clusters in, issues their certificates and keeps what they run by.
//!
//! Enters: what operators say on the command line, and requests of agents over mutual TLS 1.3. Leaves: X.509-SVIDs,
//! signed configurations, problems (RFC 9457). Refused: whoever shows neither an identity of the trust domain nor the
//! key of a bundle, a key that was seen before, an identity in two places, and all that is over its bounds.
//!
//! One `SQLite` file holds everything but keys. Time is an argument wherever it decides something.

#![forbid(unsafe_code)]

mod authority;
mod bundle;
mod certificates;
mod configuration;
mod control;
mod csr;
mod database;
mod deny;
mod directory;
mod enrollment;
mod error;
pub mod fuzz;
mod listener;
mod nonces;
pub mod objects;
mod overview;
mod session;

pub use authority::{Authority, LEAF_LIFE_MS, initialize, renew_issuing};
pub use bundle::{BundleOrder, BundleRow, create_bundle, list_bundles, revoke_bundle};
pub use configuration::{ConfigurationInput, set_configuration};
pub use control::{Attempt, Control};
pub use csr::{AcceptedKey, CsrFault, check_csr};
pub use database::{Database, back_up, open_database};
pub use deny::{Subject, allow, deny};
pub use directory::Directory;
pub use error::{ControlError, Refusal};
pub use listener::{Listening, Settings, serve};
pub use nonces::{NONCE_LIFE_MS, NONCES_MAX};
pub use overview::{ClusterOverview, overview};
pub use session::{AgentSession, SessionKey};
