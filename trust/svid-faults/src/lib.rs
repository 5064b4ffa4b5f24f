//! For tests: certificates and trust bundles that each break one rule for X.509-SVIDs and no other, and peers that show them.
//!
//! [`FAULTS`] is the one table of chains, [`BUNDLE_FAULTS`] that of bundles; each row has the rule's number in the checklist of
//! `docs/security-model.md`, a name, and the reason that our side gives. [`Domain::good`] is what all of them are one change away
//! from. A rule that no certificate at a hop can break has its reason in [`NOT_AT_A_HOP`]. Nothing here uses our own checks.

#![forbid(unsafe_code)]

mod bundles;
mod domain;
mod faults;
mod peer;

pub use bundles::{BUNDLE_FAULTS, BundleFault};
pub use domain::{Denied, Domain, Shown};
pub use faults::{FAULTS, Fault, NOT_AT_A_HOP};
pub use peer::{Anybody, Heard, dial, greet, meet};

/// Rules of the checklist.
pub const RULES: std::ops::RangeInclusive<u8> = 1..=21;
