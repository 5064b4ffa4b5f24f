//! The API as people meet it: real TLS over loopback, a client that knows nothing of ours.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod conditions;
mod document;
mod idempotency;
mod input;
mod lab;
mod lists;
mod people;
mod requests;
mod roles;
mod things;
