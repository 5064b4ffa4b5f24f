//! Single sign-on through real HTTP: who comes in as what, and everything that a provider or a browser may not do.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zen_control::{Role, set_person_role};

use crate::client::Answer;
use crate::lab::{Browser, Lab, now_ms};
use crate::provider::{Behaviour, Provider, Signer};

async fn lab() -> (Provider, Lab) {
    let provider = Provider::start().await;
    let lab = Lab::start(Some(provider.settings())).await;
    (provider, lab)
}

/// To the provider; where it would lead.
async fn leave(browser: &mut Browser) -> String {
    let answer = browser.get("/sign-in/provider").await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").unwrap().to_owned()
}

async fn come_back(browser: &mut Browser, fields: &BTreeMap<String, String>) -> Answer {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    browser.get(&format!("/sign-in/provider/callback?{}", pairs.join("&"))).await
}

async fn sign_in(provider: &Provider, browser: &mut Browser) -> Answer {
    let location = leave(browser).await;
    come_back(browser, &provider.agree(&location)).await
}

/// Roles by tenant, and where each is from.
fn roles(lab: &Lab) -> Vec<(String, String, String)> {
    let sql = "SELECT tenant, role, source FROM roles WHERE person LIKE 'sso-%' ORDER BY tenant";
    let database = lab.database();
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn role(role: &str, source: &str) -> Vec<(String, String, String)> {
    vec![("acme".to_owned(), role.to_owned(), source.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_roles_and_read_at_each_sign_in() {
    let (provider, lab) = lab().await;
    let mut browser = lab.browser().await;
    let answer = sign_in(&provider, &mut browser).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", answer.text());
    assert!(browser.is_in().await);
    assert_eq!(roles(&lab), role("viewer", "groups"), "who is new and has no group");
    let groups = |groups: Value| Behaviour { claims: json!({ "groups": groups }), ..Behaviour::default() };
    for (said, expected) in [
        (json!(["operators", "elsewhere"]), "admin"),
        (json!("operators"), "admin"),
        (json!(["operators", "kings"]), "owner"),
        (json!(["other"]), "viewer"),
        (json!({"operators": true}), "viewer"),
    ] {
        provider.behave(groups(said.clone()));
        assert_eq!(sign_in(&provider, &mut browser).await.status, 303, "{said}");
        assert_eq!(roles(&lab), role(expected, "groups"), "{said}");
    }
    // What an owner says stays, whatever groups say.
    let name: String = lab
        .database()
        .query_row("SELECT name FROM people WHERE name LIKE 'sso-%'", (), |row| row.get(0))
        .unwrap();
    set_person_role(&mut lab.database(), &name, (None, Some(Role::Editor))).unwrap();
    provider.behave(groups(json!(["kings"])));
    sign_in(&provider, &mut browser).await;
    assert_eq!(roles(&lab), role("editor", "here"));
    // Whoever was taken out stays out.
    set_person_role(&mut lab.database(), &name, (None, None)).unwrap();
    provider.behave(groups(json!([])));
    sign_in(&provider, &mut browser).await;
    assert!(roles(&lab).is_empty());
    let actor = format!("{}|ann", provider.issuer);
    let own: Vec<_> =
        lab.acts().into_iter().filter(|(_, _, of)| *of == actor).map(|(action, _, _)| action).collect();
    assert!(own.contains(&"people.sign-in".to_owned()) && own.contains(&"people.put".to_owned()), "{own:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_take_no_last_owner() {
    let (provider, lab) = lab().await;
    let mut browser = lab.browser().await;
    provider.behave(Behaviour { claims: json!({"groups": ["kings"]}), ..Behaviour::default() });
    sign_in(&provider, &mut browser).await;
    set_person_role(&mut lab.database(), "owner", (None, Some(Role::Viewer))).unwrap();
    provider.behave(Behaviour::default());
    sign_in(&provider, &mut browser).await;
    assert_eq!(roles(&lab), role("owner", "groups"));
    assert!(lab.acts().iter().any(|(action, outcome, _)| action == "people.put" && outcome == "refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_known_by_issuer_and_subject_and_not_by_a_name() {
    let (provider, lab) = lab().await;
    let as_subject = |subject: &str, name: &str| Behaviour {
        claims: json!({"sub": subject, "preferred_username": name, "email": "owner@corp.example"}),
        ..Behaviour::default()
    };
    for (subject, name, people) in
        [("1", "owner", 2), ("2", "owner", 3), ("1", "another", 3), ("1 ", "owner", 4)]
    {
        provider.behave(as_subject(subject, name));
        let mut browser = lab.browser().await;
        assert_eq!(sign_in(&provider, &mut browser).await.status, 303);
        assert_eq!(lab.count("people"), people, "{subject} {name}");
    }
    let sql = "SELECT count(*) FROM provider_identities WHERE person = 'owner'";
    let found: i64 = lab.database().query_row(sql, (), |row| row.get(0)).unwrap();
    assert_eq!(found, 0, "nobody becomes who was here before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_may_not_say_is_refused_each_for_its_reason() {
    let (provider, lab) = lab().await;
    let now = now_ms() / 1000;
    let claims = |claims: Value| Behaviour { claims, ..Behaviour::default() };
    let header = |header: Value, signer: Signer| Behaviour { header, signer, ..Behaviour::default() };
    let token = |status: u16, text: &str| Behaviour {
        token_answer: Some((status, text.to_owned())),
        ..Behaviour::default()
    };
    for (behaviour, reason) in [
        (header(json!({"alg": "none"}), Signer::Nobody), "algorithm"),
        (header(json!({"alg": "HS256"}), Signer::PublishedKey), "algorithm"),
        (header(json!({}), Signer::Nobody), "signature"),
        (header(json!({}), Signer::Stranger), "signature"),
        (header(json!({"kid": "../../../../dev/null"}), Signer::Nobody), "no such key"),
        (header(json!({"kid": "' UNION SELECT 'x' --"}), Signer::Stranger), "no such key"),
        (header(json!({"jku": "http://127.0.0.1:1/", "jwk": {"kty": "oct"}}), Signer::Stranger), "signature"),
        (claims(json!({"iss": "https://evil.example"})), "another issuer"),
        (claims(json!({"aud": "other"})), "another client"),
        (claims(json!({"aud": ["zen", "other"]})), "given to another client"),
        (claims(json!({"azp": "other"})), "given to another client"),
        (claims(json!({"nonce": "of another sign-in"})), "not for this sign-in"),
        (claims(json!({"nonce": null})), "not for this sign-in"),
        (claims(json!({"exp": now - 61})), "is over"),
        (claims(json!({"iat": now + 120})), "future"),
        (claims(json!({"sub": null})), "three parts"),
        (token(200, "{}"), "no ID token"),
        (token(200, "<html>"), "no ID token"),
        (token(400, r#"{"error": "invalid_grant"}"#), "answers 400"),
        (token(302, ""), "answers 302"),
        (token(200, &"a".repeat(300_000)), "too long"),
    ] {
        provider.behave(behaviour);
        let mut browser = lab.browser().await;
        let answer = sign_in(&provider, &mut browser).await;
        assert!(matches!(answer.status, 403 | 502), "{reason}: {}", answer.status);
        assert!(answer.text().contains(reason), "{reason}: {}", answer.text());
        assert!(!browser.cookies.contains_key("__Host-zen-session"));
        assert!(!browser.is_in().await);
    }
    assert_eq!((lab.count("sessions"), lab.count("people")), (0, 1));
    assert_eq!(provider.asked("/elsewhere"), 0, "no way elsewhere is followed");
    let refused = lab
        .acts()
        .into_iter()
        .filter(|(action, outcome, _)| action == "people.sign-in" && outcome == "refused");
    // Of 21: so many of one address are entries, and the rest would only push others out.
    assert_eq!(refused.count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_may_not_bring_back_is_refused() {
    let (provider, lab) = lab().await;
    let mut browser = lab.browser().await;
    let location = leave(&mut browser).await;
    let good = provider.agree(&location);
    let with = |name: &str, value: Option<&str>| {
        let mut fields = good.clone();
        match value {
            Some(value) => drop(fields.insert(name.to_owned(), value.to_owned())),
            None => drop(fields.remove(name)),
        }
        fields
    };
    for fields in [with("state", None), with("state", Some("x")), with("state", Some(&"0".repeat(64)))] {
        let answer = come_back(&mut browser, &fields).await;
        assert!(answer.status == 403 && answer.text().contains("not known"), "{}", answer.text());
    }
    let mut other = lab.browser().await;
    leave(&mut other).await;
    assert_eq!(come_back(&mut other, &good).await.status, 403, "another browser");
    assert_eq!(provider.asked("/token"), 0, "no code went to the provider");
    let cookies = browser.cookies.clone();
    assert_eq!(come_back(&mut browser, &good).await.status, 303, "what others tried took nothing away");
    browser.cookies = cookies;
    let answer = come_back(&mut browser, &good).await;
    assert!(answer.status == 403 && answer.text().contains("not known"), "an answer is good once");
    assert_eq!(provider.asked("/token"), 1);

    for (name, value, reason) in [
        ("iss", Some("https://evil.example"), "another provider"),
        ("iss", None, "another provider"),
        ("code", None, "no code"),
        ("error", Some("access_denied"), "refused"),
    ] {
        let mut browser = lab.browser().await;
        let location = leave(&mut browser).await;
        let mut fields = provider.agree(&location);
        match value {
            Some(value) => drop(fields.insert(name.to_owned(), value.to_owned())),
            None => drop(fields.remove(name)),
        }
        let answer = come_back(&mut browser, &fields).await;
        assert!(answer.status == 403 && answer.text().contains(reason), "{name}: {}", answer.text());
        assert!(!browser.is_in().await);
    }
    assert_eq!(provider.asked("/token"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_asked_for_once_a_minute() {
    let (provider, lab) = lab().await;
    let mut browser = lab.browser().await;
    assert_eq!(sign_in(&provider, &mut browser).await.status, 303);
    assert_eq!(provider.asked("/keys"), 1);
    let location = leave(&mut browser).await;
    let good = provider.agree(&location);
    // While somebody is at the provider, its keys change; the first ones were asked for a moment ago.
    provider.rotate("second");
    let answer = come_back(&mut browser, &good).await;
    assert!(answer.status == 403 && answer.text().contains("no such key"), "{}", answer.text());
    assert_eq!(provider.asked("/keys"), 1, "not within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_of_another_issuer_leads_nowhere() {
    let provider = Provider::start().await;
    for (changes, status) in [
        (json!({"issuer": "https://evil.example"}), 502),
        (json!({"token_endpoint": "http://evil.example/token"}), 502),
        (json!({"jwks_uri": "file:///etc/passwd"}), 502),
        (json!({"code_challenge_methods_supported": ["plain"]}), 502),
        (json!({"authorization_endpoint": null}), 502),
        (json!({}), 303),
    ] {
        provider.behave(Behaviour { discovery: changes.clone(), ..Behaviour::default() });
        let lab = Lab::start(Some(provider.settings())).await;
        let answer = lab.browser().await.get("/sign-in/provider").await;
        assert_eq!(answer.status, status, "{changes}: {}", answer.text());
    }
    let lab = Lab::start(None).await;
    let mut browser = lab.browser().await;
    assert_eq!(browser.get("/sign-in/provider").await.status, 404);
    assert_eq!(browser.get("/sign-in/provider/callback?code=a&state=b").await.status, 404);
    assert!(!browser.get("/sign-in").await.text().contains("organization"));
}
