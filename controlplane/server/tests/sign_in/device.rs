//! The device flow: a token for whoever a person says yes to, once, for an hour.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use zen_control::{Role, set_person_role};

use crate::lab::{Browser, Lab, csrf};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

async fn begin(device: &mut Browser) -> (String, String) {
    let answer = device.ask("POST", "/device/code", &[], "client_id=x").await;
    let begun = answer.json();
    let text = |name: &str| begun[name].as_str().unwrap().to_owned();
    assert!(text("verification_uri_complete").ends_with(&format!("/device?user_code={}", text("user_code"))));
    assert_eq!((&begun["expires_in"], &begun["interval"]), (&json!(600), &json!(5)));
    (text("device_code"), text("user_code"))
}

/// The token, or the error.
async fn ask(device: &mut Browser, code: &str) -> Result<String, String> {
    let answer =
        device.ask("POST", "/device/token", &[], &format!("grant_type={GRANT}&device_code={code}")).await;
    let value: Value = serde_json::from_slice(&answer.body).unwrap();
    match value["access_token"].as_str() {
        Some(token) => {
            assert_eq!((answer.status, &value["expires_in"]), (200, &json!(3600)));
            Ok(token.to_owned())
        }
        None => Err(value["error"].as_str().unwrap().to_owned()),
    }
}

/// On a connection of its own: one that was refused is closed.
async fn tenants(lab: &Lab, token: &str) -> u16 {
    let mut device = lab.browser().await;
    device.ask("GET", "/v1/tenants", &[("Authorization", &format!("Bearer {token}"))], "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_for_whom_a_person_says_yes_to() {
    let lab = Lab::start(None).await;
    let (mut person, _) = lab.signed_in("owner").await;
    let token = csrf(&person.cookies["__Host-zen-session"]);
    let mut device = lab.browser().await;
    let (code, user_code) = begin(&mut device).await;
    assert_eq!(ask(&mut device, &code).await.unwrap_err(), "authorization_pending");
    assert_eq!(ask(&mut device, &code).await.unwrap_err(), "slow_down");
    assert_eq!(ask(&mut device, &"0".repeat(64)).await.unwrap_err(), "expired_token");
    let other =
        device.ask("POST", "/device/token", &[], &format!("grant_type=password&device_code={code}")).await;
    assert_eq!(other.status, 400);

    // Nobody says yes for somebody else: not without a session, not from another site, not without the session's token.
    let at = format!("/device?user_code={user_code}");
    let away = device.get(&at).await;
    assert_eq!(
        (away.status, away.header("location").unwrap().starts_with("/sign-in?next=%2Fdevice")),
        (303, true)
    );
    assert_eq!(person.get(&at).await.status, 200);
    let form = [("csrf", token.as_str()), ("user_code", &user_code), ("answer", "allow")];
    assert_eq!(device.post("/device", &form).await.status, 403);
    assert_eq!(person.post_from("cross-site", "/device", &form).await.status, 403);
    assert_eq!(person.post("/device", &form[1..]).await.status, 403);
    let wrong = [("csrf", token.as_str()), ("user_code", "AAAA-AAAA"), ("answer", "allow")];
    assert_eq!(person.post("/device", &wrong).await.status, 422);
    assert_eq!(person.post("/device", &form).await.status, 200);
    let given = ask(&mut device, &code).await.unwrap();
    assert_eq!(ask(&mut device, &code).await.unwrap_err(), "expired_token", "once");

    assert_eq!(tenants(&lab, &given).await, 200);
    assert_eq!(device.get("/v1/tenants").await.status, 404, "nobody without it");
    for bad in [&given[1..], &"0".repeat(64), ""] {
        assert!(tenants(&lab, bad).await >= 400, "{bad}");
    }
    lab.database().execute("UPDATE tokens SET expires_ms = expires_ms - 3600000", ()).unwrap();
    assert_eq!(tenants(&lab, &given).await, 403, "an hour");
    assert!(lab.acts().iter().any(|(action, _, actor)| action == "tokens.create" && actor == "person:owner"));

    let (code, user_code) = begin(&mut device).await;
    let form = [("csrf", token.as_str()), ("user_code", &user_code), ("answer", "deny")];
    assert_eq!(person.post("/device", &form).await.status, 200);
    assert_eq!(ask(&mut device, &code).await.unwrap_err(), "access_denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_with_the_role_of_its_person() {
    let lab = Lab::start(None).await;
    zen_control::add_person(&mut lab.database(), "ann", (None, Role::Admin), crate::lab::now_ms()).unwrap();
    let (mut ann, _) = lab.signed_in("ann").await;
    let mut device = lab.browser().await;
    let (code, user_code) = begin(&mut device).await;
    let token = csrf(&ann.cookies["__Host-zen-session"]);
    ann.post("/device", &[("csrf", &token), ("user_code", &user_code), ("answer", "allow")]).await;
    let given = ask(&mut device, &code).await.unwrap();
    assert_eq!(tenants(&lab, &given).await, 200);
    set_person_role(&mut lab.database(), "ann", (None, Some(Role::Viewer))).unwrap();
    assert_eq!(tenants(&lab, &given).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_gets_a_token_when_somebody_confirms() {
    let lab = Lab::start(None).await;
    let (mut person, _) = lab.signed_in("owner").await;
    let token = csrf(&person.cookies["__Host-zen-session"]);
    let server = format!("https://localhost:{}", lab.address.port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_zen-control"));
    command.args(["login", "--server", &server, "--ca"]).arg(lab.root());
    let mut program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(program.stderr.take().unwrap()).lines();
    let code = tokio::task::spawn_blocking(move || {
        let line = said.find(|line| line.as_ref().unwrap().contains("confirm the code")).unwrap().unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    });
    let code = code.await.unwrap();
    let form = [("csrf", token.as_str()), ("user_code", &code), ("answer", "allow")];
    assert_eq!(person.post("/device", &form).await.status, 200);
    let output = tokio::task::spawn_blocking(move || program.wait_with_output().unwrap()).await.unwrap();
    let given = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(tenants(&lab, given.trim()).await, 200);
}
