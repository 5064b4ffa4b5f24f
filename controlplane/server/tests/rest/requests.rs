//! Requests that are wrong whatever they ask for: paths, methods, types, lengths, and what is not even HTTP.

use serde_json::json;

use crate::lab::Lab;

const EDGE: &str = "/v1/tenants/acme/clusters/edge";

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_decoded_and_checked() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    assert_eq!(owner.put("/v1/tenants/acme/clusters/%65dge", &json!({})).await.status, 201);
    assert_eq!(owner.get(EDGE).await.json()["name"], "edge", "the same name");
    for name in [
        "%2e%2e",
        "..",
        "a%2Fb",
        "%00",
        "%ff",
        "%C3%BC",
        "a%20b",
        "%27%3B--",
        "%3Cb%3E",
        ".a",
        &"a".repeat(65),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let body = json!({});
            let body = (method == "PUT").then_some(&body);
            let answer = owner.request(method, &format!("/v1/tenants/acme/clusters/{name}"), &[], body).await;
            assert_eq!(answer.problem(), "malformed", "{method} {name}");
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/tenants/",
        "//v1/tenants",
        "/v1/tenants/acme/nothing",
        "/V1/tenants",
        "/v1%2Ftenants",
    ] {
        assert_eq!(owner.get(path).await.problem(), "not_found", "{path}");
    }
    assert_eq!(owner.get("/v1/tenants/nobody/clusters").await.problem(), "not_found");
    assert_eq!(owner.put("/v1/tenants/nobody/clusters/a", &json!({})).await.problem(), "not_found");
    for query in ["x=1", "limit=1", "limit", "%", "a&b", "="] {
        assert_eq!(owner.get(&format!("{EDGE}?{query}")).await.problem(), "malformed", "{query}");
    }
    assert_eq!(owner.get(&format!("{EDGE}?")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_has_its_methods_and_types() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    for (method, path, allow) in [
        ("PATCH", EDGE, "GET,HEAD,PUT,DELETE"),
        ("POST", EDGE, "GET,HEAD,PUT,DELETE"),
        ("OPTIONS", EDGE, "GET,HEAD,PUT,DELETE"),
        ("TRACE", EDGE, "GET,HEAD,PUT,DELETE"),
        ("get", EDGE, "GET,HEAD,PUT,DELETE"),
        ("DELETE", "/v1/tenants", "GET,HEAD,POST"),
        ("PUT", "/healthz", "GET,HEAD"),
    ] {
        let answer = owner.request(method, path, &[], None).await;
        assert_eq!(answer.problem(), "method_not_allowed", "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    for accept in ["text/html", "application/json;q=0", "image/*, text/*"] {
        let answer = owner.request("GET", "/v1/tenants", &[("Accept", accept)], None).await;
        assert_eq!(answer.problem(), "not_acceptable", "{accept}");
    }
    for accept in ["*/*", "application/json", "text/html, application/*;q=0.1"] {
        assert_eq!(
            owner.request("GET", "/v1/tenants", &[("Accept", accept)], None).await.status,
            200,
            "{accept}"
        );
    }
    for headers in [
        &[][..],
        &[("Content-Type", "text/plain")],
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "application/json; charset=latin1")],
        &[("Content-Type", "application/json"), ("Content-Type", "application/json")],
    ] {
        let answer = owner.send("PUT", EDGE, headers, b"{}").await;
        assert_eq!(answer.problem(), "unsupported_media_type", "{headers:?}");
    }
    let json = [("Content-Type", "application/json; charset=utf-8")];
    assert_eq!(owner.send("PUT", EDGE, &json, b"{}").await.status, 201);
    let answer = owner.send("DELETE", EDGE, &json, b"{}").await;
    assert_eq!(answer.problem(), "malformed", "no body where none is taken");
    assert_eq!(owner.get(EDGE).await.status, 200, "and nothing was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_in_length_and_depth() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let json = [("Content-Type", "application/json")];
    let put = |text: Vec<u8>| (text, &json);
    let texts: [&[u8]; 8] = [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"{\"description\": \"\xff\"}",
        br#"{"description": "\ud800"}"#,
        b"{'a': 1}",
        b"\xef\xbb\xbf{}",
    ];
    for text in texts {
        let answer = owner.send("PUT", EDGE, &json, text).await;
        let expected =
            if text.is_empty() { ["malformed", "unsupported_media_type"] } else { ["malformed"; 2] };
        assert!(expected.contains(&answer.problem().as_str()), "{text:?}");
    }
    let twice = owner.send("PUT", EDGE, &json, br#"{"description": "a", "description": "b"}"#).await;
    assert_eq!(twice.problem(), "malformed", "which of the two would be meant?");
    let deep = "[".repeat(200_000);
    assert_eq!(owner.send("PUT", EDGE, &json, deep.as_bytes()).await.problem(), "malformed");
    let (longest, _) = put(vec![b' '; 512 * 1024 - 2]);
    let longest = [longest, b"{}".to_vec()].concat();
    assert_eq!(owner.send("PUT", EDGE, &json, &longest).await.status, 201);
    let longer = [b" ".to_vec(), longest].concat();
    assert_eq!(owner.send("PUT", EDGE, &json, &longer).await.problem(), "too_large");
    assert_eq!(owner.get(EDGE).await.json()["revision"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_read_and_odd_ones_are_refused() {
    let lab = Lab::start().await;
    let chunked = |rest: &str| {
        let head = format!("PUT {EDGE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{rest}").into_bytes()
    };
    let mut owner = lab.owner().await;
    let whole =
        owner.raw(&chunked("1;ext=\"a\"\r\n{\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n"), "PUT").await.unwrap();
    assert_eq!(whole.status, 201, "{}", whole.text());
    for rest in
        ["zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "ffffffffffffffffff\r\n{}", "-2\r\n{}\r\n0\r\n\r\n"]
    {
        let mut client = lab.owner().await;
        let answer = client.raw(&chunked(rest), "PUT").await;
        // Not HTTP any more: an answer says so, or the connection ends.
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400), "{rest}");
    }
    let both =
        format!("PUT {EDGE} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}");
    let answer = lab.owner().await.raw(both.as_bytes(), "PUT").await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 400));
    assert_eq!(owner.get(EDGE).await.json()["revision"], 1, "the whole one stays");
}
