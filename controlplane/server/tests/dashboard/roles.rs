//! Who sees what: without a session nothing, with a lesser role no buttons, of other tenants not even that they are there.

use zen_control::Role;

use crate::lab::{Lab, csrf};
use crate::page::{SESSION, form_with, forms, owner, person, raw, send};

const KINDS: [&str; 7] =
    ["clusters", "members", "endpoints", "destinations", "delivery-flows", "policies", "credentials"];

fn pages(tenant: &str) -> Vec<String> {
    let mut pages: Vec<String> = [
        "",
        "/deliveries",
        "/dead-letters",
        "/denials",
        "/people",
        "/billing",
        "/audit",
        "/audit/export",
        "/clusters/edge",
        "/clusters/edge/configuration",
    ]
    .map(|path| format!("/tenants/{tenant}{path}"))
    .into();
    for kind in KINDS {
        for path in
            [kind.to_owned(), format!("new/{kind}"), format!("{kind}/x/edit"), format!("{kind}/x/delete")]
        {
            pages.push(format!("/tenants/{tenant}/{path}"));
        }
    }
    pages
}

fn posts(tenant: &str) -> Vec<String> {
    let mut posts: Vec<String> = [
        "/clusters/edge/bundles",
        "/clusters/edge/configuration",
        "/clusters/edge/bundles/00000000000000000000000000000000/revoke",
        "/people",
        "/people/owner/delete",
        "/billing",
        "/audit/verify",
        "/denials",
    ]
    .map(|path| format!("/tenants/{tenant}{path}"))
    .into();
    for kind in KINDS {
        posts.push(format!("/tenants/{tenant}/new/{kind}"));
        posts.push(format!("/tenants/{tenant}/{kind}/x/edit"));
        posts.push(format!("/tenants/{tenant}/{kind}/edge/delete"));
    }
    posts
}

/// Something in each form, so that what refuses is the role.
const ANYTHING: &str = "name=x&step=save&urls=https%3A%2F%2Flocalhost%3A1&role=owner&whom=spiffe%3A%2F%2Facme.example%2Fa%2Fb\
    &cluster=edge&endpoint=x&scope=links&scheme=none&place=a%2Fb%2Fc&destinations=x&url=https%3A%2F%2Fx%2Fy&key_id=x&secret=a%2Fb%2Fc&revision=1";

async fn make_cluster(lab: &Lab) {
    let (mut browser, path) = (owner(lab).await, "/tenants/acme/new/clusters");
    let form = form_with(&browser.get(path).await, path, "revision");
    assert_eq!(send(&mut browser, &form, &[("name", "edge"), ("step", "save")]).await.status, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_there_is_only_sign_in() {
    let lab = Lab::start(None).await;
    make_cluster(&lab).await;
    let mut browser = lab.browser().await;
    for path in pages("acme").iter().chain(&["/".to_owned(), "/tenants".to_owned()]) {
        for cookie in [None, Some("0".repeat(64)), Some("x".to_owned())] {
            browser.cookies = cookie.into_iter().map(|value| (SESSION.to_owned(), value)).collect();
            let answer = browser.get(path).await;
            let to = answer.header("location").unwrap_or_default();
            assert!(answer.status == 303 && to.starts_with("/sign-in"), "{path} {}", answer.status);
        }
    }
    let cookie = "0".repeat(64);
    browser.cookies.insert(SESSION.to_owned(), cookie.clone());
    for path in posts("acme") {
        let answer = raw(&mut browser, &path, &format!("{ANYTHING}&csrf={}", csrf(&cookie))).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(answer.header("location").unwrap().starts_with("/sign-in"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_others_is_not_there() {
    let lab = Lab::start(None).await;
    make_cluster(&lab).await;
    lab.database().execute("INSERT INTO tenants (name) VALUES ('other')", ()).unwrap();
    let mut browser = person(&lab, "viewer", Some(Role::Viewer)).await;
    let token = csrf(&browser.cookies[SESSION]);
    for tenant in ["other", "none"] {
        for path in pages(tenant) {
            assert_eq!(browser.get(&path).await.status, 404, "{path}");
        }
        for path in posts(tenant) {
            let answer = raw(&mut browser, &path, &format!("{ANYTHING}&csrf={token}")).await;
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    let page = browser.get("/tenants").await.text();
    assert!(page.contains("/tenants/acme") && !page.contains("/tenants/other"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_has_no_buttons_and_is_refused_what_they_would_do() {
    let lab = Lab::start(None).await;
    make_cluster(&lab).await;
    let before = lab.count("objects");
    let mut browser = person(&lab, "viewer", Some(Role::Viewer)).await;
    let token = csrf(&browser.cookies[SESSION]);
    for path in pages("acme") {
        let answer = browser.get(&path).await;
        assert!(matches!(answer.status, 200 | 403 | 404), "{path}: {}", answer.status);
        let own = forms(&answer.text(), &path)
            .into_iter()
            .filter(|form| form.is_post && form.action != "/sign-out");
        let own: Vec<_> = own.filter(|form| !form.buttons.is_empty() || form.action != path).collect();
        assert!(own.is_empty(), "{path}: {own:?}");
    }
    for path in posts("acme") {
        let answer = raw(&mut browser, &path, &format!("{ANYTHING}&csrf={token}")).await;
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    }
    assert_eq!((lab.count("objects"), lab.count("bundles")), (before, 0));
    let labels = browser.get("/tenants/acme").await.text();
    assert!(
        labels.contains(">Deliveries<") && !labels.contains(">Audit log<") && !labels.contains(">Billing<")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_changes_destinations_and_no_clusters() {
    let lab = Lab::start(None).await;
    make_cluster(&lab).await;
    let mut browser = person(&lab, "editor", Some(Role::Editor)).await;
    for (kind, status) in
        [("destinations", 200), ("delivery-flows", 200), ("clusters", 403), ("policies", 403)]
    {
        assert_eq!(browser.get(&format!("/tenants/acme/new/{kind}")).await.status, status, "{kind}");
    }
    let page = browser.get("/tenants/acme/destinations").await.text();
    assert!(page.contains("New destination"), "{page}");
    assert!(!browser.get("/tenants/acme/clusters").await.text().contains("New cluster"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_owner_stays() {
    let lab = Lab::start(None).await;
    let (mut browser, path) = (owner(&lab).await, "/tenants/acme/people");
    let token = csrf(&browser.cookies[SESSION]);
    for (path, body) in [(path, "name=owner&role=viewer"), ("/tenants/acme/people/owner/delete", "")] {
        let answer = raw(&mut browser, path, &format!("{body}&csrf={token}")).await;
        assert!(matches!(answer.status, 409 | 422), "{path}: {} {}", answer.status, answer.text());
        assert!(answer.text().contains("role=\"alert\""));
    }
    let given = raw(&mut browser, path, &format!("name=second&role=owner&csrf={token}")).await;
    assert_eq!(given.header("location"), Some("/tenants/acme/people?done=role"), "{}", given.text());
    let left = raw(&mut browser, "/tenants/acme/people/owner/delete", &format!("csrf={token}")).await;
    assert_eq!(left.status, 303, "{}", left.text());
    let after = browser.get(path).await;
    assert!(matches!(after.status, 303 | 404), "from the next request on: {}", after.status);
}
