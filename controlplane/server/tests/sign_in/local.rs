//! Links, passwords and codes.

use aws_lc_rs::digest::{SHA256, digest};
use zen_control::{LINK_LIFE_MS, Role, Subject, add_person, set_person_role};

use crate::lab::{Codes, Lab, PASSWORD, csrf, now_ms, secret_of};

const SESSION: &str = "__Host-zen-session";

#[tokio::test(flavor = "multi_thread")]
async fn a_link_lets_somebody_in_once_and_in_time() {
    let lab = Lab::start(None).await;
    let (mut browser, token) = (lab.browser().await, lab.link("owner"));
    let page = browser.get(&format!("/sign-in/link?token={token}")).await;
    assert_eq!(page.header("cache-control"), Some("no-store"), "a secret is on it");
    let good = Codes::of(secret_of(&page.text())).after(0);
    for (token, password, code, status) in [
        (token.as_str(), "too short", good.as_str(), 422),
        (&token, &"a".repeat(257), &good, 422),
        (&token, PASSWORD, "000000x", 422),
        (&token, PASSWORD, "", 422),
        (&"0".repeat(64), PASSWORD, &good, 410),
        ("", PASSWORD, &good, 410),
    ] {
        let form = [("token", token), ("password", password), ("code", code)];
        assert_eq!(browser.post("/sign-in/link", &form).await.status, status, "{password} {code}");
    }
    assert_eq!((lab.count("accounts"), lab.count("sessions")), (0, 0));
    let form = [("token", token.as_str()), ("password", PASSWORD), ("code", &good)];
    assert_eq!(browser.post("/sign-in/link", &form).await.status, 303);
    assert!(browser.is_in().await);
    let mut other = lab.browser().await;
    assert_eq!(other.post("/sign-in/link", &form).await.status, 410, "once");
    assert_eq!(other.get(&format!("/sign-in/link?token={token}")).await.status, 410);
    assert!(!other.is_in().await);

    // A link that is over, and one that another has taken the place of.
    let (first, second) = (lab.link("owner"), lab.link("owner"));
    assert_eq!(other.get(&format!("/sign-in/link?token={first}")).await.status, 410);
    assert_eq!(other.get(&format!("/sign-in/link?token={second}")).await.status, 200);
    let sql = "UPDATE sign_in_links SET expires_ms = expires_ms - ?1";
    lab.database().execute(sql, (LINK_LIFE_MS.cast_signed(),)).unwrap();
    assert_eq!(other.get(&format!("/sign-in/link?token={second}")).await.status, 410, "an hour");
    assert!(browser.is_in().await, "making a link ends nothing");
    lab.signed_in("owner").await;
    assert!(!browser.is_in().await, "using one does");
    let actions: Vec<String> = lab.acts().into_iter().map(|(action, _, _)| action).collect();
    for action in ["people.link", "people.use-link"] {
        assert!(actions.iter().any(|found| found == action), "{action}: {actions:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn name_password_and_code_are_right_together_and_nothing_else_is_told() {
    let lab = Lab::start(None).await;
    let (_, codes) = lab.signed_in("owner").await;
    let mut browser = lab.browser().await;
    let (used, next, late) = (codes.after(0), codes.after(1), codes.after(4));
    let mut said = Vec::new();
    for (name, password, code) in [
        ("owner", PASSWORD, used.as_str()),
        ("owner", PASSWORD, &late),
        ("owner", PASSWORD, ""),
        ("owner", "another password", &next),
        ("owner", "", &next),
        ("nobody", PASSWORD, &next),
        ("../owner", PASSWORD, &next),
    ] {
        let form = [("name", name), ("password", password), ("code", code)];
        let answer = browser.post("/sign-in", &form).await;
        assert_eq!(answer.status, 422, "{name} {password} {code}");
        said.push(answer.text().replace(&format!("value=\"{name}\""), ""));
    }
    assert!(said.iter().all(|text| *text == said[0]), "{said:?}");
    assert!(!browser.is_in().await);
    let form = [("name", "owner"), ("password", PASSWORD), ("code", next.as_str())];
    let answer = browser.post("/sign-in", &form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(browser.is_in().await);
    let mut thief = lab.browser().await;
    assert_eq!(thief.post("/sign-in", &form).await.status, 422, "a code is good once");

    let text: String =
        lab.database().query_row("SELECT password FROM accounts", (), |row| row.get(0)).unwrap();
    assert!(!text.contains(PASSWORD));
    let cookie = &browser.cookies[SESSION];
    let hash = digest(&SHA256, cookie.as_bytes());
    let sql = "SELECT count(*) FROM sessions WHERE hash = ?1";
    let found: i64 = lab.database().query_row(sql, (hash.as_ref(),), |row| row.get(0)).unwrap();
    assert_eq!((found, cookie.len()), (1, 64), "only its hash is kept");
    let refused = lab.acts().into_iter().filter(|(action, outcome, actor)| {
        action == "people.sign-in" && outcome == "refused" && actor == "address:127.0.0.1"
    });
    assert_eq!(refused.count(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_does_nothing() {
    let lab = Lab::start(None).await;
    let (mut browser, codes) = lab.signed_in("owner").await;
    let token = csrf(&browser.cookies[SESSION]);
    let form = [("csrf", token.as_str())];
    for site in ["cross-site", "same-site", "none", ""] {
        assert_eq!(browser.post_from(site, "/sign-out", &form).await.status, 403, "{site}");
    }
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(browser.ask("POST", "/sign-out", &[kind], &format!("csrf={token}")).await.status, 403);
    let other = csrf(&"0".repeat(64));
    for sent in [&[][..], &[("csrf", "")], &[("csrf", &other)]] {
        assert_eq!(browser.post("/sign-out", sent).await.status, 403, "{sent:?}");
    }
    assert!(browser.is_in().await);
    // Nor does one sign anybody in, as somebody else.
    let mut victim = lab.browser().await;
    let login = [("name", "owner"), ("password", PASSWORD), ("code", &codes.after(1))];
    assert_eq!(victim.post_from("cross-site", "/sign-in", &login).await.status, 403);
    assert!(victim.cookies.is_empty());

    let stolen = browser.cookies.clone();
    let answer = browser.post("/sign-out", &form).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/sign-in")));
    assert!(browser.cookies.is_empty());
    browser.cookies = stolen;
    assert!(!browser.is_in().await, "the session is over, whoever has its cookie");
    assert!(
        lab.acts().iter().any(|(action, _, actor)| action == "people.sign-out" && actor == "person:owner")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_with_time_roles_and_denials() {
    let lab = Lab::start(None).await;
    add_person(&mut lab.database(), "ann", (None, Role::Admin), now_ms()).unwrap();
    let age = |column: &str, ms: i64| {
        let sql = format!("UPDATE sessions SET {column} = {column} - ?1");
        lab.database().execute(&sql, (ms,)).unwrap();
    };
    let (mut ann, _) = lab.signed_in("ann").await;
    age("used_ms", 29 * 60_000);
    assert!(ann.is_in().await, "29 minutes");
    age("used_ms", 29 * 60_000);
    assert!(ann.is_in().await, "it was used meanwhile");
    age("used_ms", 31 * 60_000);
    assert!(!ann.is_in().await, "31 minutes");
    let (mut ann, _) = lab.signed_in("ann").await;
    age("made_ms", 12 * 3_600_000);
    assert!(!ann.is_in().await, "12 hours");

    let (mut ann, _) = lab.signed_in("ann").await;
    set_person_role(&mut lab.database(), "ann", (None, Some(Role::Owner))).unwrap();
    assert!(ann.is_in().await, "whoever may more stays");
    set_person_role(&mut lab.database(), "ann", (None, Some(Role::Viewer))).unwrap();
    assert!(!ann.is_in().await, "whoever may less signs in again");
    let (mut ann, _) = lab.signed_in("ann").await;
    let subject = Subject::Id("spiffe://acme.example/people/ann".to_owned());
    lab.deny(&subject);
    assert!(!ann.is_in().await);
    assert_eq!(
        lab.browser().await.get(&format!("/sign-in/link?token={}", lab.link("ann"))).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_are_counted_and_nobody_is_locked_out_for_good() {
    let lab = Lab::start(None).await;
    let (_, codes) = lab.signed_in("owner").await;
    let mut guesser = lab.browser().await;
    let guess = [("name", "owner"), ("password", "some guess or other"), ("code", "000000")];
    for at in 0..10 {
        assert_eq!(guesser.post("/sign-in", &guess).await.status, 422, "{at}");
    }
    let right = [("name", "owner"), ("password", PASSWORD), ("code", &codes.after(1))];
    assert_eq!(guesser.post("/sign-in", &right).await.status, 429, "even what is right waits");
    assert_eq!(
        guesser.post("/sign-in", &[("name", "x"), ("password", "x"), ("code", "x")]).await.status,
        422
    );
    lab.signed_in("owner").await;
}
