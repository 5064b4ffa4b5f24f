//! Who may try, and how often: networks, proxies, header rules, rates, and proofs beside the signature.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use rustls::ClientConfig;
use support::client::{
    Answer, Client, client_certificate_config, github, github_head, signature, source_config,
};
use support::node::{Node, run, wait_until};
use support::{GITHUB, HMAC, Lab, Ports, STANDARD, change};

mod support;

const BODY: &[u8] = b"{}";
/// From where the tests connect.
const HERE: &str = "127.0.0.0/8";
const ELSEWHERE: &str = "192.0.2.0/24";

/// Keys of `[ingester]`, and keys of the endpoint [`GITHUB`], one a line.
fn configured(lab: &Lab, ports: Ports, ingester: &str, endpoint: &str) -> String {
    let text = change(&lab.ingester_text(ports), "[ingester]\n", &format!("[ingester]\n{ingester}\n"));
    let headers = "forward_headers = [\"x-github-event\"]";
    change(&text, headers, &format!("{headers}\n{endpoint}"))
}

fn start(ingester: &str, endpoint: &str) -> (Lab, Ports, Node) {
    let (lab, ports) = (Lab::new(), Ports::pick());
    let node = lab.start("edge", ports, &configured(&lab, ports, ingester, endpoint));
    (lab, ports, node)
}

fn refused(node: &Node, reason: &str) -> usize {
    node.metric(&format!("zen_requests_refused_total{{reason=\"{reason}\"}}")) as usize
}

fn observed(node: &Node, reason: &str) -> usize {
    node.metric(&format!("zen_requests_observed_total{{reason=\"{reason}\"}}")) as usize
}

fn ask(lab: &Lab, ports: Ports, request: &[u8]) -> Answer {
    Client::connect(lab, ports.listen).ask(request)
}

