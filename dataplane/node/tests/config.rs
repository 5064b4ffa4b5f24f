//! Configuration as a person meets it: what a fault says, what is printed, what is good.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::node::run;
use support::{GITHUB, HMAC, Lab, Ports, SECRET, WHSEC, change, endpoint, free_address};

mod support;

/// What is wrong, one replacement that makes it so, and what standard error must say besides the file.
type Fault = (&'static str, (String, String), &'static [&'static str]);

fn fault(name: &'static str, from: &str, to: &str, says: &'static [&'static str]) -> Fault {
    (name, (from.to_owned(), to.to_owned()), says)
}

/// Exit code and standard error of a check of `text`.
fn check(lab: &Lab, text: &str) -> (i32, String) {
    let file = lab.write("node.toml", text);
    let output = run(&["--config", file.to_str().unwrap(), "--check-config"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.is_empty() || said.contains(file.to_str().unwrap()), "names the file: {said}");
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

fn refuse_each(lab: &Lab, good: &str, faults: Vec<Fault>) {
    assert_eq!(check(lab, good), (0, String::new()));
    let mut wrong = Vec::new();
    for (name, (from, to), says) in faults {
        let (code, said) = check(lab, &change(good, &from, &to));
        if code != 1 || says.iter().any(|part| !said.contains(part)) {
            wrong.push(format!("{name}: exit code {code}, {says:?} in: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn shape_faults() -> Vec<Fault> {
    vec![
        fault("unknown key", "[node]\n", "[node]\ncolour = 1\n", &["colour", "docs/configuration.md"]),
        fault("unknown section", "[journal]\n", "[diary]\n[journal]\n", &["diary", "docs/configuration.md"]),
        fault("wrong type", "workers = 1", "workers = \"two\"", &["workers", "docs/configuration.md"]),
        fault("negative", "workers = 1", "workers = -1", &["workers", "docs/configuration.md"]),
        fault("missing key", "name = \"edge\"\n", "", &["name", "docs/configuration.md"]),
        fault("not TOML", "[node]\n", "[node\n", &["docs/configuration.md"]),
        fault(
            "a key twice",
            "workers = 1",
            "workers = 1\nworkers = 1",
            &["workers", "docs/configuration.md"],
        ),
        fault(
            "scheme",
            "\"github\"",
            "\"gitlab\"",
            &["gitlab", "standard-webhooks", "docs/configuration.md"],
        ),
        fault("direction", "egress-dials", "both", &["both", "egress-dials", "ingester-dials"]),
    ]
}

fn node_faults() -> Vec<Fault> {
    vec![
        fault("name", "name = \"edge\"", "name = \"a b\"", &["node.name", "A-Z a-z 0-9"]),
        fault("workers", "workers = 1", "workers = 65", &["node.workers", "give 0 to 64"]),
        fault(
            "drain",
            "drain_timeout_ms = 5000",
            "drain_timeout_ms = 1",
            &["node.drain_timeout_ms", "give 100"],
        ),
        fault("poll", "reload_poll_ms = 100", "reload_poll_ms = 1", &["node.reload_poll_ms", "give 100"]),
        fault("log", "log = \"info\"", "log = \"=,=\"", &["node.log", "info"]),
        fault(
            "admin everywhere",
            "[admin]\nlisten = \"127.0.0.1",
            "[admin]\nlisten = \"0.0.0.0",
            &["admin.listen", "127.0.0.1"],
        ),
        fault(
            "admin without port",
            "[admin]\nlisten = \"127.0.0.1:",
            "[admin]\nlisten = \"",
            &["admin.listen"],
        ),
        fault(
            "segment not in pages",
            "segment_bytes = 4194304",
            "segment_bytes = 4194305",
            &["journal.segment_bytes", "round it up"],
        ),
        fault("small journal", "bytes_max = 33554432", "bytes_max = 4194304", &["journal.bytes_max", "give"]),
        fault(
            "trust domain",
            "trust_domain = \"",
            "trust_domain = \"spiffe://",
            &["identity.trust_domain", "without spiffe://"],
        ),
        fault("no certificate", "pki/edge.pem", "pki/nothing.pem", &["identity", "nothing.pem"]),
        fault("another's key", "pki/edge.key", "pki/inside.key", &["identity", "inside.key"]),
        fault("wrong bundle", "pki/bundle.pem", "pki/public_ca.pem", &["identity", "edge.pem"]),
        fault("no public key", "pki/public.key", "pki/no.key", &["ingester.certificate_file", "no.key"]),
        fault(
            "open key",
            "pki/public.key",
            "pki/open.key",
            &["ingester.certificate_file", "open.key", "600"],
        ),
    ]
}

fn ingester_faults() -> Vec<Fault> {
    let ids = "[\"spiffe://test.zen-mesh.example/egress/inside\"]";
    vec![
        fault(
            "not listening",
            "[ingester]\nlisten = [",
            "[ingester]\nlisten = [] #",
            &["ingester.listen", "at least one"],
        ),
        fault(
            "listening on a name",
            "[ingester]\nlisten = [\"127.0.0.1",
            "[ingester]\nlisten = [\"localhost",
            &["ingester.listen", "an address and a port"],
        ),
        fault(
            "timeout",
            "request_timeout_ms = 1000",
            "request_timeout_ms = 10",
            &["ingester.request_timeout_ms"],
        ),
        fault("idle", "idle_timeout_ms = 5000", "idle_timeout_ms = 0", &["ingester.idle_timeout_ms"]),
        fault("nobody allowed", ids, "[]", &["ingester.egresses[0].spiffe_ids", "nobody"]),
        fault(
            "not an id",
            ids,
            "[\"https://a/b\"]",
            &["ingester.egresses[0].spiffe_ids", "spiffe://domain/path"],
        ),
        fault("half a wildcard", ids, "[\"spiffe://a/b*\"]", &["ingester.egresses[0].spiffe_ids", "/*"]),
        fault(
            "where to dial",
            "egress-dials",
            "ingester-dials",
            &["ingester.egresses[0].address", "say where"],
        ),
        fault(
            "both dial",
            "key_id = \"link-1\"",
            "key_id = \"link-1\"\naddress = \"a:1\"",
            &["ingester.egresses[0].address", "remove it"],
        ),
        fault("nobody listens", "link_listen = ", "# ", &["ingester.egresses[0]", "set link_listen"]),
        fault("key id", "key_id = \"link-1\"", "key_id = \"\"", &["ingester.egresses[0].key_id"]),
    ]
}

fn endpoint_faults() -> Vec<Fault> {
    vec![
        fault(
            "key not whsec",
            "secrets/link",
            "secrets/source",
            &["ingester.egresses[0].key_file", "whsec_"],
        ),
        fault(
            "no secret file",
            "secrets/standard",
            "secrets/no",
            &["ingester.endpoints[1].secret_files", "0600"],
        ),
        fault(
            "open secret",
            "secrets/standard",
            "secrets/open",
            &["endpoints[1].secret_files", "chmod 0600"],
        ),
        fault(
            "empty secret",
            "secrets/standard",
            "secrets/empty",
            &["endpoints[1].secret_files", "is empty"],
        ),
        fault("long secret", "secrets/standard", "secrets/long", &["endpoints[1].secret_files", "over 4096"]),
        fault("binary secret", "secrets/standard", "secrets/binary", &["endpoints[1].secret_files", "text"]),
        fault("no secrets", "[\"secrets/standard\"]", "[]", &["ingester.endpoints[1].secret_files"]),
        fault(
            "hmac is missing",
            "[ingester.endpoints.hmac]\nheader = \"x-signature\"\nprefix = \"sha256=\"",
            "",
            &["ingester.endpoints[2].hmac", "is missing"],
        ),
        fault("hmac of another", "\"hmac\"", "\"github\"", &["ingester.endpoints[2]", "hmac"]),
        fault("no header name", "\"x-github-event\"", "\"x github\"", &["endpoints[0].forward_headers"]),
        fault(
            "body bound",
            "body_bytes_max = 65536",
            "body_bytes_max = 1048577",
            &["endpoints[2].body_bytes_max"],
        ),
    ]
}

#[test]
fn each_fault_of_an_ingester_names_file_key_and_remedy() {
    let lab = Lab::new();
    for name in ["secrets/open", "pki/open.key"] {
        lab.write(name, &fs::read_to_string(lab.path("pki/public.key")).unwrap());
    }
    lab.write_private("secrets/empty", " \n");
    lab.write_private("secrets/long", &"a".repeat(4097));
    fs::write(lab.path("secrets/binary"), [0xff; 32]).unwrap();
    fs::set_permissions(lab.path("secrets/binary"), fs::Permissions::from_mode(0o600)).unwrap();
    let good = lab.ingester_text(Ports::pick());
    refuse_each(&lab, &good, [shape_faults(), node_faults(), ingester_faults(), endpoint_faults()].concat());
}

#[test]
fn what_must_be_unique_and_what_must_exist_is_checked() {
    let lab = Lab::new();
    let good = lab.ingester_text(Ports::pick());
    let more = |section: &str| check(&lab, &format!("{good}{section}"));
    let said = more(&endpoint(GITHUB, "github", "source", "")).1;
    assert!(said.contains("ingester.endpoints[3].id") && said.contains("is there twice"), "{said}");
    let said = more(&endpoint("xyz", "github", "source", "")).1;
    assert!(said.contains("ingester.endpoints[3].id") && said.contains("openssl rand -hex 16"), "{said}");
    let flow = |endpoint: &str, egress: &str, targets: &str| {
        format!("[[ingester.flows]]\nendpoint = \"{endpoint}\"\negress = \"{egress}\"\ntargets = {targets}\n")
    };
    let names = |first: u32, count: u32| {
        format!("{:?}", (first..first + count).map(|name| format!("t{name}")).collect::<Vec<_>>())
    };
    for (section, says) in [
        (flow(GITHUB, "outside", "[\"demo\"]"), "no egress \"outside\""),
        (flow(&GITHUB.replace('0', "f"), "inside", "[\"demo\"]"), "no endpoint"),
        (flow(GITHUB, "inside", "[\"de mo\"]"), "ingester.flows[3].targets"),
    ] {
        let (code, said) = more(&section);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("ingester.flows[3]") && said.contains(says), "{says} in: {said}");
    }
    let long_names = |first: u32| {
        format!("{:?}", (first..first + 10).map(|name| format!("{name:060}")).collect::<Vec<_>>())
    };
    let four = (0..4).map(|index| flow(GITHUB, "inside", &names(index * 10, 10))).collect::<String>();
    let long = (0..2).map(|index| flow(GITHUB, "inside", &long_names(index * 10)));
    for (section, says) in [
        (flow(GITHUB, "inside", "[]"), "flow \"flow-4\".targets: is 0"),
        (flow(GITHUB, "inside", &names(0, 11)), "flow \"flow-4\".targets: is 11; it must be 1 to 10"),
        (flow(GITHUB, "inside", "[\"a\", \"a\"]"), "flow \"flow-4\".targets[1]: is there twice"),
        (flow(GITHUB, "inside", "[\"demo\"]\nname = \"flow-1\""), "flow \"flow-1\".name: is there twice"),
        (
            flow(GITHUB, "inside", "[\"demo\"]\nwhen = { jsonpath = \"$.a\", regex = \"(\" }"),
            "flow \"flow-4\".when.regex: regex does not compile",
        ),
        (four, "its flows lead to 41 targets of \"inside\""),
        (long.collect(), "bytes of names; one event may go to 32 and 990 bytes"),
    ] {
        let (code, said) = more(&section);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("ingester.endpoints[0]") && said.contains(says), "{says} in: {said}");
    }
    let orphan = change(&good, &format!("endpoint = \"{HMAC}\""), &format!("endpoint = \"{GITHUB}\""));
    let said = check(&lab, &orphan).1;
    assert!(said.contains("ingester.endpoints[2]") && said.contains("[[ingester.flows]]"), "{said}");
    let said = check(&lab, &lab.node_text("edge", Ports::pick())).1;
    assert!(said.contains("add [ingester], [egress] or both"), "{said}");
}

#[test]
fn each_fault_of_a_targets_limits_names_file_key_and_remedy() {
    let lab = Lab::new();
    let target = lab.target_text("demo", free_address(), "retry_jitter_percent = 7");
    let good = lab.egress_text(Ports::pick(), free_address(), &target);
    let table: [(&'static str, &str, &'static [&'static str]); 25] = [
        ("breaker.pause_ms", "breaker.pause_ms = 0", &["give 1 to"]),
        ("breaker.pause_ms_max", "breaker.pause_ms_max = 4999", &["give 5000 to"]),
        ("breaker.failures_max", "breaker.failures_max = 0", &["give 1 to"]),
        ("breaker.window", "breaker.window = 65", &["give 1 to 64"]),
        ("breaker.failure_percent", "breaker.failure_percent = 101", &["give 1 to 100"]),
        ("breaker.failure_percent", "breaker.failure_percent = 0", &["give 1 to 100"]),
        ("throttle.pause_ms", "throttle.pause_ms = 0", &["give 1 to"]),
        ("throttle.pause_ms_max", "throttle.pause_ms_max = 9", &["give 1000 to"]),
        ("throttle.uncounted_max", "throttle.uncounted_max = 1001", &["give 0 to 1000"]),
        ("rate.per_second", "rate.per_second = 0", &["give 1 to 1000000"]),
        ("rate.per_second", "rate.per_second = 1000001", &["give 1 to 1000000"]),
        ("rate.burst", "rate = { per_second = 5000, burst = 4 }", &["give 5 to"]),
        ("retry.first_ms", "retry = { first_ms = 0, max_ms = 9, attempts_max = 3 }", &["give 1 to"]),
        (
            "retry.factor",
            "retry = { first_ms = 1, factor = 0.5, max_ms = 9, attempts_max = 3 }",
            &["give 1 to 10"],
        ),
        ("retry.max_ms", "retry = { first_ms = 5, max_ms = 4, attempts_max = 3 }", &["give 5 to"]),
        (
            "retry.attempts_max",
            "retry = { first_ms = 1, max_ms = 9, attempts_max = 101 }",
            &["give 1 to 100"],
        ),
        (
            "has both",
            "retry_schedule_ms = [5]\nretry = { first_ms = 1, max_ms = 9, attempts_max = 3 }",
            &["keep one"],
        ),
        ("deadline_ms", "deadline_ms = 999", &["give 1000 to"]),
        ("answer_ms_max", "answer_ms_max = 30001", &["give 1 to 30000"]),
        ("permanent_statuses", "permanent_statuses = [200]", &["300 to 599", "\"200\""]),
        ("permanent_statuses", "permanent_statuses = [410]", &["not 410"]),
        ("permanent_statuses", "permanent_statuses = [\"2xx\"]", &["3xx, 4xx, 5xx"]),
        ("nothing", "breaker.colour = 1", &["colour", "docs/configuration.md"]),
        ("order_by.header", "order_by = { header = \"a b\" }", &["no header's name"]),
        ("order_by.json_path", "order_by = { json_path = \"a..b\" }", &["such as data.id"]),
    ];
    let faults = table.map(|(key, text, says)| fault(key, "retry_jitter_percent = 7", text, says));
    for (key, (_, text), _) in faults.iter().filter(|fault| fault.0.contains('_')) {
        let said = check(&lab, &change(&good, "retry_jitter_percent = 7", text)).1;
        assert!(said.contains(&format!("egress.targets[0].{key}")), "{key} in {said}");
    }
    refuse_each(&lab, &good, faults.to_vec());
}

#[test]
fn a_schedule_may_be_computed_and_limits_may_be_turned_off() {
    let lab = Lab::new();
    for text in [
        "retry = { first_ms = 100, factor = 1, max_ms = 86400000, attempts_max = 100 }",
        "retry = { first_ms = 100, factor = 1.5, max_ms = 60000, attempts_max = 1 }",
        "breaker = { enabled = false }",
        "breaker = { failure_percent = 50, window = 64 }",
        "permanent_statuses = []",
        "permanent_statuses = [404, \"3xx\"]",
        "rate = { per_second = 1000000 }",
        "rate = { per_second = 1, burst = 1 }\nanswer_ms_max = 1\ndeadline_ms = 1000",
    ] {
        let target = lab.target_text("demo", free_address(), text);
        let good = lab.egress_text(Ports::pick(), free_address(), &target);
        assert_eq!(check(&lab, &good), (0, String::new()), "{text}");
    }
}

#[test]
fn each_fault_of_an_egress_names_file_key_and_remedy() {
    let lab = Lab::new();
    let target = lab.target_text("demo", free_address(), "in_flight_max = 4\nretry_jitter_percent = 20");
    let good = lab.egress_text(Ports::pick(), free_address(), &target);
    let faults = vec![
        fault("no TLS", "https://", "http://", &["egress.targets[0].url", "https://host"]),
        fault("fragment", "/hooks/demo", "/hooks/demo#x", &["egress.targets[0].url", "#fragment"]),
        fault("user", "https://", "https://me@", &["egress.targets[0].url", "user@"]),
        fault("space", "/hooks/demo", "/hooks/a b", &["egress.targets[0].url", "escape it"]),
        fault("no host", "https://127.0.0.1", "https://", &["egress.targets[0].url"]),
        fault(
            "cap",
            "in_flight_max = 4",
            "in_flight_max = 0",
            &["egress.targets[0].in_flight_max", "give 1"],
        ),
        fault("jitter", "_percent = 20", "_percent = 101", &["egress.targets[0].retry_jitter_percent"]),
        fault(
            "two ways",
            "in_flight_max = 4",
            "ca_file = \"pki/bundle.pem\"",
            &["egress.targets[0]", "keep one"],
        ),
        fault("secret", "secrets/target", "secrets/source", &["egress.targets[0].secret_file", "whsec_"]),
        fault(
            "previous",
            "in_flight_max = 4",
            "previous_secret_file = \"no\"",
            &["targets[0].previous_secret_file"],
        ),
        fault("ingester id", "/ingester/edge\"", "/ingester//edge\"", &["egress.ingesters[0].spiffe_ids"]),
        fault(
            "address",
            "address = \"127.0.0.1:",
            "address = \"",
            &["egress.ingesters[0].address", "host:port"],
        ),
        fault("no keys", "keys = [", "keys = [] # [", &["egress.ingesters[0].keys", "give 1 to 4"]),
        fault("key", "secrets/link", "secrets/no", &["egress.ingesters[0].keys[0].file", "0600"]),
    ];
    refuse_each(&lab, &good, faults);
    for section in [target.clone(), good[good.find("[[egress.ingesters]]").unwrap()..].to_owned()] {
        let (code, said) = check(&lab, &format!("{good}{section}"));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("[1].name") && said.contains("is there twice"), "{said}");
    }
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let lab = Lab::new();
    let mut text = lab.ingester_text(Ports::pick());
    for (from, to) in [
        ("name = \"edge\"", "name = \"\""),
        ("bytes_max = 33554432", "bytes_max = 1"),
        ("request_timeout_ms = 1000", "request_timeout_ms = 1"),
        ("secrets/standard", "secrets/no"),
        ("\"x-github-event\"", "\"\""),
    ] {
        text = change(&text, from, to);
    }
    let (code, said) = check(&lab, &text);
    assert_eq!(code, 1);
    for key in [
        "node.name",
        "journal.bytes_max",
        "ingester.request_timeout_ms",
        "ingester.endpoints[1].secret_files",
        "ingester.endpoints[0].forward_headers",
    ] {
        assert!(said.contains(key), "{key} in: {said}");
    }
    let certificates = change(&change(&text, "pki/edge.pem", "no.pem"), "pki/public.pem", "none.pem");
    let said = check(&lab, &certificates).1;
    assert!(said.contains("no.pem") && said.contains("none.pem"), "{said}");
}

#[test]
fn the_effective_configuration_has_defaults_and_no_secret() {
    let lab = Lab::new();
    let target = lab.target_text("demo", free_address(), "");
    let egress = lab.egress_text(Ports::pick(), free_address(), &target);
    for text in [lab.ingester_text(Ports::pick()), egress] {
        let file = lab.write("node.toml", &text);
        let output = run(&["--config", file.to_str().unwrap(), "--print-config"]);
        assert!(output.status.success());
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(
            printed.contains("commit_bytes_max = 2097152") && printed.contains("secrets/link"),
            "{printed}"
        );
        assert!(!printed.contains(SECRET) && !printed.contains(&WHSEC[6..]), "{printed}");
        assert_eq!(check(&lab, &printed), (0, String::new()), "what is printed can be read");
    }
}

#[test]
fn the_command_line_explains_itself() {
    let help = run(&["--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for part in ["--config", "--check-config", "--print-config", "docs/configuration.md"] {
        assert!(text.contains(part), "{part} in: {text}");
    }
    assert!(run(&["--version"]).status.success());
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["--config", "a", "--colour"]).status.code(), Some(2));
    let missing = run(&["--config", "/nowhere/node.toml", "--check-config"]);
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("/nowhere/node.toml") && said.contains("check the path"), "{said}");
}
