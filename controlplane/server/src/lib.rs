//! The control plane in one process: it lets clusters in, issues their certificates and keeps what they run by.
//!
//! Enters: what operators say on the command line, and requests of agents over mutual TLS 1.3. Leaves: X.509-SVIDs,
//! signed configurations, problems (RFC 9457). Refused: whoever shows neither an identity of the trust domain nor the
//! key of a bundle, a key that was seen before, an identity in two places, and all that is over its bounds.
//!
//! One `SQLite` file holds everything but keys. Time is an argument wherever it decides something.

#![forbid(unsafe_code)]

mod audit;
mod authority;
mod bundle;
mod certificates;
pub mod compile;
mod configuration;
mod control;
mod csr;
mod dashboard;
mod database;
mod deliveries;
mod deny;
mod directory;
mod enrollment;
mod error;
pub mod fuzz;
mod issuer;
mod link_keys;
mod listener;
mod metrics;
mod news;
mod nonces;
pub mod objects;
mod overview;
mod people;
mod recovery;
mod rest;
mod restore;
mod session;
mod settings;
mod sign_in;
mod store;
mod web;
mod witnessing;

pub use audit::{
    AuditRange, AuditSettings, accept_truncation, audit_key, audit_ranges, audit_witnesses, export_audit,
    sign_audit,
};
pub use authority::{
    Advanced, Authority, Force, LEAF_LIFE_MS, Need, RootSpread, Straggler, advance, authority_lines,
    initialize, renew_issuing, retire_root, root_spread, rotate_root,
};
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
pub use people::{
    PERSON_LIFE_MS, Role, RoleOfPerson, add_person, certify_person, list_people, remove_person,
    set_person_role,
};
pub use recovery::{
    RECOVERY_WITHIN_MS, RecoveryFault, RecoveryPolicy, RecoveryState, recovery_state, set_recovery,
};
pub use rest::{PeopleListening, openapi, permission_table};
pub use restore::{Restored, restore};
pub use session::{AgentSession, SessionKey};
pub use settings::{MetricsPlace, RunOptions, RunSettings};
pub use sign_in::{LINK_LIFE_MS, Login, OidcSettings, begin_login, make_sign_in_link};
pub use web::{WebListening, WebSettings};