/// Complaints of a check.
fn complaints(lab: &Lab, text: &str) -> String {
    let file = lab.write("checked.toml", text);
    let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_endpoint_takes_requests_from_its_networks_only() {
    for (rule, status) in [
        (format!("networks = {{ allow = [\"{HERE}\"] }}"), 202),
        (format!("networks = {{ allow = [\"{ELSEWHERE}\"] }}"), 403),
        (format!("networks = {{ deny = [\"{HERE}\"] }}"), 403),
        (format!("networks = {{ allow = [\"{HERE}\"], deny = [\"{ELSEWHERE}\"] }}"), 202),
        ("networks = { allow = [\"::/0\"] }".to_owned(), 403),
        ("networks = { allow = [\"::ffff:127.0.0.0/104\"] }".to_owned(), 202),
    ] {
        let (lab, ports, node) = start("", &rule);
        let answer = ask(&lab, ports, &github(GITHUB, BODY, ""));
        assert_eq!(answer.status, status, "{rule}: {answer:?}");
        assert_eq!(refused(&node, "network"), usize::from(status == 403), "{rule}");
        // A list admits nobody.
        let unsigned =
            change(&github_head(GITHUB, BODY, "Content-Length: 2\r\n"), &signature(BODY), "sha256=00");
        let answer = ask(&lab, ports, &[unsigned.as_bytes(), BODY].concat());
        assert_eq!(answer.status, if status == 202 { 401 } else { 403 }, "{rule}");
    }
}

#[test]
fn a_named_list_is_observed_then_enforced_and_read_again() {
    let lab = Lab::new();
    let ports = Ports::pick();
    lab.write("provider.txt", "# what the provider publishes\n192.0.2.0/24\n\n2001:db8::/32 # IPv6\n");
    let list = "networks.provider = { file = \"provider.txt\", mode = \"observe\" }";
    let text = configured(&lab, ports, list, "networks = { allow = [\"provider\"] }");
    let node = lab.start("edge", ports, &text);
    let reload = |generation: usize| {
        node.signal(Signal::SIGHUP);
        wait_until("the reload", || node.get("/status").1.contains(&format!("generation {generation} ")));
    };
    assert_eq!(ask(&lab, ports, &github(GITHUB, BODY, "")).status, 202);
    assert_eq!((observed(&node, "network"), refused(&node, "network")), (1, 0));

    lab.write("edge.toml", &change(&text, "\"observe\"", "\"enforce\""));
    reload(2);
    assert_eq!(ask(&lab, ports, &github(GITHUB, BODY, "")).status, 403);
    assert_eq!((observed(&node, "network"), refused(&node, "network")), (1, 1));

    lab.write("provider.txt", "192.0.2.0/24\n127.0.0.1\n");
    reload(3);
    assert_eq!(ask(&lab, ports, &github(GITHUB, BODY, "")).status, 202);

    lab.write("provider.txt", "127.0.0.1\n192.0.2.0/33\n");
    node.signal(Signal::SIGHUP);
    node.wait_log("provider.txt:2: ");
    assert_eq!(ask(&lab, ports, &github(GITHUB, BODY, "")).status, 202, "a bad list changes nothing");
}

#[test]
fn what_is_wrong_with_access_is_named() {
    let lab = Lab::new();
    lab.write("empty.txt", "# nothing\n");
    let token = "authorization = { kind = \"bearer\", secret_files = [\"secrets/source\"] }";
    for (ingester, endpoint, complaint) in [
        ("", "networks = { allow = [\"192.0.2.1/24\"] }", "the network is 192.0.2.0/24"),
        ("", "networks = { allow = [\"provider\"] }", "the name of a list"),
        (
            "",
            "networks = { allow = [\"10.0.0.0/8\"], deny = [\"10.1.0.0/16\"] }",
            "10.1.0.0 is both allowed and denied",
        ),
        ("networks.a = { cidrs = [\"192.0.2\"] }", "", "ingester.networks.a.cidrs"),
        ("networks.a = { }", "", "has both file and cidrs, or neither"),
        ("networks.a = { file = \"empty.txt\" }", "", "holds no network"),
        ("networks.a = { file = \"missing.txt\" }", "", "ingester.networks.a.file"),
        ("proxies = { networks = [], protocol = \"proxy-v2\" }", "", "no proxy is known"),
        (
            "proxies = { networks = [\"10.0.0.0/8\"], protocol = \"proxy-v2\", hops = 2 }",
            "",
            "ingester.proxies.hops",
        ),
        ("", "headers = [{ name = \"x y\" }]", "is not a header name"),
        (
            "",
            "headers = [{ name = \"x-a\", one_of = [\"a\"], prefix = \"b\" }]",
            "ingester.endpoints[0].headers[0]",
        ),
        ("", "headers = [{ name = \"x-a\", one_of = [\"a\"], regex = \"b\" }]", "more than one of"),
        ("", "headers = [{ name = \"x-a\", regex = \"(\" }]", "headers[0].regex: regex does not compile"),
        ("", "headers = [{ name = \"x-a\", regex = '\\w' }]", "regex needs more than 32768 bytes"),
        ("", "headers = [{ name = \"x-a\", prefix = \" b\" }]", "is no value"),
        ("", "rates = { source = { per_minute = 0, burst = 1 } }", "ingester.endpoints[0].rates.source"),
        ("", "client_certificate = { }", "needs ingester.client_ca_file"),
        ("client_ca_file = \"secrets/source\"", "", "ingester.client_ca_file"),
        ("", token, "is not a bearer token"),
        ("rate_sources_max = 10", "", "ingester.rate_sources_max"),
    ] {
        let text = configured(&lab, Ports::pick(), ingester, endpoint);
        let said = complaints(&lab, &text);
        assert!(said.contains(complaint), "{ingester} {endpoint}: {said}");
    }
    let github = "scheme = \"github\"\nsecret_files = [\"secrets/source\"]";
    let text = lab.ingester_text(Ports::pick());
    let said = complaints(&lab, &change(&text, github, "scheme = \"none\""));
    assert!(said.contains("anybody could send"), "{said}");
    let said = complaints(&lab, &change(&text, github, "scheme = \"github\""));
    assert!(said.contains("needs at least one"), "{said}");
}

/// A PROXY header of version 2 for a client at `source`.
fn proxied(source: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match source {
        SocketAddr::V4(source) => (0x11, [&source.ip().octets()[..], &[127, 0, 0, 1, 1, 1, 1, 1]].concat()),
        SocketAddr::V6(source) => (0x21, [&source.ip().octets()[..], &[0; 20]].concat()),
    };
    let length = (addresses.len() as u16).to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length, &addresses].concat()
}

