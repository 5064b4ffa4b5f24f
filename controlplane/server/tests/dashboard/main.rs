//! The dashboard as browsers meet it: real TLS over loopback, pages and forms read from what was sent, and no script.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../rest/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod client;
mod forms;
mod hostile;
#[path = "../sign_in/lab.rs"]
#[allow(dead_code, reason = "shared with the tests of sign-in")]
mod lab;
mod listener;
mod page;
mod roles;
