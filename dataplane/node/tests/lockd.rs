//! Nodes whose secrets are in their host's lockd, as processes, with a stand-in that speaks its protocol.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use agent::Agent;
use lockd::Lockd;
use mesh::{Mesh, send, target, verifier};
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use support::client::{Client, github, link_config, signature, signature_with};
use support::node::{Node, run, wait_until};
use support::{GITHUB, Lab, Ports, SECRET, WHSEC, change};
use target::Answer;
use zen_lock::Refusal;

#[path = "support/agent.rs"]
mod agent;
#[path = "support/lockd.rs"]
mod lockd;
#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

/// What is taken out of the lab's files, and is in lockd alone then.
const PLACES: [&str; 7] = [
    "pki/edge.key",
    "pki/inside.key",
    "pki/public.key",
    "secrets/link",
    "secrets/source",
    "secrets/standard",
    "secrets/target",
];
const HASH_KEY: &str = "test/node/hash-key";
const SECTION: &str = "[lockd]\nsocket = \"lockd.sock\"\n\n";

fn sealed(place: &str) -> String {
    format!("test/{place}")
}

/// A lab's lockd, which has its secrets and keys; their files are gone.
fn lockd_of(lab: &Lab) -> Lockd {
    let lockd = Lockd::start(&lab.path("lockd.sock"));
    for place in PLACES {
        lockd.seal(&sealed(place), fs::read_to_string(lab.path(place)).unwrap());
        fs::remove_file(lab.path(place)).unwrap();
    }
    lockd.seal(HASH_KEY, "00112233445566778899AABBCCDDEEFF\n");
    lockd
}

/// `text` with every secret and key in lockd.
fn in_lockd(text: &str) -> String {
    let text = change(text, "[node]\n", &format!("{SECTION}[node]\nhash_key_file = \"lockd:{HASH_KEY}\"\n"));
    PLACES.iter().fold(text, |text, place| {
        text.replace(&format!("\"{place}\""), &format!("\"lockd:{}\"", sealed(place)))
    })
}

/// The ingester `edge` with everything in lockd.
fn ingester() -> (Lab, Lockd, Ports, String) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let (lockd, text) = (lockd_of(&lab), in_lockd(&lab.ingester_text(ports)));
    (lab, lockd, ports, text)
}

/// Reloads, and waits until the status begins with `status`.
fn reload(node: &Node, status: &str) {
    node.signal(Signal::SIGHUP);
    wait_until(status, || node.get("/status").1.starts_with(status));
}

/// Exit code and standard error of a check of `text`.
fn check(lab: &Lab, text: &str) -> (i32, String) {
    let file = lab.write("node.toml", text);
    let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Everything that a running node keeps, as text. A file that gets another name meanwhile is looked for again.
fn kept(directory: &Path) -> String {
    let mut all = None;
    wait_until("all files are read", || {
        let read = try_kept(directory);
        let is_gone = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        all = (!is_gone).then(|| read.unwrap());
        all.is_some()
    });
    all.unwrap()
}

fn try_kept(directory: &Path) -> io::Result<String> {
    let mut all = String::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?.path();
        all.push_str(&entry.display().to_string());
        all.push_str(&if entry.is_dir() {
            try_kept(&entry)?
        } else {
            String::from_utf8_lossy(&fs::read(&entry)?).into_owned()
        });
    }
    Ok(all)
}

#[test]
fn a_path_without_a_secret_on_disk_delivers() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let lockd = lockd_of(&lab);
    let user = User::from_uid(geteuid()).unwrap().unwrap().name;
    let named = |text: &str| change(&in_lockd(text), SECTION, &format!("{SECTION}user = \"{user}\"\n"));
    let section = lab.target_text("demo", target.address, "");
    let mesh = Mesh::start_with(lab, &section, named, in_lockd);
    let mut sent = vec![mesh.send(b"{}")];
    target.wait(1);
    for node in [&mesh.edge, &mesh.inside] {
        reload(node, "generation 2 in force\n");
    }
    sent.push(mesh.send(b"{}"));
    let mut verifier = verifier("demo");
    for delivery in target.wait(2) {
        assert!(sent.contains(&delivery.verify(&mut verifier).unwrap()));
        delivery.check_standard_webhooks(WHSEC);
    }
    for name in ["edge", "inside"] {
        let kept = kept(&mesh.lab.path(name));
        for secret in ["idempotency.key", SECRET, &WHSEC[6..], "PRIVATE KEY"] {
            assert!(!kept.contains(secret), "{secret} below {name}");
        }
    }
    // Once at the start, once more when root's capabilities are gone, once for the reload.
    let asked = lockd.asked(&sealed("secrets/standard"));
    assert_eq!(asked, if geteuid().is_root() { 3 } else { 2 });
    assert_eq!(lockd.asked(&sealed("pki/edge.key")), 1);
}

