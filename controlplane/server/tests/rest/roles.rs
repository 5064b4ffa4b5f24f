//! Each route with each role, of one's own tenant and of another: made from the document, so that a new route is in it by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use zen_control::{Role, openapi, permission_table, remove_person, set_person_role};

use crate::client::Client;
use crate::document::operations;
use crate::lab::Lab;

/// The rows of the promise, literally.
const ROWS: [(Role, &str); 4] = [
    (Role::Owner, "Full access to tenant, including billing and user management"),
    (Role::Admin, "Manage clusters, destinations, adapters"),
    (Role::Editor, "Create and modify destinations, view deliveries"),
    (Role::Viewer, "Read-only access to dashboards and delivery logs"),
];

/// Who may, by permission: owner, admin, editor, viewer.
fn table() -> BTreeMap<String, [bool; 4]> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').to_owned();
        (name, [2, 3, 4, 5].map(|at| cells[at] == "yes"))
    };
    permission_table().lines().skip(2).map(row).collect()
}

/// What each route asks for, by hand: one that is new has no entry here, and fails.
fn entry(method: &str, path: &str) -> &'static str {
    let Some(inside) = path.strip_prefix("/v1/tenants/{tenant}") else {
        return match (method, path.trim_start_matches("/v1/")) {
            ("GET", "/healthz" | "openapi.json" | "tenants") => "greet",
            ("POST", "tenants") => "tenants",
            ("GET", "denials" | "denials/{denial}") => "read",
            ("POST", "denials") | ("DELETE", "denials/{denial}") => "deny",
            ("GET", "audit/checkpoint" | "audit/export" | "audit/key" | "audit/verification") => "audit",
            _ => panic!("{method} {path} is new: say who may"),
        };
    };
    let parts: Vec<&str> = inside.split('/').skip(1).collect();
    match (method, parts.as_slice()) {
        ("GET", ["audit", ..]) => "audit",
        ("GET", ["people"]) => "read_people",
        ("PUT" | "DELETE", ["people", _]) | ("POST", ["people", _, "link"]) => "people",
        ("GET" | "PUT", ["billing"]) => "billing",
        ("POST", ["dead-letters", "replay"]) => "replay",
        ("POST", ["clusters", _, "bundles"]) | ("DELETE", ["clusters", _, "bundles", _]) => "enroll",
        ("POST", ["clusters", _, "configurations"]) => "publish",
        ("POST", ["changes"]) | ("PUT", ["destinations" | "delivery-flows", _]) => "draft",
        ("DELETE", ["destinations" | "delivery-flows", _])
        | ("POST", ["endpoints"])
        | ("PUT" | "DELETE", ["clusters" | "members" | "endpoints" | "policies" | "credentials", _]) => {
            "manage"
        }
        (
            "GET",
            []
            | ["status" | "deliveries" | "dead-letters"]
            | [
                "orders" | "clusters" | "members" | "endpoints" | "destinations" | "delivery-flows"
                | "policies" | "credentials",
                ..,
            ],
        ) => "read",
        _ => panic!("{method} {path} is new: say who may"),
    }
}

