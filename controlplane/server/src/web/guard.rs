//! What holds for each request and each answer of the listener for browsers.
//!
//! Refused: a Host that is none of ours, so that no page of somebody else is of our origin because its name leads here.
//! Each answer says that nothing of it runs, frames or loads but what is ours, and that it is not kept.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{Response, StatusCode};
use axum::middleware::Next;

/// Nothing comes from elsewhere, and nothing that is written into a page runs.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const HEADERS: [(HeaderName, &str); 8] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Names that requests may be for, whatever the port.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    /// These, and this host itself.
    pub(super) fn new(names: &[String]) -> Self {
        let own = ["localhost".to_owned()];
        Self(own.into_iter().chain(names.iter().map(|name| name.to_ascii_lowercase())).collect())
    }

    /// Whether a Host header, or the authority of the request's target, is one of ours.
    pub(super) fn has(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_loopback = bare.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        is_loopback || self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Around all routes.
pub(super) async fn guard(names: Names, request: Request, next: Next) -> Response<Body> {
    let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::to_str);
    let is_ours = match (hosts.next(), hosts.next(), request.uri().authority()) {
        (Some(Ok(host)), None, None) => names.has(host),
        (Some(Ok(host)), None, Some(target)) => names.has(host) && names.has(target.as_str()),
        _ => false,
    };
    let mut response = if is_ours {
        next.run(request).await
    } else {
        let mut refused =
            Response::new(Body::from("This server is not known by that name: see web.names.\n"));
        *refused.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        refused
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_ours() {
        let names = Names::new(&["Control.acme.example".to_owned()]);
        for ours in [
            "localhost",
            "localhost:8446",
            "LOCALHOST:1",
            "127.0.0.1:8446",
            "[::1]:8446",
            "control.acme.example",
            "control.ACME.example:443",
        ] {
            assert!(names.has(ours), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example:8446",
            "control.acme.example.",
            "control.acme.example:80:80",
            "10.0.0.1:8446",
            "localhost@evil.example",
            "localhost:8446x",
            "[::1",
        ] {
            assert!(!names.has(other), "{other}");
        }
    }
}