#[test]
fn each_fault_is_told_at_its_key_with_the_remedy() {
    let (lab, lockd, _, good) = ingester();
    lockd.refuse("test/refused/denied", Refusal::Denied);
    lockd.refuse("test/refused/sealed", Refusal::Sealed);
    lockd.refuse("test/refused/busy", Refusal::Busy);
    lockd.seal("test/odd/empty", " \n");
    lockd.seal("test/odd/long", vec![b'x'; 4097]);
    lockd.seal("test/odd/binary", [0xff, 0xfe]);
    assert_eq!(check(&lab, &good), (0, String::new()));
    let (standard, svid) = ("test/secrets/standard", "test/pki/edge.key");
    let (public, link) = ("test/pki/public.key", "key_file = \"lockd:test/secrets/link");
    let rows: [(&str, &str, &[&str]); 18] = [
        (
            standard,
            "test/standard",
            &["endpoints[1].secret_files: \"test/standard\"", "lockd:NAMESPACE/NAME/KEY"],
        ),
        (
            standard,
            "../../passwd",
            &["endpoints[1].secret_files: \"../../passwd\"", "does not begin with a dot"],
        ),
        (
            standard,
            "test/refused/denied",
            &["endpoints[1].secret_files: lockd:test/refused/denied: ", "grant it"],
        ),
        (standard, "test/refused/none", &["endpoints[1].secret_files", "no such secret", "seal it"]),
        (standard, "test/refused/sealed", &["endpoints[1].secret_files", "zen-lockd check", "seal it again"]),
        (standard, "test/refused/busy", &["lockd.socket: lockd is busy; try again"]),
        (standard, "test/odd/empty", &["endpoints[1].secret_files: lockd:test/odd/empty is empty"]),
        (standard, "test/odd/long", &["endpoints[1].secret_files", "over 4096 bytes"]),
        (standard, "test/odd/binary", &["endpoints[1].secret_files", "must be text"]),
        (link, "key_file = \"lockd:test/secrets/source", &["egresses[0].key_file", "whsec_"]),
        (HASH_KEY, "test/secrets/link", &["node.hash_key_file", "32 hex digits"]),
        (svid, "test/pki/none", &["identity.private_key_file: lockd:test/pki/none", "seal it"]),
        (svid, "test/secrets/link", &["identity: ", "lockd:test/secrets/link", "no PEM private key"]),
        (svid, "test/pki/inside.key", &["identity: ", "lockd:test/pki/inside.key", "not that of the first"]),
        (
            public,
            "test/refused/denied",
            &["ingester.private_key_file: lockd:test/refused/denied", "grant it"],
        ),
        ("lockd.sock", "other.sock", &["lockd.socket: ", "/other.sock: No such file", "start zen-lockd"]),
        (SECTION, "", &["identity.private_key_file: names a secret of lockd", "add [lockd]"]),
        (
            SECTION,
            "[lockd]\nsocket = \"lockd.sock\"\nuser = \"1\"\n",
            &["lockd.user: ", "who is not trusted with secrets"],
        ),
    ];
    for (from, to, says) in rows {
        let (code, said) = check(&lab, &change(&good, from, to));
        assert!(code == 1 && said.contains("1 fault(s)"), "{to}: {said}");
        assert!(says.iter().all(|part| said.contains(part)), "{to}: {says:?} in {said}");
    }
    let stranger = change(&good, SECTION, &format!("{SECTION}user = \"no one of this name\"\n"));
    let said = check(&lab, &stranger).1;
    assert!(
        said.contains("1 fault(s)") && said.contains("lockd.user: ") && said.contains("no such user"),
        "{said}"
    );
}

