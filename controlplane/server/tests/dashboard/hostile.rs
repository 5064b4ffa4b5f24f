//! Every page is walked, every form is found, every field gets what it should not: nothing of it is our fault, and nothing of it
//! is markup. What nodes report and objects say is shown, and only shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::json;

use crate::client::Answer;
use crate::lab::{Browser, Lab, csrf, now_ms};
use crate::page::{Form, SESSION, encoded, forms, links, owner, raw, send};

/// Markup in each place where a browser might take it for such.
const MARKUP: &str = "\"'><zen-canary onload=x><script>x</script>{{7*7}}</textarea></pre>&amp;";

/// Nothing of what was sent is markup, nothing runs, and nothing was our fault.
fn check(answer: &Answer, what: &str) {
    assert!(answer.status < 500, "{what}: {} {}", answer.status, answer.text());
    if answer.header("content-type").is_none_or(|kind| !kind.starts_with("text/html")) {
        return;
    }
    let page = answer.text();
    assert!(!page.contains("<zen-canary") && !page.contains("{{7*7}}</textarea></pre>"), "{what}: {page}");
    assert_eq!(
        page.matches("<script").count(),
        page.matches("<script src=\"/assets/app.js\" defer></script>").count(),
        "{what}"
    );
    for tag in page.split('<').skip(1).filter_map(|part| part.split('>').next()) {
        let names = tag.split('"').step_by(2).flat_map(str::split_whitespace);
        let bad: Vec<&str> = names
            .filter(|name| name.starts_with("on") && name.contains('=') || name.starts_with("style="))
            .collect();
        assert!(bad.is_empty(), "{what}: <{tag}>");
    }
}

/// All pages that lead on from the start, and their forms by where they go.
async fn walk(browser: &mut Browser) -> (BTreeSet<String>, BTreeMap<String, Form>) {
    let (mut seen, mut found) =
        (BTreeSet::from(["/tenants/acme".to_owned(), "/tenants".to_owned()]), BTreeMap::new());
    let mut waiting: VecDeque<String> = seen.iter().cloned().collect();
    while let Some(path) = waiting.pop_front() {
        let answer = browser.get(&path).await;
        check(&answer, &path);
        assert!(matches!(answer.status, 200 | 303 | 409), "{path}: {} {}", answer.status, answer.text());
        if answer.header("content-type").is_none_or(|kind| !kind.starts_with("text/html")) {
            continue;
        }
        let page = answer.text();
        for form in forms(&page, &path).into_iter().filter(|form| form.action != "/sign-out") {
            let names: Vec<&str> = form.fields.iter().map(|(name, _)| name.as_str()).collect();
            found.entry(format!("{} {}", form.action, names.join(" "))).or_insert(form);
        }
        for link in links(&page) {
            if !link.starts_with("/assets/") && seen.insert(link.clone()) {
                waiting.push_back(link);
            }
        }
    }
    (seen, found)
}