/// A connection that begins with `first`, in two pieces.
fn connect_behind(config: &Arc<ClientConfig>, address: SocketAddr, first: &[u8]) -> std::io::Result<Client> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let (one, two) = first.split_at(first.len() / 2);
    socket.write_all(one)?;
    socket.write_all(two)?;
    Client::over(config, socket)
}

#[test]
fn a_proxy_says_who_the_client_is_and_only_from_its_network() {
    let proxies =
        |network: &str| format!("proxies = {{ networks = [\"{network}\"], protocol = \"proxy-v2\" }}");
    let rule = "networks = { allow = [\"192.0.2.0/24\", \"2001:db8::/32\", \"127.0.0.1\"] }";
    let (lab, ports, node) = start(&proxies(HERE), rule);
    let config = source_config(&lab);
    let from = |address: &str| proxied(address.parse().unwrap());
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for (first, status) in [
        (from("192.0.2.7:40000"), 202),
        (from("198.51.100.7:40000"), 403),
        (from("[2001:db8::7]:40000"), 202),
        (from("[2001:db9::7]:40000"), 403),
        (from("[::ffff:192.0.2.7]:40000"), 202),
        (local, 202),
    ] {
        let mut client = connect_behind(&config, ports.listen, &first).unwrap();
        let forged = "X-Forwarded-For: 192.0.2.1\r\n";
        assert_eq!(client.ask(&github(GITHUB, BODY, forged)).status, status, "{first:?}");
    }
    for first in [
        b"".to_vec(),
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1 1\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
    ] {
        assert!(connect_behind(&config, ports.listen, &first).is_err(), "{first:?}");
    }
    wait_until("counted", || refused(&node, "proxy") == 3);
    assert_eq!(refused(&node, "tls"), 0);
    drop(node);

    let (lab, ports, node) = start(&proxies(ELSEWHERE), "");
    let error = connect_behind(&source_config(&lab), ports.listen, &from("192.0.2.7:40000")).err();
    assert!(error.is_some(), "whoever is no proxy sends garbage");
    wait_until("counted", || refused(&node, "tls") == 1);
    assert_eq!(ask(&lab, ports, &github(GITHUB, BODY, "")).status, 202);
}

#[test]
fn forwarded_addresses_count_from_the_right_and_only_behind_a_proxy() {
    let proxies = |network: &str, hops: u8| {
        let networks = format!("\"{network}\", \"10.0.0.0/8\"");
        format!("proxies = {{ networks = [{networks}], protocol = \"x-forwarded-for\", hops = {hops} }}")
    };
    let rule = "networks = { allow = [\"192.0.2.0/24\"] }";
    let (lab, ports, node) = start(&proxies(HERE, 2), rule);
    let mut malformed = 0;
    for (lines, status) in [
        ("X-Forwarded-For: 192.0.2.7\r\n", 202),
        ("X-Forwarded-For: 198.51.100.7, 192.0.2.7\r\n", 202),
        ("X-Forwarded-For: 192.0.2.7, 198.51.100.7\r\n", 403),
        ("X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\n", 202),
        ("X-Forwarded-For: 192.0.2.7, 10.0.0.3, 10.0.0.2\r\n", 400),
        ("X-Forwarded-For: 198.51.100.7\r\nx-forwarded-for: 192.0.2.7\r\n", 202),
        ("X-Forwarded-For: unknown\r\n", 400),
        ("", 400),
    ] {
        assert_eq!(ask(&lab, ports, &github(GITHUB, BODY, lines)).status, status, "{lines}");
        malformed += usize::from(status == 400);
    }
    assert_eq!(refused(&node, "proxy"), malformed);
    drop(node);
    let (lab, ports, _node) = start(&proxies(ELSEWHERE, 1), rule);
    let forged = github(GITHUB, BODY, "X-Forwarded-For: 192.0.2.7\r\n");
    assert_eq!(ask(&lab, ports, &forged).status, 403, "who is no proxy is not listened to");
}