#[test]
fn every_key_of_an_egress_that_names_a_secret_may_name_one_in_lockd() {
    let lab = Lab::new();
    let lockd = lockd_of(&lab);
    let base = |extra: &str| {
        let target = lab.target_text("demo", support::free_address(), extra);
        in_lockd(&lab.egress_text(Ports::pick(), support::free_address(), &target))
    };
    let none = "lockd:test/none";
    let oauth = format!(
        "authorization = {{ kind = \"oauth2\", token_url = \"https://tokens.example/\", client_id = \"a\", \
         client_secret_file = \"{none}/a\" }}"
    );
    let previous = format!("previous_secret_file = \"{none}/b\"");
    let bearer = format!("authorization = {{ kind = \"bearer\", token_file = \"{none}/c\" }}");
    let basic =
        format!("authorization = {{ kind = \"basic\", username = \"a\", password_file = \"{none}/d\" }}");
    for (extra, key) in [
        (oauth, "authorization.client_secret_file"),
        (previous, "previous_secret_file"),
        (bearer, "authorization.token_file"),
        (basic, "authorization.password_file"),
    ] {
        let missing = format!("egress.targets[0].{key}: {none}/");
        let said = check(&lab, &base(&extra)).1;
        assert!(said.contains("1 fault(s)") && said.contains(&missing), "{missing} in {said}");
        let place = extra.split(none).nth(1).unwrap().split('"').next().unwrap();
        lockd.seal(&format!("test/none{place}"), WHSEC);
        assert_eq!(check(&lab, &base(&extra)), (0, String::new()), "{extra}");
    }
    lockd.refuse("test/secrets/link", Refusal::Denied);
    lockd.refuse("test/secrets/target", Refusal::Denied);
    let said = check(&lab, &base("")).1;
    for key in ["egress.ingesters[0].keys[0].file: lockd:", "egress.targets[0].secret_file: lockd:"] {
        assert!(said.contains("2 fault(s)") && said.contains(key), "{key} in {said}");
    }
}

#[test]
fn a_thousand_secrets_take_one_connection_and_are_one_fault_when_lockd_is_down() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let mut text = format!("{SECTION}{}", lab.ingester_text(ports));
    let lockd = Lockd::start(&lab.path("lockd.sock"));
    for number in 1..=1000 {
        lockd.seal(&format!("test/endpoints/{number}"), SECRET);
        let id = format!("{number:032x}").replacen('0', "f", 1);
        text.push_str(&support::endpoint(&id, "github", "x", ""));
        text = text.replace("secrets/x", &format!("lockd:test/endpoints/{number}"));
    }
    assert_eq!(check(&lab, &text), (0, String::new()));
    assert_eq!((lockd.connections(), lockd.asked_in_all()), (1, 1000));
    wait_until("the connection is closed", || lockd.connected() == 0);

    // Others are looked at all the same.
    let wrong = change(&change(&text, "workers = 1", "workers = 65"), "secrets/standard", "secrets/no");
    lockd.go_down();
    let said = check(&lab, &wrong).1;
    for part in ["3 fault(s)", "node.workers", "endpoints[1].secret_files", "lockd.socket", "start zen-lockd"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(said.lines().filter(|line| line.contains("lockd")).count(), 1, "{said}");
    let said = check(&lab, &change(&text, SECTION, "")).1;
    assert!(
        said.contains("1 fault(s)") && said.contains("endpoints[3].secret_files: names a secret"),
        "{said}"
    );
}

