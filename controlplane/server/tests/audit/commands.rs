//! Each route and each command that changes something leaves one entry, and none if the entry cannot be made.
//!
//! Routes come from the router's own document and commands from the program's own help: a new one without a sample fails.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use zen_audit::{Entry, Outcome};
use zen_control::{Role, openapi, set_configuration};

use crate::client::{Answer, Client};
use crate::lab::{Lab, Place, TRUST_DOMAIN};

const ID: &str = "0123456789abcdef0123456789abcdef";
/// Stops each entry, as a full disk would.
const NO_ENTRIES: &str = "CREATE TRIGGER no_entries BEFORE INSERT ON audit_entries
    BEGIN SELECT RAISE(ABORT, 'no room'); END";

/// A request that is granted, in this order; path, action and what it is of.
struct Sample {
    route: (&'static str, &'static str),
    path: String,
    body: Option<Value>,
    action: &'static str,
    /// `None` if it is made by the server: then it is what the answer's Location says.
    target: Option<&'static str>,
}

fn sample(
    route: (&'static str, &'static str),
    path: &str,
    body: Option<Value>,
    action: &'static str,
    target: Option<&'static str>,
) -> Sample {
    Sample { route, path: format!("/v1/{path}"), body, action, target }
}

/// Of an object: made, replaced, deleted.
fn object(kind: &'static str, name: &'static str, body: Value) -> [Sample; 2] {
    let of = |text: String| -> &'static str { text.leak() };
    let template = of(format!(
        "/v1/tenants/{{tenant}}/{kind}/{{{}}}",
        if kind == "clusters" { "cluster" } else { "name" }
    ));
    let target = of(format!("tenants/acme/{kind}/{name}"));
    [
        sample(("put", template), target, Some(body), of(format!("{kind}.put")), Some(target)),
        sample(("delete", template), target, None, of(format!("{kind}.delete")), Some(target)),
    ]
}

/// One of each kind of object.
fn objects() -> [[Sample; 2]; 6] {
    let place = "edge/webhooks/github";
    [
        object("members", "a", json!({"cluster": "edge", "roles": ["ingester"]})),
        object("endpoints", ID, endpoint()),
        object(
            "destinations",
            "billing",
            json!({"cluster": "edge", "url": "https://billing.example/hooks",
            "key_id": "billing-1", "secret": place, "spiffe_ids": ["spiffe://acme.example/edge/*"]}),
        ),
        object("delivery-flows", "all", json!({"endpoint": ID, "destinations": ["billing"]})),
        object(
            "policies",
            "links",
            json!({"scope": "links", "clusters": ["edge"], "allow": ["spiffe://acme.example/edge/*"]}),
        ),
        object(
            "credentials",
            "github",
            json!({"clusters": ["edge"], "place": place,
            "ciphertext": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBhCg=="}),
        ),
    ]
}

fn endpoint() -> Value {
    json!({"cluster": "edge", "scheme": "github", "secrets": ["edge/webhooks/github"]})
}

fn people() -> [Sample; 3] {
    let person = "/v1/tenants/{tenant}/people/{name}";
    [
        sample(
            ("put", person),
            "tenants/acme/people/bob",
            Some(json!({"role": "viewer"})),
            "people.put",
            Some("tenants/acme/people/bob"),
        ),
        sample(
            ("post", "/v1/tenants/{tenant}/people/{name}/link"),
            "tenants/acme/people/bob/link",
            None,
            "people.link",
            Some("tenants/acme/people/bob/link"),
        ),
        sample(
            ("delete", person),
            "tenants/acme/people/bob",
            None,
            "people.delete",
            Some("tenants/acme/people/bob"),
        ),
    ]
}

fn samples() -> Vec<Sample> {
    let [cluster, no_cluster] = object("clusters", "edge", json!({}));
    let bundles = "/v1/tenants/{tenant}/clusters/{cluster}/bundles";
    let mut all = vec![
        cluster,
        sample(
            ("post", "/v1/tenants"),
            "tenants",
            Some(json!({"name": "beta"})),
            "tenants.create",
            Some("tenants/beta"),
        ),
        sample(
            ("put", "/v1/tenants/{tenant}/billing"),
            "tenants/acme/billing",
            Some(json!({"plan": "large", "contact": "ann"})),
            "billing.put",
            Some("tenants/acme/billing"),
        ),
        sample(
            ("post", "/v1/tenants/{tenant}/dead-letters/replay"),
            "tenants/acme/dead-letters/replay",
            Some(json!({"cluster": "edge", "member": "a", "letters": ["0-1234-0"]})),
            "dead-letters.replay",
            None,
        ),
        sample(
            ("post", "/v1/tenants/{tenant}/clusters/{cluster}/configurations"),
            "tenants/acme/clusters/edge/configurations",
            None,
            "configurations.create",
            Some("tenants/acme/clusters/edge/configurations"),
        ),
        sample(
            ("post", bundles),
            "tenants/acme/clusters/edge/bundles",
            Some(json!({"urls": ["https://c.example:1"]})),
            "bundles.create",
            None,
        ),
        sample(
            ("post", "/v1/denials"),
            "denials",
            Some(json!({"serial": "ab"})),
            "denials.create",
            Some("denials/serial/ab"),
        ),
    ];
    all.extend(people());
    all.extend(objects().into_iter().flatten());
    all.push(sample(
        ("post", "/v1/tenants/{tenant}/endpoints"),
        "tenants/acme/endpoints",
        Some(endpoint()),
        "endpoints.create",
        None,
    ));
    all.push(no_cluster);
    all
}

/// Operations that change something by their method and are tried elsewhere: their requests need things that are made then.
const MADE_BEFORE: [(&str, &str); 2] = [
    ("delete", "/v1/tenants/{tenant}/clusters/{cluster}/bundles/{bundle}"),
    ("delete", "/v1/denials/{denial}"),
];
/// Operations whose method could change something, and that only show what would be.
const SHOWN_ONLY: [(&str, &str); 1] = [("post", "/v1/tenants/{tenant}/changes")];
#[test]
fn each_route_that_changes_something_has_a_sample() {
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let samples = samples();
    let known: BTreeSet<(&str, &str)> =
        samples.iter().map(|sample| sample.route).chain(MADE_BEFORE).chain(SHOWN_ONLY).collect();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let is_change = !matches!(method.as_str(), "get" | "parameters" | "summary");
            assert!(!is_change || known.contains(&(method.as_str(), path.as_str())), "{method} {path}");
        }
    }
}