#[test]
fn a_header_rule_speaks_after_the_signature_and_keeps_the_connection() {
    let rules = "headers = [{ name = \"X-GitHub-Event\", one_of = [\"push\", \"ping\"] }, \
                 { name = \"x-build\", regex = \"^[0-9]+$\", action = \"log\" }]";
    let (lab, ports, node) = start("", rules);
    let mut client = Client::connect(&lab, ports.listen);
    let fork = || change(&String::from_utf8(github(GITHUB, BODY, "X-Build: 1\r\n")).unwrap(), "push", "fork");
    assert_eq!(client.ask(&github(GITHUB, BODY, "X-Build: 1\r\n")).status, 202);
    let answer = client.ask(fork().as_bytes());
    assert_eq!((answer.status, answer.header("connection")), (403, Some("keep-alive")), "{answer:?}");
    for lines in ["", "X-Build: one\r\n"] {
        assert_eq!(client.ask(&github(GITHUB, BODY, lines)).status, 202, "a rule that logs refuses nothing");
    }
    let unsigned = change(&fork(), &signature(BODY), &format!("sha256={}", "0".repeat(64)));
    assert_eq!(client.ask(unsigned.as_bytes()).status, 401, "rules are told to nobody without the secret");
    assert_eq!((refused(&node, "header"), observed(&node, "header")), (1, 2));
    assert_eq!(refused(&node, "mismatch"), 1);
    node.wait_log("a header rule whose action is log");
}

#[test]
fn unverified_requests_take_nothing_of_the_quota_of_verified_ones() {
    let rates =
        "rates = { endpoint = { per_minute = 1, burst = 5 }, unverified = { per_minute = 1, burst = 1000 } }";
    let (lab, ports, node) = start("", rates);
    let bad = change(
        &github_head(GITHUB, BODY, "Content-Length: 2\r\n"),
        &signature(BODY),
        &format!("sha256={}", "0".repeat(64)),
    );
    for _ in 0..50 {
        assert_eq!(ask(&lab, ports, &[bad.as_bytes(), BODY].concat()).status, 401);
    }
    let mut client = Client::connect(&lab, ports.listen);
    for _ in 0..5 {
        assert_eq!(client.ask(&github(GITHUB, BODY, "")).status, 202);
    }
    let answer = client.ask(&github(GITHUB, BODY, ""));
    assert_eq!((answer.status, answer.header("connection")), (429, Some("keep-alive")), "{answer:?}");
    let wait_s: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait_s), "{wait_s}");
    assert_eq!((refused(&node, "endpoint_rate"), refused(&node, "mismatch")), (1, 50));
    let other = Client::connect(&lab, ports.listen).ask(&hmac());
    assert_eq!(other.status, 202, "another endpoint has its own");
}

fn hmac() -> Vec<u8> {
    let length = BODY.len();
    let head = format!(
        "POST /hooks/{HMAC} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Signature: {}\r\nContent-Length: {length}\r\n\r\n",
        signature(BODY)
    );
    [head.as_bytes(), BODY].concat()
}

