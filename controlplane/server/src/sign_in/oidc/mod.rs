//! Single sign-on with `OpenID` Connect: code flow with PKCE, state and nonce.
//!
//! Enters: settings, and what a browser brings back from the provider. Leaves: a session of a person who is known by issuer and
//! subject. Refused: whatever breaks a rule of `OpenID` Connect Core, RFC 8725 or RFC 9207, each for its own reason, which the log
//! and the page have.

mod discovery;
pub(super) mod http;
mod keys;
mod pages;
mod pending;
mod people;
mod provider;
mod token;

#[cfg(test)]
mod tests;

use zeroize::Zeroizing;

pub(super) use self::discovery::address;
pub(super) use self::pages::{back, there};
pub(super) use self::provider::Provider;

use crate::people::Role;

/// Fuzzing: what a provider sends, as arbitrary bytes.
pub(crate) fn fuzz(data: &[u8]) {
    let keys = keys::Key::read_all(data).unwrap_or_default();
    discovery::Discovery::read(data, "https://id.example");
    let expected = token::Expected {
        issuer: "https://id.example",
        client_id: "zen",
        nonce: "n",
        now: 1_000_000,
        groups_claim: "groups",
    };
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(token::check(text, &keys, &expected).is_err(), "nobody signed it");
    }
}

/// A provider, and what its groups are here.
#[derive(Clone)]
pub struct OidcSettings {
    /// As the provider calls itself, exactly.
    pub issuer: String,
    /// As it calls us.
    pub client_id: String,
    /// What it knows us by.
    pub client_secret: Zeroizing<String>,
    /// Where it sends browsers back to: our `/sign-in/provider/callback`.
    pub redirect_uri: String,
    /// What is asked for.
    pub scope: String,
    /// CAs for its certificate, PEM; the system's without them.
    pub ca: Option<Vec<u8>>,
    /// The claim that lists groups.
    pub groups_claim: String,
    /// Group, tenant, role.
    pub roles: Vec<(String, String, Role)>,
}

impl std::fmt::Debug for OidcSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcSettings").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl PartialEq for OidcSettings {
    fn eq(&self, other: &Self) -> bool {
        (&self.issuer, &self.client_id, &self.roles) == (&other.issuer, &other.client_id, &other.roles)
    }
}

impl Eq for OidcSettings {}
