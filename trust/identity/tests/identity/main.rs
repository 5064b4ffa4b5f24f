//! The crate from outside: certificates made here, each wrong in one way.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod bundles;
mod faults;
mod handshake;
mod independent;
mod pki;
mod reload;
mod rules;