/// What depends on a secret that was not read is no fault of its own.
#[test]
fn a_lockd_that_does_not_answer_is_waited_for_once() {
    let lab = Lab::new();
    let _silent = UnixListener::bind(lab.path("lockd.sock")).unwrap();
    let target = |name: &str| lab.target_text(name, support::free_address(), "");
    let output = "[[egress.outputs]]\nname = \"either\"\nprimary = \"demo\"\nstandby = [\"other\"]\n";
    let targets = [&target("demo"), &target("other"), output].concat();
    let text = lab.egress_text(Ports::pick(), support::free_address(), &targets);
    let text = text.replace("secrets/target", "lockd:test/secrets/target");
    let begun = Instant::now();
    let said = check(&lab, &format!("{SECTION}{text}")).1;
    assert!(said.contains("1 fault(s)") && said.contains("lockd.socket: "), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

#[test]
fn a_node_does_not_start_without_its_lockd() {
    let (lab, lockd, ports, text) = ingester();
    lockd.go_down();
    let config = lab.write("edge.toml", &text);
    let mut node = Node::spawn(&config, ports.admin);
    assert!(!node.wait().success());
    node.wait_log("start zen-lockd");
    let log = node.log();
    let socket = lab.path("lockd.sock").display().to_string();
    assert!(log.contains("1 fault(s)") && log.contains("lockd.socket: ") && log.contains(&socket), "{log}");
    lockd.come_up();
    let node = lab.start("edge", ports, &text);
    send(&mut Client::connect(&lab, ports.listen), GITHUB, b"{}");
    drop(node);
}

#[test]
fn what_is_in_force_stays_while_lockd_is_down() {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let lockd = lockd_of(&lab);
    let section = lab.target_text("demo", target.address, "");
    let mesh = Mesh::start_with(lab, &section, in_lockd, in_lockd);
    let issued = mesh.lab.svid_ca.svid("egress/inside");
    lockd.go_down();
    mesh.lab.write("pki/inside.pem", &issued.certificate);
    mesh.inside.wait_log("is zen-lockd running");
    assert!(mesh.inside.log().contains("X.509-SVID not reloaded, the old one stays"));
    for node in [&mesh.edge, &mesh.inside] {
        reload(node, "generation 1 in force; the last reload was refused");
        assert!(node.get("/status").1.contains("lockd.socket"));
    }
    mesh.send(b"{}");
    target.wait(1);

    // The certificate is there before its key: until that is sealed, the old one stays.
    lockd.come_up();
    mesh.inside.wait_log("not that of the first certificate");
    lockd.seal(&sealed("pki/inside.key"), &issued.key);
    mesh.inside.wait_log("X.509-SVID or trust bundle reloaded");
    for node in [&mesh.edge, &mesh.inside] {
        reload(node, "generation 2 in force\n");
    }
    mesh.send(b"{}");
    target.wait(2);
}

#[test]
fn a_secret_that_was_sealed_again_is_in_force_after_a_reload() {
    let (lab, lockd, ports, text) = ingester();
    let node = lab.start("edge", ports, &text);
    let answer = |secret: &str| {
        let request = String::from_utf8(github(GITHUB, b"{}", "")).unwrap();
        let request = request.replace(&signature(b"{}"), &signature_with(secret, b"{}"));
        Client::connect(&lab, ports.listen).ask(request.as_bytes()).status
    };
    lockd.seal(&sealed("secrets/source"), "another secret");
    assert_eq!((answer(SECRET), answer("another secret")), (202, 401));
    reload(&node, "generation 2 in force\n");
    wait_until("the new secret", || answer("another secret") == 202);
    assert_eq!(answer(SECRET), 401);

    lockd.refuse(&sealed("secrets/source"), Refusal::Denied);
    reload(&node, "generation 2 in force; the last reload was refused");
    assert_eq!(answer("another secret"), 202);
}

#[test]
fn a_poll_asks_for_a_key_only_with_another_certificate() {
    let (lab, lockd, ports, text) = ingester();
    let node = lab.start("edge", ports, &text);
    let keys = [sealed("pki/edge.key"), sealed("pki/public.key")];
    let asked = || keys.each_ref().map(|key| lockd.asked(key));
    let before = lockd.asked_in_all();
    // Five polls at least.
    thread::sleep(Duration::from_millis(600));
    assert_eq!((asked(), lockd.asked_in_all()), ([1, 1], before));
    reload(&node, "generation 2 in force\n");
    assert_eq!(asked(), [1, 1]);

    let config = link_config(&lab.path("pki/demo.pem"), &lab.path("pki/demo.key"));
    let leaf = |address| {
        let client = Client::connect_with(&config, address).unwrap();
        client.tls.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let first = leaf(ports.link);
    for (issued, place) in [(lab.svid_ca.svid("ingester/edge"), "edge"), (lab.public_ca.server(), "public")] {
        lockd.seal(&sealed(&format!("pki/{place}.key")), &issued.key);
        lab.write(&format!("pki/{place}.pem"), &issued.certificate);
    }
    node.wait_log("X.509-SVID or trust bundle reloaded");
    node.wait_log("public certificate reloaded");
    assert_ne!(leaf(ports.link), first);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(asked(), [2, 2]);
}

#[test]
fn a_generation_asks_for_a_key_only_with_another_certificate_or_name() {
    let (lab, lockd, ports, text) = ingester();
    let place = |text: &str, from: &str, to: &Path| change(text, from, &format!("\"{}\"", to.display()));
    let text = place(&text, "\"lockd.sock\"", &lab.path("lockd.sock"));
    let text =
        change(&text, "data_dir = \"edge\"", &format!("data_dir = \"{}\"", lab.path("edge").display()));
    let text = place(&text, "\"pki/edge.pem\"", Path::new("svid.pem"));
    let text = place(&text, "\"pki/bundle.pem\"", Path::new("bundle.pem"));
    let text = place(&text, "\"pki/public.pem\"", Path::new("public.pem"));
    let agent = Agent::new(&lab);
    let lead = |number: u64, svid: &str, text: &str| {
        agent.publish_text(&lab, number, svid, text);
        agent.lead(&format!("gen-{number}"));
    };
    lead(1, "edge", &text);
    let node = Node::start_managed(&agent.directory, ports.admin);
    let (key, public) = (sealed("pki/edge.key"), sealed("pki/public.key"));
    let taken =
        |number: u64| wait_until("it is taken", || node.metric("zen_managed_generation") as u64 == number);
    let asked = || (lockd.asked(&key), lockd.asked(&public));
    assert_eq!(asked(), (1, 1));
    lead(2, "edge", &text);
    taken(2);
    assert_eq!(asked(), (1, 1), "the same certificate under the same name");

    lab.svid("next", "ingester/edge");
    lockd.seal(&key, fs::read_to_string(lab.path("pki/next.key")).unwrap());
    lead(3, "next", &text);
    taken(3);
    assert_eq!(asked(), (2, 1), "another certificate");

    lockd.seal("test/pki/moved.key", fs::read_to_string(lab.path("pki/next.key")).unwrap());
    lead(4, "next", &change(&text, &format!("lockd:{key}"), "lockd:test/pki/moved.key"));
    taken(4);
    assert_eq!((asked(), lockd.asked("test/pki/moved.key")), ((2, 1), 1), "another name");

    // What cannot be opened is asked for once. Three looks: each says that what is in force has lost a file.
    lead(5, "edge", &change(&text, &format!("lockd:{key}"), "lockd:test/pki/no.key"));
    wait_until("it is refused", || node.get("/status").1.contains("identity.private_key_file"));
    fs::remove_file(agent.directory.join("gen-4/svid.pem")).unwrap();
    wait_until("three looks", || {
        node.log().matches("X.509-SVID not reloaded, the old one stays").count() >= 3
    });
    assert_eq!((node.metric("zen_reloads_refused_total") as u64, lockd.asked("test/pki/no.key")), (1, 1));
    lead(6, "next", &text);
    taken(6);
}

#[test]
fn the_key_of_ids_can_move_from_the_data_directory_to_lockd() {
    let (lab, lockd, ports, text) = ingester();
    let request = github(GITHUB, b"{}", "");
    let ask = || Client::connect(&lab, ports.listen).ask(&request).status;
    let without = change(&text, &format!("hash_key_file = \"lockd:{HASH_KEY}\"\n"), "");
    let mut node = lab.start("edge", ports, &without);
    assert_eq!(ask(), 202);
    assert!(node.terminate().success());

    let config = lab.write("edge.toml", &text);
    let mut node = Node::spawn(&config, ports.admin);
    assert!(!node.wait().success());
    node.wait_log("forgets all keys");
    let log = node.log();
    assert!(log.contains("another key than node.hash_key_file") && log.contains("match nothing"), "{log}");

    // As the message says.
    let command = log.split_once("(od ").unwrap().1.split_once("), or remove").unwrap().0;
    let hex = Command::new("sh").args(["-c", &format!("od {command}")]).output().unwrap();
    lockd.seal(HASH_KEY, hex.stdout);
    let mut node = lab.start("edge", ports, &text);
    node.wait_log("idempotency.key holds the key of node.hash_key_file, and can be removed");
    assert_eq!(ask(), 200, "still known");
    fs::remove_file(lab.path("edge/idempotency.key")).unwrap();
    assert!(node.terminate().success());
    let node = lab.start("edge", ports, &text);
    assert_eq!(ask(), 200, "still known");

    lockd.seal(HASH_KEY, "0".repeat(32));
    node.signal(Signal::SIGHUP);
    wait_until("refused", || node.get("/status").1.contains("node.hash_key_file needs a restart"));
    assert!(!lab.path("edge/idempotency.key").exists());
}

#[test]
fn another_lockd_needs_a_restart() {
    let (lab, _lockd, ports, text) = ingester();
    let node = lab.start("edge", ports, &text);
    lab.write("edge.toml", &change(&text, SECTION, &format!("{SECTION}user = \"{}\"\n", geteuid())));
    node.signal(Signal::SIGHUP);
    wait_until("refused", || node.get("/status").1.contains("lockd needs a restart"));
}

/// A node that was root and gave that up may not be let in any more; it says so while there is time.
#[test]
fn a_socket_that_a_reload_could_not_reach_is_named_at_the_start() {
    let (lab, lockd, ports, text) = ingester();
    let socket = lab.path("lockd.sock");
    fs::set_permissions(&socket, Permissions::from_mode(0o000)).unwrap();
    let node = lab.start("edge", ports, &text);
    node.wait_log("without capabilities a reload will be refused");
    assert!(
        node.log().contains("lockd.socket: ") && node.log().contains("let this user reach"),
        "{}",
        node.log()
    );
    reload(&node, "generation 1 in force; the last reload was refused");
    fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    reload(&node, "generation 2 in force\n");
    assert_eq!(lockd.asked(&sealed("secrets/standard")), 2);
}
