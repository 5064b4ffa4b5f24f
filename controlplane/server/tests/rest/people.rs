//! Who may: certificates of people and nobody else's, as long as they are people, as far as their role goes.

use std::io;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zen_control::{ConfigurationInput, Role, Subject, deny, remove_person, set_configuration};

use crate::client::Client;
use crate::lab::{Lab, TRUST_DOMAIN, now_ms};

/// The first answer on a connection, or why there is none: the server's verdict comes after the client's handshake.
async fn first(client: io::Result<Client>) -> io::Result<u16> {
    Ok(client?.try_send("GET", "/healthz", &[], b"").await?.status)
}

/// Asks until it is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    let asking = async { while !is_so().await {} };
    tokio::time::timeout(Duration::from_mins(1), asking).await.expect("it becomes so within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_people_get_through_the_handshake() {
    let lab = Lab::start().await;
    let files = lab.certificate("owner");
    assert_eq!(first(Client::connect(lab.address, &files).await).await.unwrap(), 200);
    let root = CertificateDer::from_pem_slice(&std::fs::read(files.join("root.pem")).unwrap()).unwrap();
    assert!(first(Client::with(lab.address, root, None).await).await.is_err(), "no certificate");

    // The control plane's own certificate is of the trust domain, and nobody's.
    let server = std::fs::read(lab.state().join("state/server.pem")).unwrap();
    let other = tempfile::tempdir().unwrap();
    for name in ["certificate.pem", "key.pem"] {
        std::fs::write(other.path().join(name), &server).unwrap();
    }
    std::fs::copy(files.join("root.pem"), other.path().join("root.pem")).unwrap();
    assert!(first(Client::connect(lab.address, other.path()).await).await.is_err(), "not below /people");

    // And people are no agents.
    let mut client = Client::connect(lab.agents, &files).await.unwrap();
    let answer = client.try_send("GET", "/agent/v1/configuration?after=0", &[], b"").await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_person_is_refused_with_the_next_request() {
    let lab = Lab::start().await;
    lab.add("eve", Role::Viewer);
    let files = lab.certificate("eve");
    let mut eve = Client::connect(lab.address, &files).await.unwrap();
    assert_eq!(eve.get("/v1/tenants").await.status, 200);
    remove_person(&mut lab.database(), "eve").unwrap();
    let refused = eve.get("/v1/tenants").await;
    assert_eq!(refused.problem(), "forbidden");
    assert_eq!(refused.header("connection"), Some("close"));
    lab.add("eve", Role::Owner);
    let mut returned = Client::connect(lab.address, &files).await.unwrap();
    assert_eq!(returned.get("/v1/tenants").await.problem(), "forbidden", "an old certificate is nobody's");
    assert_eq!(lab.client("eve").await.get("/v1/tenants").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_person_takes_no_place_of_another() {
    let lab = Lab::start().await;
    lab.add("eve", Role::Viewer);
    let files = lab.certificate("eve");
    let mut all = Vec::new();
    for _ in 0..32 {
        let mut client = Client::connect(lab.address, &files).await.unwrap();
        assert_eq!(client.get("/healthz").await.status, 200);
        all.push(client);
    }
    assert!(first(Client::connect(lab.address, &files).await).await.is_err(), "one more");
    assert_eq!(lab.owner().await.get("/healthz").await.status, 200, "others come in");
    drop(all.pop());
    until(async || first(Client::connect(lab.address, &files).await).await.is_ok()).await;
    assert_eq!(all[0].get("/healthz").await.status, 200, "those that were there stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_person_is_refused_on_a_live_connection_and_in_the_handshake() {
    let lab = Lab::start().await;
    lab.add("eve", Role::Admin);
    let files = lab.certificate("eve");
    let mut eve = Client::connect(lab.address, &files).await.unwrap();
    let denial = json!({"spiffe_id": format!("spiffe://{TRUST_DOMAIN}/people/eve")});
    let mut owner = lab.owner().await;
    let made = owner.post("/v1/denials", &denial).await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(eve.get("/v1/tenants").await.problem(), "forbidden");
    // Handshakes know it as soon as the listener has looked.
    until(async || first(Client::connect(lab.address, &files).await).await.is_err()).await;
    assert_eq!(owner.delete(made.header("location").unwrap()).await.status, 204);
    until(async || first(Client::connect(lab.address, &files).await).await.is_ok()).await;
    let subject = Subject::Id(format!("spiffe://{TRUST_DOMAIN}/people/owner"));
    deny(&lab.directory, &mut lab.database(), &subject, (None, None), now_ms()).unwrap();
    assert_eq!(owner.get("/v1/tenants").await.problem(), "forbidden", "a command denies as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_goes_as_far_as_its_table_says() {
    let lab = Lab::start().await;
    lab.add("admin", Role::Admin);
    lab.add("editor", Role::Editor);
    lab.add("viewer", Role::Viewer);
    let cluster = "/v1/tenants/acme/clusters/edge";
    let bundle = json!({"urls": ["https://c.example:1"]});
    // Owner, admin, editor, viewer.
    for (method, path, body, statuses) in [
        ("PUT", cluster, Some(json!({})), [201, 200, 403, 403]),
        ("GET", cluster, None, [200, 200, 200, 200]),
        ("POST", &format!("{cluster}/configurations"), None, [201, 201, 201, 403]),
        ("POST", &format!("{cluster}/bundles"), Some(bundle), [201, 201, 403, 403]),
        ("POST", "/v1/denials", Some(json!({"serial": "ab"})), [201, 201, 403, 403]),
        ("POST", "/v1/tenants", Some(json!({"name": "b"})), [201, 403, 403, 403]),
        ("DELETE", cluster, None, [204, 404, 403, 403]),
    ] {
        for (name, status) in ["owner", "admin", "editor", "viewer"].into_iter().zip(statuses) {
            let mut client = lab.client(name).await;
            let answer = client.request(method, path, &[], body.as_ref()).await;
            assert_eq!(answer.status, status, "{name} {method} {path}: {}", answer.text());
            assert!(status != 403 || answer.problem() == "forbidden");
        }
    }
    lab.database().execute("UPDATE roles SET role = 'viewer' WHERE person = 'admin'", ()).unwrap();
    assert_eq!(
        lab.client("admin").await.delete("/v1/denials/x").await.status,
        403,
        "the role of this moment"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_member_is_a_person() {
    let lab = Lab::start().await;
    let text = format!(
        r#"{{"members": {{"a": {{"spiffe_id": "spiffe://{TRUST_DOMAIN}/people/owner", "node": ""}}}}}}"#
    );
    let input: ConfigurationInput = serde_json::from_str(&text).unwrap();
    let refused = set_configuration(&lab.directory, &mut lab.database(), "edge", input);
    assert!(refused.unwrap_err().to_string().contains("/people/... are taken"));
    let named = lab.owner().await.put("/v1/tenants/acme/clusters/people", &json!({})).await;
    assert_eq!(named.problem(), "invalid", "members of such a cluster would be people");
}

#[test]
fn commands_make_and_remove_people() {
    let files = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zen-control"));
        let output = command.args(arguments).current_dir(files.path()).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), text)
    };
    let init = ["init", "--dir", "s", "--trust-domain", "acme.example", "--tenant", "acme", "--owner"];
    assert!(run(&[&init[..], &["../x"]].concat()).1.contains("--owner is letters"));
    assert!(run(&[&init[..], &["ann"]].concat()).0);
    let person = |arguments: &[&str]| run(&[&["person"], arguments, &["--dir", "s"]].concat());
    assert!(person(&["add", "--name", "bob", "--role", "viewer"]).0);
    assert_eq!(person(&["list"]).1, "ann acme owner\nbob acme viewer\n");
    for (arguments, said) in [
        (&["add", "--name", "bob", "--role", "owner"][..], "there is a person of this name"),
        (&["add", "--name", "a/b", "--role", "owner"], "letters"),
        (&["add", "--name", "eve", "--role", "king"], "a role is owner, admin, editor or viewer"),
        (&["remove", "--name", "ann"], "the last owner of a tenant stays"),
        (&["remove", "--name", "eve"], "nobody of this name"),
        (&["certificate", "--name", "eve", "--out", "e"], "nobody of this name"),
    ] {
        let (is_good, text) = person(arguments);
        assert!(!is_good && text.contains(said), "{arguments:?}: {text}");
    }
    let (is_good, text) = person(&["certificate", "--name", "bob", "--out", "b"]);
    assert!(is_good && text.contains("curl --cacert b/root.pem"), "{text}");
    for name in ["key.pem", "certificate.pem", "root.pem"] {
        let mode = std::os::unix::fs::MetadataExt::mode(
            &std::fs::metadata(files.path().join("b").join(name)).unwrap(),
        );
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    assert!(!person(&["certificate", "--name", "bob", "--out", "b"]).0, "never over another");
    assert!(person(&["role", "--name", "bob", "--role", "editor"]).0);
    assert_eq!(person(&["list"]).1, "ann acme owner\nbob acme editor\n");
    let (is_good, text) = person(&["link", "--name", "bob", "--web-url", "https://c.example/"]);
    assert!(is_good && text.contains("https://c.example/sign-in/link?token="), "{text}");
    assert!(person(&["remove", "--name", "bob"]).0);
    assert_eq!(person(&["list"]).1, "ann acme owner\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_its_way_is_answered_when_the_server_ends() {
    let lab = Lab::start().await;
    let (mut busy, mut idle) = (lab.owner().await, lab.owner().await);
    for client in [&mut busy, &mut idle] {
        assert_eq!(client.get("/healthz").await.status, 200);
    }
    let body = br#"{"name":"late"}"#;
    let head = format!(
        "POST /v1/tenants HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // The server asks for the body: so the request is on its way.
    assert_eq!(busy.raw(head.as_bytes(), "HEAD").await.unwrap().status, 100);
    lab.end();
    until(async || tokio::net::TcpStream::connect(lab.address).await.is_err()).await;
    assert!(idle.try_send("GET", "/healthz", &[], b"").await.is_err(), "an idle connection is closed");
    assert!(!lab.has_ended(), "somebody is not answered yet");
    let answer = busy.raw(body, "POST").await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    until(async || lab.has_ended()).await;
}
