//! Sign-in as browsers meet it: real TLS over loopback, forms and cookies by hand, and a provider that misbehaves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../rest/client.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod client;
mod device;
mod lab;
mod local;
mod oidc;
mod provider;
