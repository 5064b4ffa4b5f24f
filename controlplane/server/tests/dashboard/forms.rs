//! A person's way through forms alone: an object with what it would change, a bundle that is shown once, a publication.

use crate::client::Answer;
use crate::lab::{Browser, Lab};
use crate::page::{Form, form_with, owner, raw, send};

/// Fills in the form of a page, looks at what would change, and saves it.
async fn add(browser: &mut Browser, kind: &str, fields: &[(&str, &str)]) -> Answer {
    let path = format!("/tenants/acme/new/{kind}");
    let form = form_with(&browser.get(&path).await, &path, "revision");
    let preview = send(browser, &form, &[fields, &[("step", "preview")]].concat()).await;
    assert_eq!(preview.status, 200, "{}", preview.text());
    let saved = save(browser, &preview, &path).await;
    let expected = format!("/tenants/acme/{kind}?done=saved");
    assert_eq!((saved.status, saved.header("location")), (303, Some(expected.as_str())), "{}", saved.text());
    preview
}

async fn save(browser: &mut Browser, preview: &Answer, path: &str) -> Answer {
    let form = form_with(preview, path, "csrf");
    let forms = crate::page::forms(&preview.text(), path);
    let form = forms.into_iter().find(|form| !form.buttons.is_empty()).unwrap_or(form);
    assert!(form.buttons.contains(&("step".to_owned(), "save".to_owned())), "{form:?}");
    send(browser, &form, &[("step", "save")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_gets_from_nothing_to_a_published_configuration() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    add(&mut browser, "clusters", &[("name", "edge"), ("description", "a host")]).await;
    let settings = r#"{"node": {"data_dir": "/d"}, "admin": {"socket": "/a"}, "lockd": {"socket": "/l"},
        "egress": {"target_networks": ["192.0.2.0/24"]}}"#;
    let member = [("cluster", "edge"), ("roles", "egress"), ("settings", settings)];
    let preview = add(&mut browser, "members", &[&[("name", "node-1")][..], &member].concat()).await;
    let text = preview.text();
    assert!(text.contains("member node-1") && text.contains("<ins>+ data_dir"), "{text}");

    // What is wrong is said at its field, and what was typed is still there.
    let path = "/tenants/acme/new/destinations";
    let form = form_with(&browser.get(path).await, path, "url");
    let wrong = [
        ("name", "billing"),
        ("cluster", "edge"),
        ("url", "ftp://x"),
        ("key_id", "billing-1"),
        ("secret", "a/b/c"),
    ];
    let refused = send(&mut browser, &form, &[&wrong[..], &[("step", "preview")]].concat()).await;
    assert_eq!(refused.status, 422);
    let text = refused.text();
    assert!(
        text.contains("value=\"ftp://x\"") && text.contains("<a href=\"#url\">URL</a>: https://host/path"),
        "{text}"
    );
    let broken =
        send(&mut browser, &form, &[&wrong[..], &[("settings", "{"), ("step", "preview")]].concat()).await;
    assert!(broken.status == 422 && broken.text().contains("<a href=\"#settings\">"), "{}", broken.text());

    let page = browser.get("/tenants/acme/clusters/edge/configuration").await;
    assert!(page.text().contains("Nothing is published yet."), "{}", page.text());
    let forms = crate::page::forms(&page.text(), "/tenants/acme/clusters/edge/configuration");
    let publish: Vec<&Form> = forms.iter().filter(|form| form.action.ends_with("/configuration")).collect();
    let done = send(&mut browser, publish[0], &[]).await;
    assert_eq!(
        done.header("location"),
        Some("/tenants/acme/clusters/edge?done=published"),
        "{}",
        done.text()
    );
    let page = browser.get("/tenants/acme/clusters/edge/configuration").await.text();
    assert!(page.contains("Version 1 is published.") && page.contains("What is published is what"), "{page}");
    let actions: Vec<String> =
        lab.acts().into_iter().map(|(action, _, actor)| format!("{action} {actor}")).collect();
    for (action, count) in
        [("clusters.put", 1), ("members.put", 1), ("configurations.create", 1), ("changes.create", 0)]
    {
        let found = actions.iter().filter(|found| **found == format!("{action} person:owner")).count();
        assert_eq!(found, count, "{action}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_is_not_overwritten() {
    let lab = Lab::start(None).await;
    let (mut one, mut path) = (owner(&lab).await, "/tenants/acme/clusters/edge/edit");
    add(&mut one, "clusters", &[("name", "edge"), ("description", "first")]).await;
    let form = form_with(&one.get(path).await, path, "description");
    assert!(form.fields.contains(&("description".to_owned(), "first".to_owned())), "{form:?}");
    let second = send(&mut one, &form, &[("description", "second"), ("step", "save")]).await;
    assert_eq!(second.status, 303, "{}", second.text());
    let late = send(&mut one, &form, &[("description", "third"), ("step", "save")]).await;
    assert!(late.status == 412 && late.text().contains("Somebody changed it meanwhile"), "{}", late.text());
    path = "/tenants/acme/new/clusters";
    let form = form_with(&one.get(path).await, path, "description");
    let again = send(&mut one, &form, &[("name", "edge"), ("step", "save")]).await;
    assert!(
        again.status == 412 && again.text().contains("There is a cluster of this name"),
        "{}",
        again.text()
    );
    let now = one.get("/tenants/acme/clusters/edge/edit").await.text();
    assert!(now.contains("\nsecond</textarea>"), "{now}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_shown_once() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    add(&mut browser, "clusters", &[("name", "edge")]).await;
    let path = "/tenants/acme/clusters/edge";
    let form = form_with(&browser.get(path).await, path, "urls");
    let refused = send(&mut browser, &form, &[("urls", "http://x")]).await;
    assert!(refused.status == 422 && refused.text().contains("https://HOST:PORT"), "{}", refused.text());
    let made = send(&mut browser, &form, &[("urls", "https://localhost:8444"), ("life", "5")]).await;
    let text = made.text();
    let bundle = text
        .split("id=\"bundle\"")
        .nth(1)
        .unwrap()
        .split_once('>')
        .unwrap()
        .1
        .split('<')
        .next()
        .unwrap()
        .to_owned();
    assert!(made.status == 200 && bundle.len() > 100, "{text}");
    let after = browser.get(path).await.text();
    assert!(!after.contains(&bundle[bundle.len() - 60..]), "shown once");
    let revoke =
        crate::page::forms(&after, path).into_iter().find(|form| form.action.ends_with("/revoke")).unwrap();
    assert_eq!(send(&mut browser, &revoke, &[]).await.status, 303);
    assert!(browser.get(path).await.text().contains(">revoked</span>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_of_its_session_and_of_our_pages() {
    let lab = Lab::start(None).await;
    let mut browser = owner(&lab).await;
    let path = "/tenants/acme/new/clusters";
    let form = form_with(&browser.get(path).await, path, "revision");
    let token = form.fields.iter().find(|(name, _)| name == "csrf").unwrap().1.clone();
    let body = |token: &str| format!("name=edge&step=save&csrf={token}");
    for wrong in [String::new(), "0".repeat(64), token.to_uppercase(), format!("{token}0")] {
        assert_eq!(raw(&mut browser, path, &body(&wrong)).await.status, 409, "{wrong}");
    }
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    for from in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost"),
        ("X-None", "neither is there"),
    ] {
        let answer = browser.ask("POST", path, &[kind, from], &body(&token)).await;
        assert_eq!(answer.status, 409, "{from:?}");
    }
    let json = [("Content-Type", "text/plain"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(browser.ask("POST", path, &json, &body(&token)).await.status, 400);
    assert_eq!(lab.count("objects"), 0, "nothing was saved");
    assert_eq!(raw(&mut browser, path, &body(&token)).await.status, 303);
    let origin = [kind, ("Origin", "https://localhost")];
    let other = format!("name=inside&step=save&csrf={token}");
    assert_eq!(browser.ask("POST", path, &origin, &other).await.status, 303);
}