/// The path in a tenant, with names of things that are not there; the tenant's own cluster is.
fn path_in(path: &str, tenant: &str) -> String {
    let part = |part: &str| match part {
        "{tenant}" => tenant.to_owned(),
        "{cluster}" => format!("cluster-{tenant}"),
        part if part.starts_with('{') => "0123456789abcdef0123456789abcdef".to_owned(),
        part => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// With a body that the route does not take: whoever may is told what is wrong with it, and nothing is changed.
async fn ask(client: &mut Client, method: &str, path: &str, operation: &Value) -> u16 {
    let body = operation.get("requestBody").map(|_| json!({"no_such_field": 1}));
    let path = if path.ends_with("/configurations") && method == "POST" {
        format!("{path}?dry_run=true")
    } else {
        path.to_owned()
    };
    let answer = client.request(method, &path, &[], body.as_ref()).await;
    if answer.status >= 400 {
        answer.problem()
    } else {
        String::new()
    };
    answer.status
}

async fn lab() -> Lab {
    let lab = Lab::start().await;
    let mut owner = lab.owner().await;
    assert_eq!(owner.post("/v1/tenants", &json!({"name": "beta"})).await.status, 201);
    for tenant in ["acme", "beta"] {
        let cluster = format!("/v1/tenants/{tenant}/clusters/cluster-{tenant}");
        assert_eq!(owner.put(&cluster, &json!({})).await.status, 201);
    }
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_with_each_role_of_ones_own_tenant_and_of_another() {
    let lab = lab().await;
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let (table, mut used, mut count) = (table(), BTreeSet::new(), 0);
    let place = |tenant| move |role: Role| (format!("{tenant}-{}", role.name()), tenant, Some(role));
    let mut people: Vec<(String, &str, Option<Role>)> = Role::ALL
        .iter()
        .copied()
        .map(place("acme"))
        .chain(Role::ALL.iter().copied().map(place("beta")))
        .collect();
    for (name, tenant, role) in &people {
        lab.add_in(name, tenant, role.unwrap());
    }
    lab.add("nobody", Role::Viewer);
    set_person_role(&mut lab.database(), "nobody", (None, None)).unwrap();
    people.push(("nobody".to_owned(), "", None));
    for (name, own, role) in &people {
        let mut client = lab.client(name).await;
        for (path, method, operation) in operations(&document) {
            let permission = operation["x-permission"].as_str().expect("each route has one");
            assert_eq!(permission, entry(&method, &path), "{method} {path}");
            let row = table.get(permission).unwrap_or_else(|| panic!("{permission} has no row"));
            used.insert(permission.to_owned());
            let may = |role: Role| row[Role::ALL.iter().position(|one| *one == role).unwrap()];
            for tenant in ["acme", "beta"] {
                let is_in_tenant = path.contains("{tenant}");
                let is_own = if is_in_tenant { *own == tenant } else { *own == "acme" };
                let status = ask(&mut client, &method, &path_in(&path, tenant), &operation).await;
                let what = format!("{name} {method} {path} of {tenant}: {status}");
                match role.filter(|_| is_own) {
                    _ if permission == "greet" => assert!(status < 400, "{what}"),
                    None => assert_eq!(status, 404, "{what}"),
                    Some(role) if may(role) => assert!(status != 403 && status < 500, "{what}"),
                    Some(_) => assert_eq!(status, 403, "{what}"),
                }
                count += 1;
            }
        }
    }
    assert!(count > 9 * 2 * 40, "the check sees routes: {count}");
    let unused: Vec<_> = table.keys().filter(|name| !used.contains(*name)).collect();
    assert!(
        unused.iter().all(|name| ["audit", "replay"].contains(&name.as_str())),
        "no route has {unused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_removed_gets_nothing_from_any_route() {
    let lab = lab().await;
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    lab.add("gone", Role::Owner);
    let files = lab.certificate("gone");
    remove_person(&mut lab.database(), "gone").unwrap();
    for (path, method, operation) in operations(&document) {
        let mut client = Client::connect(lab.address, &files).await.unwrap();
        assert_eq!(
            ask(&mut client, &method, &path_in(&path, "acme"), &operation).await,
            403,
            "{method} {path}"
        );
    }
}

/// A thing of each kind that is there: no other tenant's owner sees, changes or deletes it.
#[tokio::test(flavor = "multi_thread")]
async fn things_of_another_tenant_are_not_there() {
    let lab = lab().await;
    lab.add_in("eve", "beta", Role::Owner);
    let (mut owner, mut eve) = (lab.owner().await, lab.client("eve").await);
    let endpoint = "0123456789abcdef0123456789abcdef";
    let things = [
        ("members/m", json!({"cluster": "cluster-acme", "roles": ["egress"]})),
        (
            &format!("endpoints/{endpoint}"),
            json!({"cluster": "cluster-acme", "scheme": "github", "secrets": ["a/b/c"]}),
        ),
        (
            "destinations/d",
            json!({"cluster": "cluster-acme", "url": "https://a.example/", "key_id": "k", "secret": "a/b/c"}),
        ),
        ("delivery-flows/f", json!({"endpoint": endpoint, "destinations": ["d"]})),
        ("policies/p", json!({"scope": "links", "allow": ["spiffe://acme.example/a"]})),
        ("people/viewer", json!({"role": "viewer"})),
        ("billing", json!({"plan": "p", "contact": "c"})),
    ];
    for (path, body) in &things {
        let made = owner.put(&format!("/v1/tenants/acme/{path}"), body).await;
        assert!(made.status < 300, "{path}: {}", made.text());
    }
    let bundle = owner
        .post("/v1/tenants/acme/clusters/cluster-acme/bundles", &json!({"urls": ["https://c.example:1"]}))
        .await
        .json();
    let bundle = format!("clusters/cluster-acme/bundles/{}", bundle["bundle_id"].as_str().unwrap());
    let mut paths: Vec<String> = things.iter().map(|(path, _)| (*path).to_owned()).collect();
    paths.extend(["clusters/cluster-acme".to_owned(), bundle]);
    for path in &paths {
        for tenant in ["acme", "beta", "none"] {
            for method in ["GET", "PUT", "DELETE"] {
                let body = (method == "PUT").then(|| json!({}));
                let answer =
                    eve.request(method, &format!("/v1/tenants/{tenant}/{path}"), &[], body.as_ref()).await;
                let is_nothing = matches!(answer.status, 404 | 405 | 422);
                // In her own tenant there is nothing of that name; billing is one for each, and a cluster's name one of all.
                let is_taken = tenant == "beta" && path == "clusters/cluster-acme" && answer.status == 409;
                let is_nothing = is_nothing || is_taken;
                assert!(is_nothing || (tenant == "beta" && path == "billing"), "{method} {tenant} {path}");
                assert!(tenant == "beta" || answer.status != 422, "{method} {tenant} {path}");
            }
        }
    }
    assert_eq!(eve.get("/v1/tenants").await.json(), json!({"items": [{"name": "beta"}]}));
    assert_eq!(eve.get("/v1/denials").await.status, 404);
    assert_eq!(eve.post("/v1/tenants", &json!({"name": "c"})).await.status, 404);
    for (path, _) in &things {
        let kept = owner.get(&format!("/v1/tenants/acme/{path}")).await;
        assert!(matches!(kept.status, 200 | 405), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_owner_stays_whoever_tries() {
    let lab = lab().await;
    let mut owner = lab.owner().await;
    let person = "/v1/tenants/acme/people/owner";
    for role in ["admin", "editor", "viewer"] {
        assert_eq!(owner.put(person, &json!({"role": role})).await.problem(), "conflict", "{role}");
    }
    assert_eq!(owner.delete(person).await.problem(), "conflict");
    assert!(set_person_role(&mut lab.database(), "owner", (None, None)).is_err());
    assert!(set_person_role(&mut lab.database(), "owner", (Some("beta"), Some(Role::Viewer))).is_err());
    assert!(remove_person(&mut lab.database(), "owner").is_err());
    let all = owner.get("/v1/tenants/acme/people").await.json();
    assert_eq!(all, json!({"items": [{"name": "owner", "role": "owner", "source": "here"}]}));

    assert_eq!(owner.put("/v1/tenants/acme/people/ann", &json!({"role": "owner"})).await.status, 201);
    let mut ann = lab.client("ann").await;
    assert_eq!(ann.put(person, &json!({"role": "viewer"})).await.status, 200);
    assert_eq!(owner.get("/v1/tenants/acme/people").await.problem(), "forbidden", "the role of this moment");
    assert_eq!(ann.delete(person).await.status, 204);
    assert_eq!(owner.get("/v1/tenants/acme/clusters").await.problem(), "not_found");
    assert_eq!(owner.get("/v1/tenants/beta/clusters").await.status, 200, "there the owner is another thing");
    assert_eq!(ann.delete("/v1/tenants/acme/people/ann").await.problem(), "conflict");
    assert_eq!(ann.delete("/v1/tenants/acme/people/nobody").await.problem(), "not_found");
}

#[test]
fn the_rows_of_the_promise_stand_literally() {
    let promise = ROWS.map(|(role, scope)| (role, scope.to_owned()));
    assert_eq!(Role::ALL.map(|role| (role, role.scope().to_owned())), promise);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/people.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (role, scope) in ROWS {
        assert!(page.contains(&format!("| {} | {scope} |", role.name())), "{scope}");
    }
    assert!(page.contains(&permission_table()), "docs/people.md has this table:\n{}", permission_table());
    // Who may more, may all that others may.
    for (name, row) in table() {
        assert!(row.is_sorted_by(|more, less| more >= less), "{name}");
    }
}
