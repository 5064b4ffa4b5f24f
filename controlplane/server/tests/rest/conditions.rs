//! Objects one at a time: made, read, replaced, deleted, and only if they are as the client thinks.

use serde_json::json;

use crate::lab::Lab;

const EDGE: &str = "/v1/tenants/acme/clusters/edge";

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_made_read_replaced_and_deleted() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    assert_eq!(owner.get(EDGE).await.problem(), "not_found");
    let made = owner.put(EDGE, &json!({"description": "one"})).await;
    assert_eq!((made.status, made.header("location")), (201, Some(EDGE)));
    assert_eq!(made.json(), json!({"name": "edge", "revision": 1, "object": {"description": "one"}}));
    let read = owner.get(EDGE).await;
    assert_eq!((read.status, read.header("etag")), (200, Some("\"1\"")));
    assert_eq!(read.json(), made.json());

    let same = owner.put(EDGE, &json!({"description": "one"})).await;
    assert_eq!((same.status, same.header("etag"), same.header("location")), (200, Some("\"1\""), None));
    let other = owner.put(EDGE, &json!({"description": "two"})).await;
    assert_eq!((other.status, other.header("etag")), (200, Some("\"2\"")));

    let gone = owner.delete(EDGE).await;
    assert_eq!((gone.status, gone.body.len()), (204, 0));
    assert_eq!(owner.delete(EDGE).await.problem(), "not_found");
    let again = owner.put(EDGE, &json!({"description": "one"})).await;
    assert_eq!(again.header("etag"), Some("\"3\""), "no revision comes twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_happens_only_under_its_conditions() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let (one, two) = (json!({"description": "one"}), json!({"description": "two"}));
    let absent = owner.request("PUT", EDGE, &[("If-Match", "*")], Some(&one)).await;
    assert_eq!((absent.status, absent.problem().as_str()), (412, "precondition_failed"));
    let absent = owner.request("DELETE", EDGE, &[("If-Match", "\"1\"")], None).await;
    assert_eq!(absent.status, 412);
    assert_eq!(owner.get(EDGE).await.status, 404, "nothing was made");

    let made = owner.request("PUT", EDGE, &[("If-None-Match", "*")], Some(&one)).await;
    assert_eq!(made.status, 201);
    let there = owner.request("PUT", EDGE, &[("If-None-Match", "*")], Some(&two)).await;
    assert_eq!(there.problem(), "precondition_failed");
    for (tags, status) in [
        ("\"7\"", 412),
        ("W/\"1\"", 412),
        ("\"x\"", 412),
        ("\"01\"", 412),
        ("1", 400),
        ("", 400),
        ("\"7\", \"1\"", 200),
    ] {
        let answer = owner.request("PUT", EDGE, &[("If-Match", tags)], Some(&one)).await;
        assert_eq!(answer.status, status, "{tags}: {}", answer.text());
    }
    let won = owner.request("PUT", EDGE, &[("If-Match", "\"1\"")], Some(&two)).await;
    assert_eq!(won.header("etag"), Some("\"2\""));
    let lost = owner.request("PUT", EDGE, &[("If-Match", "\"1\"")], Some(&one)).await;
    assert_eq!(lost.problem(), "precondition_failed", "somebody was faster");
    assert_eq!(owner.request("DELETE", EDGE, &[("If-Match", "\"1\"")], None).await.status, 412);
    assert_eq!(owner.get(EDGE).await.json()["object"], two);
    assert_eq!(owner.request("DELETE", EDGE, &[("If-Match", "\"2\"")], None).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_has_is_not_sent_again() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    owner.put(EDGE, &json!({})).await;
    for (tags, status) in
        [("\"1\"", 304), ("W/\"1\"", 304), ("*", 304), ("\"2\"", 200), ("\"2\", \"1\"", 304)]
    {
        let answer = owner.request("GET", EDGE, &[("If-None-Match", tags)], None).await;
        assert_eq!((answer.status, answer.header("etag")), (status, Some("\"1\"")), "{tags}");
        assert_eq!(answer.body.is_empty(), status == 304, "{tags}");
    }
    assert_eq!(
        owner.request("GET", EDGE, &[("If-Match", "\"2\"")], None).await.problem(),
        "precondition_failed"
    );
    let head = owner.request("HEAD", EDGE, &[], None).await;
    let whole = owner.get(EDGE).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("etag"), whole.header("etag"));
    assert_eq!(head.header("content-length"), whole.header("content-length"));
    let list = owner.request("GET", "/v1/tenants", &[("If-None-Match", "\"1\"")], None).await;
    assert_eq!(list.problem(), "malformed", "what has no revision has no conditions");
}
