//! The listener: what each answer says to browsers, and for which hosts it answers at all.

use crate::lab::Lab;
use crate::page::{owner, raw};

const SAID: [(&str, &str); 7] = [
    ("strict-transport-security", "max-age=31536000"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
        form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_says_what_browsers_may_do_with_it() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    for (path, status, cached) in [
        ("/", 303, "no-store"),
        ("/tenants/acme", 200, "no-store"),
        ("/tenants/acme/nothing", 404, "no-store"),
        ("/nothing", 404, "no-store"),
        ("/assets/style.css", 200, "no-cache"),
        ("/assets/app.js", 200, "no-cache"),
        ("/assets/icon.svg", 200, "no-cache"),
        ("/sign-in", 200, "no-store"),
        ("/v1/tenants", 404, "no-store"),
        ("/v1/nothing", 404, "no-store"),
    ] {
        let answer = browser.get(path).await;
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some(cached)), "{path}");
        for (name, value) in SAID {
            assert_eq!(answer.header(name), Some(value), "{path}");
        }
    }
    let answer = raw(&mut browser, "/tenants/acme", "").await;
    assert_eq!((answer.status, answer.header("x-frame-options")), (405, Some("DENY")));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_names_are_answered() {
    let lab = Lab::start(None).await;
    for (line, status) in [
        ("Host: localhost", 303),
        ("Host: 127.0.0.1:8446", 303),
        ("Host: evil.example", 421),
        ("Host: localhost.evil.example", 421),
        ("Host: localhost\r\nHost: evil.example", 421),
        ("X: none", 421),
    ] {
        let mut client = lab.client().await;
        let request = format!("GET / HTTP/1.1\r\n{line}\r\n\r\n");
        let answer = client.raw(request.as_bytes(), "GET").await.unwrap();
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let mut client = lab.client().await;
    let request = b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(client.raw(request, "GET").await.unwrap().status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_no_route_of_the_api() {
    let lab = Lab::start(None).await;
    let cookies = owner(&lab).await.cookies;
    for path in ["/v1/tenants", "/v1/tenants/acme/clusters", "/v1/denials", "/healthz"] {
        let mut browser = lab.browser().await;
        browser.cookies.clone_from(&cookies);
        assert_eq!(browser.get(path).await.status, 404, "a cookie is no token: {path}");
        let with =
            [("Authorization", "Bearer 0000000000000000000000000000000000000000000000000000000000000000")];
        assert_eq!(browser.ask("GET", path, &with, "").await.status, 403, "{path}");
    }
}
