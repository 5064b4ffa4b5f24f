//! What becomes of a tenant's objects is what the real node takes: with everything in it that objects can say.
//!
//! Secrets and keys are files here in place of lockd's: what lockd does with names is shown by the agent's tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use zen_control::ConfigurationInput;
use zen_control::compile::compile;
use zen_control::objects::{Object, TenantObjects};
use zen_control_api::with_link_keys;
use zen_svid_faults::Domain;

const DOMAIN: &str = "acme.example";
const HOOKS: [&str; 4] = [
    "00112233445566778899aabbccddeeff",
    "11112233445566778899aabbccddeeff",
    "22112233445566778899aabbccddeeff",
    "33112233445566778899aabbccddeeff",
];
const SIGNING: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n";

/// The node, built beside our own program.
fn node_program() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_zen-control")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // All of the workspace, so that no dependency gets other features.
    cargo.args(["test", "--locked", "--workspace", "--no-run", "--test", "architecture", "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "zen-dataplane cannot be built:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    profile.join("zen-dataplane")
}

fn member(cluster: &str, role: &str, further: Value) -> Value {
    let place = format!("/var/lib/zen/{cluster}");
    let mut settings = json!({
        "node": {"data_dir": place, "workers": 1, "log": "warn", "hash_key_file": "lockd:all/node/hash-key"},
        "admin": {"socket": format!("{place}/admin.sock"), "listen": "127.0.0.1:9100"},
        "lockd": {"socket": "/run/zen-lockd/lockd.sock"},
        "journal": {"segment_bytes": 4 << 20, "bytes_max": 64 << 20},
        "tracing": {"sample_percent": 0.5},
        "ebpf": {"guard": {"mode": "observe", "syn_per_second": 100}},
        "identity": {"deny_list_age_ms_max": 600_000},
    });
    settings.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    json!({"cluster": cluster, "roles": [role], "settings": settings})
}

fn members(public: &Path) -> Value {
    let ingester = |port: u16| {
        json!({"ingester": {
            "listen": [format!("0.0.0.0:{port}")], "certificate_file": public, "private_key_file": "lockd:all/public/tls.key",
            "client_ca_file": public, "networks": {"provider": {"cidrs": ["192.0.2.0/24"], "mode": "observe"}},
            "proxies": {"networks": ["10.0.0.0/8"], "protocol": "x-forwarded-for", "hops": 2},
            "idempotency": {"keys_max": 5000},
        }})
    };
    let egress = json!({"egress": {"target_networks": ["192.0.2.0/24"], "retention": {"bytes_max": 0}}});
    let mut edge = member("edge", "ingester", ingester(8443));
    edge["link"] = json!({"listen": "0.0.0.0:7443", "address": "edge.example:7443"});
    let mut branch = member("branch", "egress", egress.clone());
    branch["link"] = json!({"listen": "0.0.0.0:7444", "address": "branch.example:7444"});
    json!({
        "edge-1": edge, "edge-2": member("edge", "ingester", ingester(8444)),
        "inside-1": member("inside", "egress", egress), "branch-1": branch,
    })
}

fn endpoints() -> Value {
    let secrets = json!(["all/webhooks/one", "all/webhooks/two"]);
    json!({
        HOOKS[0]: {"cluster": "edge", "members": ["edge-1"], "scheme": "github", "secrets": secrets, "settings": {
            "forward_headers": ["x-github-event"], "content_types": ["application/json"], "body_bytes_max": 65536,
            "networks": {"allow": ["provider"]}, "match": "first",
            "headers": [{"name": "x-github-event", "one_of": ["push", "ping"], "action": "log"}],
            "rates": {"endpoint": {"per_minute": 600, "burst": 100}, "unverified": {"per_minute": 60, "burst": 20}},
            "idempotency": {"key": "json", "json_path": "data.id"}}},
        HOOKS[1]: {"cluster": "edge", "scheme": "standard-webhooks", "secrets": secrets, "members": ["edge-1"]},
        HOOKS[2]: {"cluster": "edge", "scheme": "hmac", "secrets": secrets, "settings": {
            "hmac": {"algorithm": "sha512", "header": "x-signature", "encoding": "base64"}}, "members": ["edge-1"]},
        HOOKS[3]: {"cluster": "edge", "scheme": "none", "members": ["edge-2"], "settings": {
            "authorization": {"kind": "bearer", "secret_files": ["lockd:all/webhooks/token"]},
            "client_certificate": {"spiffe_ids": ["spiffe://acme.example/*"]}}},
    })
}

fn destinations() -> Value {
    let own = |cluster: &str, url: &str, settings: Value| {
        json!({"cluster": cluster, "url": url, "key_id": "key-1", "secret": "all/targets/one",
            "previous_secret": "all/targets/two", "settings": settings})
    };
    let mut billing = own(
        "inside",
        "https://billing.example:8443/hooks",
        json!({
        "in_flight_max": 8, "retry_schedule_ms": [100], "permanent_statuses": [413, "3xx"],
        "breaker": {"failure_percent": 50}, "throttle": {"pause_ms": 500}, "rate": {"per_second": 10},
        "order_by": {"json_path": "data.id"}}),
    );
    billing["spiffe_ids"] = json!(["spiffe://acme.example/inside/*"]);
    json!({
        "billing": billing,
        "audit": own("inside", "https://audit.example/", json!({
            "format": "cloudevents-structured", "batch": {"events_max": 4}, "deadline_ms": 60000,
            "authorization": {"kind": "oauth2", "token_url": "https://tokens.example/token", "client_id": "zen",
                "client_secret_file": "lockd:all/targets/client"}})),
        "local": own("inside", "http://localhost/hooks", json!({"unix_socket": "/run/target.sock", "peer_uid": 0})),
        "far": own("branch", "https://far.example/", json!({"retry": {"first_ms": 100, "max_ms": 1000, "attempts_max": 3}})),
    })
}

fn flows() -> Value {
    json!({
        "pushes": {"endpoint": HOOKS[0], "destinations": ["billing", "local"], "settings": {"priority": 1, "on_error": "open"},
            "when": {"any": [{"header": "x-github-event", "exact": "push"}, {"not": {"jsonpath": "$.a[*].b", "regex": "^\"x'\\d+$"}}]},
            "outputs": [{"name": "either", "primary": "billing", "standby": ["local"], "settings": {
                "failover": {"switch_after_ms": 10000},
                "transform": {"fields": [{"direct": "data.id", "to": "id"}, {"static": "a\n\"b\"", "to": "x"}]}}}]},
        "rest": {"endpoint": HOOKS[0], "destinations": ["audit"]},
        "all": {"endpoint": HOOKS[1], "destinations": ["audit"]},
        "off": {"endpoint": HOOKS[2], "destinations": ["billing"], "settings": {"enabled": false}},
        "far": {"endpoint": HOOKS[3], "destinations": ["far"]},
    })
}

fn read<T: Object>(objects: Value) -> BTreeMap<String, T> {
    let all: BTreeMap<String, T> = serde_json::from_value(objects).unwrap();
    for (name, object) in &all {
        object.check(name).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    all
}

fn tenant(public: &Path) -> TenantObjects {
    let places =
        ["webhooks/one", "webhooks/two", "webhooks/token", "targets/one", "targets/two", "targets/client"];
    let credentials = places.into_iter().chain(["public/tls.key", "node/hash-key"]).map(|place| {
        let object = json!({"clusters": ["edge", "inside", "branch"], "place": format!("all/{place}"),
            "ciphertext": "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA="});
        (place.replace('/', "-"), object)
    });
    let policies = json!({
        "ours": {"scope": "links", "allow": ["spiffe://acme.example/*"], "deny": ["spiffe://acme.example/edge/old"]},
        "tried": {"scope": "links", "deny": ["spiffe://acme.example/edge/*"], "dry_run": true},
        "walls": {"scope": "destinations", "allow": ["spiffe://acme.example/inside/wall"], "dry_run": true},
    });
    TenantObjects {
        tenant: "acme".to_owned(),
        clusters: read(json!({"edge": {}, "inside": {}, "branch": {}})),
        members: read(members(public)),
        endpoints: read(endpoints()),
        destinations: read(destinations()),
        delivery_flows: read(flows()),
        policies: read(policies),
        credentials: read(credentials.collect()),
    }
}

/// Every place of a secret becomes a file with something that is good there.
fn with_files(value: &mut toml::Value, directory: &Path, key: &str) {
    match value {
        toml::Value::String(text) => {
            let Some(place) = text.strip_prefix("lockd:") else { return };
            let secret = match place {
                "all/public/tls.key" => key,
                "all/node/hash-key" => "00112233445566778899aabbccddeeff",
                _ => SIGNING,
            };
            let file = directory.join(place.replace('/', "-"));
            fs::write(&file, secret).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            *text = file.display().to_string();
        }
        toml::Value::Array(items) => items.iter_mut().for_each(|item| with_files(item, directory, key)),
        toml::Value::Table(table) => {
            table.iter_mut().for_each(|(_, value)| with_files(value, directory, key));
        }
        _ => {}
    }
}

/// A place where members are published as agents do it.
struct Site {
    program: PathBuf,
    directory: TempDir,
    domain: Domain,
    /// Of the certificate that sources see.
    public_key: String,
}

impl Site {
    fn new() -> Self {
        let (directory, domain) = (tempfile::tempdir().unwrap(), Domain::new(DOMAIN));
        let public = domain.good("edge/edge-1");
        fs::write(directory.path().join("public.pem"), public.chain).unwrap();
        Self { program: node_program(), directory, domain, public_key: public.key }
    }

    /// Asks the node.
    fn check(&self, cluster: &str, name: &str, text: &str) {
        let directory = self.directory.path();
        let generation = directory.join(name).join("gen-1");
        fs::create_dir_all(&generation).unwrap();
        symlink("gen-1", directory.join(name).join("current")).unwrap();
        let own = self.domain.good(&format!("{cluster}/{name}"));
        for (file, text) in [
            ("own.key", own.key.as_str()),
            ("identity.pem", &own.chain),
            ("bundle.pem", &self.domain.bundle()),
            ("deny.json", "{\"version\": 1, \"entries\": []}"),
        ] {
            fs::write(generation.join(file), text).unwrap();
            fs::set_permissions(generation.join(file), Permissions::from_mode(0o600)).unwrap();
        }
        let (filled, _) = with_link_keys(text, |_, _| vec![1]).unwrap();
        let table: toml::Table = filled.replace("{{private_key}}", "own.key").parse().unwrap();
        let mut table = toml::Value::Table(table);
        with_files(&mut table, directory, &self.public_key);
        table.as_table_mut().unwrap().remove("lockd").unwrap();
        fs::write(generation.join("node.toml"), toml::to_string(&table).unwrap()).unwrap();
        let mut node = Command::new(&self.program);
        let output = node.arg("--managed").arg(directory.join(name)).arg("--check-config").output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{name}: {said:?}\n{text}");
    }
}

#[test]
fn the_node_takes_what_is_compiled() {
    let site = Site::new();
    let objects = tenant(&site.directory.path().join("public.pem"));
    let mut checked = 0;
    for cluster in objects.clusters.keys() {
        let ConfigurationInput { members, .. } = compile(&objects, cluster, DOMAIN).unwrap();
        for (name, member) in &members {
            site.check(cluster, name, &member.node);
            checked += 1;
        }
    }
    assert_eq!(checked, objects.members.len());
}
