//! Lists, a page at a time.

use std::collections::BTreeSet;

use serde_json::json;

use crate::client::Client;
use crate::lab::Lab;

const CLUSTERS: &str = "/v1/tenants/acme/clusters";

async fn make(client: &mut Client, name: &str) {
    let answer = client.put(&format!("{CLUSTERS}/{name}"), &json!({})).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_items_come_once_while_others_are_made_and_deleted() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    let names: Vec<String> = (10..33).map(|number| format!("c{number}")).collect();
    for name in &names {
        make(&mut owner, name).await;
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = owner.get(&format!("{CLUSTERS}?limit=5{cursor}")).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 5);
        seen.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        pages += 1;
        // Before and after where the reading is, and the last one that was read.
        make(&mut owner, &format!("a{pages}")).await;
        make(&mut owner, &format!("z{pages}")).await;
        owner.delete(&format!("{CLUSTERS}/{}", seen.last().unwrap())).await;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "none comes twice");
    assert!(names.iter().all(|name| unique.contains(name)), "none is missed: {seen:?}");
    assert!(seen.is_sorted());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_bounded_and_a_cursor_is_of_its_list() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    for name in ["a", "b", "c"] {
        make(&mut owner, name).await;
    }
    for query in
        ["limit=0", "limit=201", "limit=", "limit=-1", "limit=x", "limit=1&limit=1", "limit=1%30%30%30"]
    {
        assert_eq!(owner.get(&format!("{CLUSTERS}?{query}")).await.problem(), "malformed", "{query}");
    }
    let cursor = owner.get(&format!("{CLUSTERS}?limit=1")).await.json()["next_cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    let next = owner.get(&format!("{CLUSTERS}?cursor={cursor}")).await.json();
    assert_eq!(next["items"].as_array().unwrap().len(), 2);
    assert!(next.get("next_cursor").is_none());
    for other in ["/v1/tenants", "/v1/tenants/acme/members", "/v1/denials", "/v1/tenants/acme/status"] {
        assert_eq!(owner.get(&format!("{other}?cursor={cursor}")).await.problem(), "malformed", "{other}");
    }
    for wrong in ["x", "%00", "%ff", "AAAA"] {
        assert_eq!(owner.get(&format!("{CLUSTERS}?cursor={wrong}")).await.problem(), "malformed", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_and_denials_come_a_page_at_a_time_too() {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    make(&mut owner, "edge").await;
    let bundles = format!("{CLUSTERS}/edge/bundles");
    let mut made = BTreeSet::new();
    for serial in ["a1", "a2", "a3"] {
        let bundle =
            owner.post(&bundles, &json!({"urls": ["https://c.example:1"], "life_seconds": 60})).await;
        made.insert(bundle.json()["bundle_id"].as_str().unwrap().to_owned());
        assert_eq!(owner.post("/v1/denials", &json!({"serial": serial})).await.status, 201);
    }
    for (list, id) in [(bundles.as_str(), "bundle_id"), ("/v1/denials", "denial_id")] {
        let first = owner.get(&format!("{list}?limit=2")).await.json();
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = owner.get(&format!("{list}?limit=2&cursor={cursor}")).await.json();
        assert!(second.get("next_cursor").is_none());
        let items = [&first, &second].into_iter().flat_map(|page| page["items"].as_array().unwrap());
        let found: BTreeSet<String> = items.map(|item| item[id].as_str().unwrap().to_owned()).collect();
        assert_eq!(found.len(), 3, "{list}");
        assert!(id != "bundle_id" || found == made);
    }
}
