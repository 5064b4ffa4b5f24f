//! The control plane as agents meet it: real TLS over loopback, a client that is none of ours below the messages.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acts;
mod certificates;
mod client;
mod configurations;
mod crash;
mod documentation;
mod enrollment;
mod input;
mod issued;
mod lab;
mod link_keys;
mod operation;
mod programs;
mod recovery;
mod relays;
mod roots;
mod time;
