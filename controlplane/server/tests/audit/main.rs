//! The audit log of a control plane: what leaves an entry, what stops without one, what a crash leaves, what a start refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
#[path = "../rest/client.rs"]
#[allow(dead_code, reason = "other tests use all of it")]
mod client;
mod commands;
mod concurrent;
mod crash;
mod lab;
mod storage;