#[test]
fn who_fails_too_often_is_refused_before_the_body_and_only_that_source() {
    let ingester = "proxies = { networks = [\"127.0.0.1\"], protocol = \"proxy-v2\" }";
    let rates =
        "rates = { unverified = { per_minute = 1, burst = 3 }, source = { per_minute = 1, burst = 2 } }";
    let (lab, ports, node) = start(ingester, rates);
    let config = source_config(&lab);
    let connect = |last: u8, third: u8| {
        let first = proxied((Ipv4Addr::new(192, 0, third, last), 4000).into());
        connect_behind(&config, ports.listen, &first).unwrap()
    };
    let unsigned = change(
        &github_head(GITHUB, BODY, "Content-Length: 2\r\n"),
        &format!("X-Hub-Signature-256: {}\r\n", signature(BODY)),
        "",
    );
    for last in 0..3 {
        assert_eq!(connect(last, 2).ask(unsigned.as_bytes()).status, 401);
    }
    // The head alone is refused; a body is not waited for.
    let answer = connect(9, 2).ask(github_head(GITHUB, BODY, "Content-Length: 2\r\n").as_bytes());
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(refused(&node, "unverified_rate"), 1);

    let mut neighbour = connect(1, 3);
    for status in [202, 202, 429] {
        assert_eq!(neighbour.ask(&github(GITHUB, BODY, "")).status, status);
    }
    assert_eq!(refused(&node, "source_rate"), 1);
    assert_eq!(connect(1, 4).ask(&github(GITHUB, BODY, "")).status, 202, "another network has its own");
    // A request that breaks off was not verified either.
    for _ in 0..3 {
        let mut client = connect(1, 5);
        client.send(github_head(GITHUB, BODY, "Content-Length: 2\r\n").as_bytes());
        // Closed by both: a reset could overtake the end of the handshake, and then no request began.
        client.tls.sock.shutdown(Shutdown::Write).unwrap();
        assert!(client.is_closed());
    }
    wait_until("the source is shut out", || {
        let status = connect(1, 5).ask(&github(GITHUB, BODY, "")).status;
        refused(&node, "unverified_rate") == 2 && status == 429
    });
    let v6 = proxied((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 4000).into());
    let mut client = connect_behind(&config, ports.listen, &v6).unwrap();
    assert_eq!(client.ask(&github(GITHUB, BODY, "")).status, 202);
}

#[test]
fn bearer_and_basic_stand_alone_or_beside_a_signature() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    lab.write_private("secrets/token", "a-token\n");
    lab.write_private("secrets/newer-token", "newer-token\n");
    lab.write_private("secrets/pair", "acme:pass word\n");
    let text = configured(
        &lab,
        ports,
        "",
        "authorization = { kind = \"bearer\", secret_files = [\"secrets/newer-token\", \"secrets/token\"] }",
    );
    let standard = "scheme = \"standard-webhooks\"\nsecret_files = [\"secrets/standard\"]";
    let basic = "scheme = \"none\"\nauthorization = { kind = \"basic\", secret_files = [\"secrets/pair\"] }";
    let node = lab.start("edge", ports, &change(&text, standard, basic));
    let basic = |pair: &str| {
        let pair = BASE64.encode(pair);
        format!("POST /hooks/{STANDARD} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {pair}\r\nContent-Length: 2\r\n\r\n{{}}")
            .into_bytes()
    };
    let unsigned = change(
        &String::from_utf8(github(GITHUB, BODY, "Authorization: Bearer a-token\r\n")).unwrap(),
        &format!("X-Hub-Signature-256: {}\r\n", signature(BODY)),
        "",
    );
    for (name, request, status) in [
        ("both", github(GITHUB, BODY, "Authorization: Bearer a-token\r\n"), 202),
        ("both, newer", github(GITHUB, BODY, "Authorization: bearer newer-token\r\n"), 202),
        ("signature alone", github(GITHUB, BODY, ""), 401),
        ("token alone", unsigned.into_bytes(), 401),
        ("another token", github(GITHUB, BODY, "Authorization: Bearer a-tokem\r\n"), 401),
        ("basic", basic("acme:pass word"), 202),
        ("another password", basic("acme:pass-word"), 401),
        ("no colon", basic("acme"), 401),
    ] {
        let answer = ask(&lab, ports, &request);
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("token") && !text.contains("acme"), "{name}: {text}");
    }
    for (reason, count) in [
        ("missing_authorization", 1),
        ("wrong_authorization", 2),
        ("malformed_authorization", 1),
        ("missing_signature", 1),
    ] {
        assert_eq!(refused(&node, reason), count, "{reason}");
    }
    assert!(!node.log().contains("a-token") && !node.log().contains("pass word"));
}

