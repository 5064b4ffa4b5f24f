//! What a provider says of itself (`OpenID` Connect Discovery), and addresses as they may be.

use axum::http::Uri;
use serde::Deserialize;

/// Where a provider is asked what.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    pub(super) authorization: String,
    pub(super) token: Uri,
    pub(super) keys: Uri,
    /// Its answers say whose they are (RFC 9207), so one that does not is no answer of its.
    pub(super) names_itself: bool,
    /// The client's secret goes into the form, because the header is not taken.
    pub(super) wants_secret_in_form: bool,
}

#[derive(Deserialize)]
struct Raw {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Discovery {
    /// Of the document's text; none if it is of another issuer, or leads where it may not.
    pub(super) fn read(text: &[u8], issuer: &str) -> Option<Self> {
        let raw: Raw = serde_json::from_slice(text).ok()?;
        let has = |list: &Option<Vec<String>>, name: &str, otherwise: bool| {
            list.as_ref().map_or(otherwise, |list| list.iter().any(|one| one == name))
        };
        if raw.issuer != issuer || !has(&raw.code_challenge_methods_supported, "S256", true) {
            return None;
        }
        address(&raw.authorization_endpoint)?;
        let methods = &raw.token_endpoint_auth_methods_supported;
        Some(Self {
            token: address(&raw.token_endpoint)?,
            keys: address(&raw.jwks_uri)?,
            authorization: raw.authorization_endpoint,
            names_itself: raw.authorization_response_iss_parameter_supported,
            wants_secret_in_form: !has(methods, "client_secret_basic", true)
                && has(methods, "client_secret_post", false),
        })
    }
}

/// An address that may be asked: over TLS, or on this host.
pub(in crate::sign_in) fn address(text: &str) -> Option<Uri> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\');
    let uri: Uri = text.parse().ok().filter(|_| is_plain)?;
    let host = uri.host()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = bare.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let is_allowed = match uri.scheme_str()? {
        "https" => true,
        "http" => is_loopback,
        _ => false,
    };
    let has_nobody = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    (is_allowed && has_nobody && !host.is_empty()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_over_tls_or_on_this_host() {
        for good in
            ["https://id.example", "https://id.example:8443/a?b=c", "http://127.0.0.1:1/", "http://[::1]:1/x"]
        {
            assert!(address(good).is_some(), "{good}");
        }
        for bad in [
            "http://id.example/",
            "http://localhost/",
            "http://127.0.0.1.evil.example/",
            "https://a@id.example/",
            "https://id.example/#x",
            "https:///x",
            "/x",
            "",
            "file:///etc/passwd",
            "https://id.example/a b",
            "https://id.example\\@evil.example/",
        ] {
            assert!(address(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_document_is_of_its_issuer() {
        let text = |issuer: &str, methods: &str| {
            format!(
                r#"{{"issuer": "{issuer}", "authorization_endpoint": "https://i/a", "token_endpoint": "https://i/t",
                "jwks_uri": "https://i/k", "code_challenge_methods_supported": {methods}}}"#
            )
        };
        assert!(Discovery::read(text("https://i", "[\"S256\"]").as_bytes(), "https://i").is_some());
        for (issuer, methods) in
            [("https://i/", "[\"S256\"]"), ("https://j", "[\"S256\"]"), ("https://i", "[\"plain\"]")]
        {
            assert!(
                Discovery::read(text(issuer, methods).as_bytes(), "https://i").is_none(),
                "{issuer} {methods}"
            );
        }
        assert!(Discovery::read(b"{}", "https://i").is_none());
    }
}