/// A member that letters can be of.
fn configure(place: &Place) {
    let input = json!({"members": {"a": {"spiffe_id": "spiffe://acme.example/edge/a", "node": ""}}});
    let input = serde_json::from_value(input).unwrap();
    set_configuration(&place.directory(), &mut place.database(), "edge", input).unwrap();
}

async fn ask(client: &mut Client, sample: &Sample) -> Answer {
    let method = sample.route.0.to_uppercase();
    client.request(&method, &sample.path, &[], sample.body.as_ref()).await
}

/// The one entry that came, which is of this request.
fn check_entry(place: &Place, before: usize, action: &str, target: &str, answer: &Answer) -> Entry {
    let entries = place.entries();
    assert_eq!(entries.len(), before + 1, "{action}: one entry, no more");
    let entry = entries.into_iter().next_back().unwrap();
    assert_eq!((entry.action.as_str(), entry.target.as_str()), (action, target));
    assert_eq!(entry.actor, format!("spiffe://{TRUST_DOMAIN}/people/owner"));
    assert_eq!(Some(entry.request_id.as_str()), answer.header("x-request-id"), "{action}");
    assert_eq!(entry.tenant, if target.starts_with("tenants/acme") { "acme" } else { "" }, "{action}");
    assert_eq!(entry.outcome, Outcome::Done);
    entry
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_by_a_route_leaves_one_entry() {
    let lab = Lab::start().await;
    configure(&lab.place);
    let mut owner = lab.client("owner").await;
    let mut made = Vec::new();
    for sample in samples() {
        if sample.route == ("delete", "/v1/tenants/{tenant}/clusters/{cluster}") {
            delete_made(&lab, &mut owner, &made).await;
        }
        let before = lab.place.entries().len();
        let answer = ask(&mut owner, &sample).await;
        assert!(answer.status < 300, "{} {}: {}", sample.route.0, sample.path, answer.text());
        let location = match answer.header("location") {
            Some(location) => location.to_owned(),
            None if sample.action == "bundles.create" => {
                format!("{}/{}", sample.path, answer.json()["bundle_id"].as_str().unwrap())
            }
            None => String::new(),
        };
        let target = sample.target.unwrap_or_else(|| location.strip_prefix("/v1/").unwrap());
        check_entry(&lab.place, before, sample.action, target, &answer);
        if matches!(sample.action, "bundles.create" | "denials.create") {
            made.push(location);
        }
    }
    let before = lab.place.entries().len();
    for _ in 0..2 {
        assert_eq!(owner.get("/v1/tenants/acme/clusters").await.status, 200);
        assert!(owner.put("/v1/tenants/acme/clusters/edge", &json!({"unknown": 1})).await.status >= 400);
        assert!(owner.delete("/v1/tenants/acme/clusters/none").await.status >= 400);
    }
    assert_eq!(lab.place.entries().len(), before, "what changes nothing, and is no matter of roles, is none");
    assert_eq!(lab.place.verify().fault, None);
}

async fn delete_made(lab: &Lab, owner: &mut Client, made: &[String]) {
    assert_eq!(made.len(), MADE_BEFORE.len());
    for location in made {
        let before = lab.place.entries().len();
        let answer = owner.delete(location).await;
        assert_eq!(answer.status, 204, "{location}: {}", answer.text());
        let is_denial = location.contains("denials");
        let (action, target) = if is_denial {
            ("denials.delete", "denials/serial/ab")
        } else {
            ("bundles.delete", location.strip_prefix("/v1/").unwrap())
        };
        check_entry(&lab.place, before, action, target, &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entry_no_change() {
    let lab = Lab::start().await;
    configure(&lab.place);
    let mut owner = lab.client("owner").await;
    for sample in samples() {
        let kept = lab.place.kept();
        lab.place.database().execute(NO_ENTRIES, ()).unwrap();
        let answer = ask(&mut owner, &sample).await;
        assert_eq!(answer.status, 500, "{} {}: {}", sample.route.0, sample.path, answer.text());
        assert_eq!(lab.place.kept(), kept, "{} {}", sample.route.0, sample.path);
        lab.place.database().execute("DROP TRIGGER no_entries", ()).unwrap();
        let answer = ask(&mut owner, &sample).await;
        assert!(answer.status < 300, "{} {}: {}", sample.route.0, sample.path, answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_does_not_allow_is_an_entry_so_many_times() {
    let lab = Lab::start().await;
    lab.add("eve", Role::Viewer);
    let mut eve = lab.client("eve").await;
    let before = lab.place.entries().len();
    let answer = eve.delete("/v1/tenants/acme/clusters/%65dge").await;
    assert_eq!(answer.problem(), "forbidden");
    let entry = lab.place.entries().into_iter().next_back().unwrap();
    assert_eq!((entry.actor.as_str(), entry.outcome), ("spiffe://acme.example/people/eve", Outcome::Refused));
    assert_eq!(
        (entry.action.as_str(), entry.target.as_str()),
        ("clusters.delete", "tenants/acme/clusters/edge")
    );
    assert_eq!(Some(entry.request_id.as_str()), answer.header("x-request-id"));
    for _ in 0..40 {
        assert_eq!(eve.delete("/v1/tenants/acme/clusters/edge").await.problem(), "forbidden");
    }
    assert_eq!(lab.place.entries().len(), before + 20, "one person fills no log");
    lab.add("mallory", Role::Viewer);
    let before = lab.place.entries().len();
    let mut mallory = lab.client("mallory").await;
    assert_eq!(mallory.post("/v1/denials", &json!({"serial": "ab"})).await.problem(), "forbidden");
    assert_eq!(lab.place.entries().len(), before + 2, "another one's are kept; one is the certificate's");
}

/// A command that is granted, in this order: arguments, action, the beginning of the target.
fn changes() -> Vec<(&'static [&'static str], &'static str, &'static str)> {
    vec![
        (
            &["bundle", "create", "--cluster", "edge", "--url", "https://c.example:1", "--out", "bundle"],
            "bundles.create",
            "tenants/acme/clusters/edge/bundles/",
        ),
        (
            &["configuration", "set", "--cluster", "edge", "input.json"],
            "configurations.create",
            "tenants/acme/clusters/edge/configurations/1",
        ),
        (
            &["recovery", "--cluster", "edge", "--policy", "auto"],
            "recovery.put",
            "tenants/acme/clusters/edge/recovery",
        ),
        (&["deny", "--serial", "ab"], "denials.create", "denials/serial/ab"),
        (&["allow", "--serial", "ab"], "denials.delete", "denials/serial/ab"),
        (&["person", "add", "--name", "bob", "--role", "viewer"], "people.put", "tenants/acme/people/bob"),
        (&["person", "role", "--name", "bob", "--role", "editor"], "people.put", "tenants/acme/people/bob"),
        (&["person", "certificate", "--name", "bob", "--out", "bob"], "people.certify", "people/bob"),
        (&["person", "link", "--name", "bob"], "people.link", "people/bob"),
        (&["person", "role", "--name", "bob"], "people.delete", "tenants/acme/people/bob"),
        (&["person", "remove", "--name", "bob"], "people.delete", "people/bob"),
        (&["backup", "--out", "copy.db"], "database.back-up", "database"),
        (&["restore", "--from", "copy.db"], "database.restore", "database"),
        (&["authority", "renew"], "authority.renew", "authority/issuing/2"),
        (&["authority", "rotate-root"], "authority.rotate-root", "authority/roots"),
    ]
}

#[test]
fn each_command_that_changes_something_leaves_one_entry() {
    let place = Place::new();
    std::fs::write(place.at().join("input.json"), r#"{"members": {}}"#).unwrap();
    let user =
        String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    for (arguments, action, target) in changes() {
        let before = place.entries().len();
        place.good(arguments);
        let mut entries = place.entries();
        assert_eq!(entries.len(), before + 1, "{arguments:?}: one entry, no more");
        let entry = entries.pop().unwrap();
        assert_eq!((entry.action.as_str(), entry.outcome), (action, Outcome::Done), "{arguments:?}");
        assert!(entry.target.starts_with(target), "{arguments:?}: {}", entry.target);
        assert_eq!(entry.actor, format!("cli:{}", user.trim()));
        assert_eq!((entry.request_id.len(), entry.tenant == "acme"), (32, target.starts_with("tenants/")));
    }
    let id = place.good(&["bundle", "list"]);
    place.good(&["bundle", "revoke", id.split(' ').next().unwrap()]);
    assert_eq!(place.entries().pop().unwrap().action, "bundles.delete");
    let before = place.entries().len();
    for reads in [
        &["status"][..],
        &["bundle", "list"],
        &["person", "list"],
        &["authority", "status"],
        &["audit", "key"],
        &["audit", "witnesses"],
        &["audit", "export"],
        &["audit", "checkpoint"],
    ] {
        place.good(reads);
    }
    assert_eq!(place.entries().len(), before, "to read leaves nothing");
    assert_eq!(place.verify().fault, None);
}

#[test]
fn a_command_without_an_entry_changes_nothing() {
    let place = Place::new();
    std::fs::write(place.at().join("input.json"), r#"{"members": {}}"#).unwrap();
    for (arguments, action, _) in changes() {
        if action == "database.restore" {
            // It works on a copy that has no such trigger.
            continue;
        }
        let (kept, size) = (place.kept(), place.entries().len());
        let authority = std::fs::read(place.state().join("authority.json")).unwrap();
        place.database().execute(NO_ENTRIES, ()).unwrap();
        let said = place.bad(arguments);
        assert!(said.contains("no room"), "{arguments:?}: {said}");
        assert_eq!((place.kept(), place.entries().len()), (kept, size), "{arguments:?}");
        assert_eq!(std::fs::read(place.state().join("authority.json")).unwrap(), authority, "{arguments:?}");
        place.database().execute("DROP TRIGGER no_entries", ()).unwrap();
        for made in ["copy.db", "bob", "bundle"] {
            let _ = std::fs::remove_file(place.at().join(made));
            let _ = std::fs::remove_dir_all(place.at().join(made));
        }
        place.good(arguments);
    }
}

#[test]
fn each_command_is_known_to_these_tests() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_zen-control")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let changes: Vec<&str> = changes().iter().map(|(arguments, ..)| arguments[0]).collect();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut count = 0;
    for line in commands.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   ")) {
        let command = line.split_whitespace().next().unwrap();
        let reads = ["init", "status", "audit", "login", "openapi", "run"];
        assert!(changes.contains(&command) || reads.contains(&command), "{command}");
        count += 1;
    }
    assert!(count > 10, "{help}");
}