#[test]
fn a_source_shows_a_certificate_where_an_endpoint_wants_one() {
    let (lab, ports) = (Lab::new(), Ports::pick());
    lab.svid("billing", "source/billing");
    lab.svid("stranger", "source/stranger");
    let ids = "client_certificate = { spiffe_ids = [\"spiffe://lab.test/source/billing\"] }";
    let ids = ids.replace("lab.test", support::pki::TRUST_DOMAIN);
    let text = configured(&lab, ports, "client_ca_file = \"pki/bundle.pem\"", &ids);
    let standard = "scheme = \"standard-webhooks\"\nsecret_files = [\"secrets/standard\"]";
    let any = "scheme = \"none\"\nclient_certificate = { }";
    let node = lab.start("edge", ports, &change(&text, standard, any));
    let config = |name: &str| client_certificate_config(&lab, name);
    let plain = |endpoint: &str| {
        format!("POST /hooks/{endpoint} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    for (name, config, request, status) in [
        ("allowed", config("billing"), github(GITHUB, BODY, ""), 202),
        ("allowed, not signed", config("billing"), plain(GITHUB).into_bytes(), 401),
        ("another", config("stranger"), github(GITHUB, BODY, ""), 401),
        ("none", source_config(&lab), github(GITHUB, BODY, ""), 401),
        ("any", config("stranger"), plain(STANDARD).into_bytes(), 202),
        ("any, none", source_config(&lab), plain(STANDARD).into_bytes(), 401),
        ("not wanted", source_config(&lab), hmac(), 202),
    ] {
        let mut client = Client::connect_with(&config, ports.listen).unwrap();
        let answer = client.ask(&request);
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    let mut resumed = Client::connect_with(&config("billing"), ports.listen).unwrap();
    assert_eq!(resumed.ask(&github(GITHUB, BODY, "")).status, 202);
    assert_eq!(resumed.tls.conn.tls13_tickets_received(), 0, "a ticket would outlive the check");

    let public = lab.public_ca.svid("source/billing");
    lab.write("pki/foreign.pem", &public.certificate);
    lab.write_private("pki/foreign.key", &public.key);
    let told = Client::connect_with(&config("foreign"), ports.listen)
        .and_then(|mut client| client.try_send(&github(GITHUB, BODY, "")).and_then(|()| client.try_answer()));
    assert!(told.is_err(), "a certificate that is shown must be valid: {told:?}");
    wait_until("counted", || refused(&node, "tls") == 1);

    lab.svid_for_seconds("short", "source/billing", 5);
    let mut short = Client::connect_with(&config("short"), ports.listen).unwrap();
    assert_eq!(short.ask(&github(GITHUB, BODY, "")).status, 202);
    wait_until("the certificate's end", || short.ask(&github(GITHUB, BODY, "")).status == 401);
    for (reason, count) in [
        ("missing_certificate", 2),
        ("wrong_certificate", 1),
        ("expired_certificate", 1),
        ("missing_signature", 1),
    ] {
        assert_eq!(refused(&node, reason), count, "{reason}");
    }
}