/// One of each kind, with markup wherever it may be kept, and a node's report that is all markup.
async fn fill(lab: &Lab, browser: &mut Browser) {
    let token = csrf(&browser.cookies[SESSION]);
    let endpoint = "0123456789abcdef0123456789abcdef";
    let settings = json!({ "node": { "data_dir": MARKUP } }).to_string();
    let objects: [(&str, Vec<(&str, &str)>); 6] = [
        ("clusters", vec![("name", "edge")]),
        (
            "members",
            vec![
                ("name", "node-1"),
                ("cluster", "edge"),
                ("roles", "ingester"),
                ("roles", "egress"),
                ("settings", &settings),
            ],
        ),
        (
            "endpoints",
            vec![("name", endpoint), ("cluster", "edge"), ("scheme", "github"), ("secrets", "a/b/c")],
        ),
        (
            "destinations",
            vec![
                ("name", "billing"),
                ("cluster", "edge"),
                ("url", "https://x/<zen-canary>'\""),
                ("key_id", "k"),
                ("secret", "a/b/c"),
            ],
        ),
        ("delivery-flows", vec![("name", "flow"), ("endpoint", endpoint), ("destinations", "billing")]),
        ("policies", vec![("name", "policy"), ("scope", "links"), ("allow", "spiffe://acme.example/*")]),
    ];
    for (kind, fields) in objects {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let body = format!("{}&description={}&step=save&csrf={token}", pairs.join("&"), encoded(MARKUP));
        let answer = raw(browser, &format!("/tenants/acme/new/{kind}"), &body).await;
        assert_eq!(answer.status, 303, "{kind}: {}", answer.text());
    }
    let deny = format!(
        "by=spiffe_id&whom=spiffe%3A%2F%2Facme.example%2Fedge%2Fx&reason={}&csrf={token}",
        encoded(MARKUP)
    );
    assert_eq!(raw(browser, "/tenants/acme/denials", &deny).await.status, 303);
    let bundle = format!("urls=https%3A%2F%2Flocalhost%3A1&csrf={token}");
    assert_eq!(raw(browser, "/tenants/acme/clusters/edge/bundles", &bundle).await.status, 200);
    let member = json!({ "outcome": { "outcome": "rejected", "version": 1, "reason": MARKUP }, "certificate_not_after_ms": 1 });
    let report = json!({ "agent_version": MARKUP, "configuration": 1, "members": { MARKUP: member } });
    let sql = "INSERT INTO statuses (cluster, received_at_ms, report) VALUES ('edge', ?1, ?2)";
    lab.database().execute(sql, (i64::try_from(now_ms()).unwrap(), report.to_string())).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_shows_what_is_kept_and_none_of_it_is_markup() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    fill(&lab, &mut browser).await;
    let (seen, found) = walk(&mut browser).await;
    assert!(seen.len() > 40 && found.len() > 25, "{} pages, {} forms", seen.len(), found.len());
    for (path, shown) in [
        ("/tenants/acme/clusters/edge", "&#60;zen-canary"),
        ("/tenants/acme/denials", "&#60;zen-canary"),
        ("/tenants/acme/destinations", "&#60;zen-canary"),
        ("/tenants/acme/members/node-1/edit", "&#60;zen-canary"),
        ("/tenants/acme/members", "&#60;zen-canary"),
    ] {
        let page = browser.get(path).await.text();
        assert!(page.contains(shown), "{path} shows it: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_form_gets_what_it_should_not() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    fill(&lab, &mut browser).await;
    let (_, found) = walk(&mut browser).await;
    let long = "x".repeat(300_000);
    let values = [
        MARKUP,
        "",
        "\u{0}",
        "\u{202e}\u{1f4a9}\n\r\t",
        "-1",
        "18446744073709551616",
        "[[[[[[",
        "null",
        "../../../etc/passwd",
        "%00%ff",
        &long,
    ];
    let mut sent = 0;
    for form in found.values() {
        let names: BTreeSet<&str> =
            form.fields.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "csrf").collect();
        // What would take the person's own rights away comes to nothing in between.
        if form.action.ends_with("/people/owner/delete") {
            continue;
        }
        for name in names {
            // A query of that length is no head of a request any more.
            for value in values.into_iter().filter(|value| form.is_post || value.len() < 4096) {
                let step = if sent % 2 == 0 { "save" } else { "preview" };
                let answer = send(&mut browser, form, &[(name, value), ("step", step)]).await;
                let size = value.len().min(40);
                check(
                    &answer,
                    &format!(
                        "{} {name}={}",
                        form.action,
                        &value[..(0..=size).rev().find(|at| value.is_char_boundary(*at)).unwrap()]
                    ),
                );
                sent += 1;
            }
        }
    }
    assert!(sent > 500, "{sent} were sent");
    assert_eq!(browser.get("/tenants/acme").await.status, 200, "it goes on");
    walk(&mut browser).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_no_browser_writes_is_refused() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    let token = csrf(&browser.cookies[SESSION]);
    let many = "a=1&".repeat(1025);
    let large = format!("name={}", "a".repeat(600_000));
    for (body, status) in [
        ("name=%", 400),
        ("name=%zz", 400),
        ("name=%ff", 400),
        ("name=%00", 400),
        ("name=%1b", 400),
        (many.as_str(), 400),
        (&large, 413),
    ] {
        let answer = raw(&mut browser, "/tenants/acme/new/clusters", &format!("csrf={token}&{body}")).await;
        assert_eq!(answer.status, status, "{}", &body[..body.len().min(40)]);
        check(&answer, "a form");
    }
    for query in ["?cursor=x", "?cursor=%ff", "?done=%3Cscript%3E", "?limit=9&unknown=1"] {
        for path in ["/tenants/acme/clusters", "/tenants/acme/audit", "/tenants/acme/deliveries"] {
            check(&browser.get(&format!("{path}{query}")).await, &format!("{path}{query}"));
        }
    }
    let answer = browser.get(&format!("/tenants/acme/audit?actor={}", "a".repeat(4097))).await;
    assert_eq!(answer.status, 400);
    for path in [
        "/tenants/%ff",
        "/tenants/..%2f..",
        "/tenants/acme/%3Czen-canary%3E",
        "/tenants/acme/endpoints/%00/edit",
    ] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        check(&answer, path);
    }
}
