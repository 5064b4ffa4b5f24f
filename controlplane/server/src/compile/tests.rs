use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::objects::*;

const HOOK: &str = "00112233445566778899aabbccddeeff";
const DOMAIN: &str = "acme.example";
const SEALED: &str = "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSA=";

/// Two clusters, a flow from one to the other.
fn tenant() -> Value {
    let member = |cluster: &str, role: &str| {
        let place = format!("/var/lib/{cluster}");
        json!({"cluster": cluster, "roles": [role], "settings": {
            "node": {"data_dir": place}, "admin": {"socket": format!("{place}/admin.sock")},
            "lockd": {"socket": "/run/zen-lockd/lockd.sock"}}})
    };
    let mut edge = member("edge", "ingester");
    edge["link"] = json!({"listen": "0.0.0.0:7443", "address": "edge.example:7443"});
    edge["settings"]["ingester"] = json!({"listen": ["0.0.0.0:8443"], "certificate_file": "/etc/zen/public.pem",
        "private_key_file": "lockd:edge/public/tls.key"});
    let secret =
        |cluster: &str, place: &str| json!({"clusters": [cluster], "place": place, "ciphertext": SEALED});
    json!({
        "clusters": {"edge": {}, "inside": {}},
        "members": {"edge-1": edge, "inside-1": member("inside", "egress"), "wall": {"cluster": "inside", "roles": []}},
        "endpoints": {HOOK: {"cluster": "edge", "scheme": "github", "secrets": ["edge/webhooks/github"]}},
        "destinations": {
            "billing": {"cluster": "inside", "url": "https://billing.example/hooks", "key_id": "billing-1",
                "secret": "inside/targets/billing", "spiffe_ids": ["spiffe://acme.example/inside/wall"]},
            "audit": {"cluster": "inside", "url": "https://audit.example/", "key_id": "audit-1",
                "secret": "inside/targets/billing", "settings": {"in_flight_max": 4}},
        },
        "delivery-flows": {"all": {"endpoint": HOOK, "destinations": ["billing"],
            "outputs": [{"name": "either", "primary": "billing", "standby": ["audit"]}],
            "when": {"header": "x-github-event", "exact": "push"}, "settings": {"priority": 7}}},
        "policies": {},
        "credentials": {
            "github": secret("edge", "edge/webhooks/github"), "public": secret("edge", "edge/public/tls.key"),
            "billing": secret("inside", "inside/targets/billing"), "unused": secret("edge", "edge/webhooks/unused"),
        },
    })
}

fn read<T: Object>(objects: &Value) -> BTreeMap<String, T> {
    let all: BTreeMap<String, T> = serde_json::from_value(objects[T::KIND].clone()).unwrap();
    for (name, object) in &all {
        object.check(name).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
    all
}

fn objects(all: &Value) -> TenantObjects {
    TenantObjects {
        tenant: "acme".to_owned(),
        clusters: read(all),
        members: read(all),
        endpoints: read(all),
        destinations: read(all),
        delivery_flows: read(all),
        policies: read(all),
        credentials: read(all),
    }
}

fn compiled(all: &Value, cluster: &str) -> Result<ConfigurationInput, Vec<CompileFault>> {
    compile(&objects(all), cluster, DOMAIN)
}

fn node(input: &ConfigurationInput, name: &str) -> toml::Table {
    input.members[name].node.parse().unwrap()
}

#[test]
fn an_ingester_gets_its_endpoints_flows_and_links() {
    let input = compiled(&tenant(), "edge").unwrap();
    assert_eq!(input.members.keys().collect::<Vec<_>>(), ["edge-1"]);
    assert_eq!(input.members["edge-1"].spiffe_id, "spiffe://acme.example/edge/edge-1");
    let (link, ends) = input.link_keys.iter().next().unwrap();
    assert_eq!((ends.sender.as_str(), ends.receiver.as_str()), ("edge", "inside"));
    let expected = json!({
        "node": {"name": "edge-1", "data_dir": "/var/lib/edge"},
        "admin": {"socket": "/var/lib/edge/admin.sock"},
        "lockd": {"socket": "/run/zen-lockd/lockd.sock"},
        "identity": {"certificate_file": "identity.pem", "private_key_file": "{{private_key}}",
            "trust_bundle_file": "bundle.pem", "deny_list_file": "deny.json", "trust_domain": "acme.example"},
        "ingester": {
            "listen": ["0.0.0.0:8443"], "certificate_file": "/etc/zen/public.pem",
            "private_key_file": "lockd:edge/public/tls.key", "link_listen": "0.0.0.0:7443",
            "endpoints": [{"id": HOOK, "tenant": "acme", "scheme": "github",
                "secret_files": ["lockd:edge/webhooks/github"]}],
            "flows": [{"name": "all", "endpoint": HOOK, "egress": "inside-1", "targets": ["billing", "either"],
                "when": {"header": "x-github-event", "exact": "push"}, "priority": 7}],
            "egresses": [{"name": "inside-1", "direction": "egress-dials",
                "spiffe_ids": ["spiffe://acme.example/inside/inside-1"],
                "key_id": format!("{{{{link_key_id:{link}}}}}"), "key_file": format!("{{{{link_key:{link}}}}}")}],
        },
    });
    assert_eq!(serde_json::to_value(node(&input, "edge-1")).unwrap(), expected);
    assert_eq!(input.secrets.keys().collect::<Vec<_>>(), ["edge/public/tls.key", "edge/webhooks/github"]);
}

#[test]
fn an_egress_gets_its_targets_outputs_and_links() {
    let input = compiled(&tenant(), "inside").unwrap();
    let egress = &node(&input, "inside-1")["egress"];
    let link = compiled(&tenant(), "edge").unwrap().link_keys.into_keys().next().unwrap();
    let expected = json!({
        "ingesters": [{"name": "edge-1", "direction": "egress-dials", "address": "edge.example:7443",
            "spiffe_ids": ["spiffe://acme.example/edge/edge-1"], "keys": format!("{{{{link_keys:{link}}}}}")}],
        "targets": [
            {"name": "audit", "url": "https://audit.example/", "key_id": "audit-1",
                "secret_file": "lockd:inside/targets/billing", "in_flight_max": 4},
            {"name": "billing", "url": "https://billing.example/hooks", "key_id": "billing-1",
                "secret_file": "lockd:inside/targets/billing", "spiffe_ids": ["spiffe://acme.example/inside/wall"]},
        ],
        "outputs": [{"name": "either", "primary": "billing", "standby": ["audit"]}],
    });
    assert_eq!(serde_json::to_value(egress).unwrap(), expected);
    // What has no role has an identity, and nothing to do.
    assert_eq!(node(&input, "wall").keys().collect::<Vec<_>>(), ["identity"]);
    assert_eq!(input.link_keys.len(), 1);
}

#[test]
fn an_egress_with_a_link_is_dialled_by_an_ingester_without() {
    let mut all = tenant();
    all["members"]["inside-1"]["link"] = all["members"]["edge-1"]["link"].take();
    let (edge, inside) = (compiled(&all, "edge").unwrap(), compiled(&all, "inside").unwrap());
    let peer = &node(&edge, "edge-1")["ingester"]["egresses"][0];
    assert_eq!(peer["direction"].as_str(), Some("ingester-dials"));
    assert_eq!(peer["address"].as_str(), Some("edge.example:7443"));
    assert_eq!(node(&inside, "inside-1")["egress"]["link_listen"].as_str(), Some("0.0.0.0:7443"));
}

#[test]
fn policies_say_who_a_peer_may_be() {
    let mut all = tenant();
    all["policies"] = json!({
        "edges": {"scope": "links", "clusters": ["inside"], "allow": ["spiffe://acme.example/edge/*"],
            "deny": ["spiffe://acme.example/edge/old"]},
        "tried": {"scope": "links", "allow": ["spiffe://acme.example/core/*"], "deny": ["spiffe://acme.example/test/*"],
            "dry_run": true},
        "walls": {"scope": "destinations", "allow": ["spiffe://acme.example/inside/*"]},
    });
    all["destinations"]["billing"]["spiffe_ids"] = json!(["spiffe://acme.example/*"]);
    let (edge, inside) = (compiled(&all, "edge").unwrap(), compiled(&all, "inside").unwrap());
    let json = |table: &toml::Value, keys: &[&str]| -> Vec<Value> {
        keys.iter().map(|key| serde_json::to_value(table.get(key)).unwrap()).collect()
    };
    let keys = ["spiffe_ids", "deny_spiffe_ids", "dry_run"];
    let inside = &node(&inside, "inside-1")["egress"];
    let expected = vec![
        json!(["spiffe://acme.example/edge/edge-1"]),
        json!(["spiffe://acme.example/edge/old"]),
        json!({"spiffe_ids": ["spiffe://acme.example/edge/edge-1"],
            "deny_spiffe_ids": ["spiffe://acme.example/edge/old", "spiffe://acme.example/test/*"]}),
    ];
    assert_eq!(json(&inside["ingesters"][0], &keys), expected);
    // At the edge nothing is in force, and by what is tried nobody would be allowed.
    let expected = vec![
        json!(["spiffe://acme.example/inside/inside-1"]),
        Value::Null,
        json!({"spiffe_ids": ["spiffe://acme.example/core/*"], "deny_spiffe_ids": ["spiffe://acme.example/test/*"]}),
    ];
    assert_eq!(json(&node(&edge, "edge-1")["ingester"]["egresses"][0], &keys), expected);
    // The narrower of both, and nothing for who is known by a name.
    let expected = vec![json!(["spiffe://acme.example/inside/*"]), Value::Null, Value::Null];
    assert_eq!(json(&inside["targets"][1], &keys), expected);
    assert_eq!(json(&inside["targets"][0], &keys), vec![Value::Null; 3]);
}

/// A change to the tenant, the cluster that is compiled, and the faults.
type Broken = (fn(&mut Value), &'static str, &'static [(&'static str, &'static str, &'static str)]);

const BROKEN: &[Broken] = &[
    (|_| {}, "nowhere", &[("clusters", "nowhere", "")]),
    (|all| all["delivery-flows"] = json!({}), "edge", &[("endpoints", HOOK, "")]),
    (
        |all| all["delivery-flows"]["all"]["endpoint"] = json!("ffffffffffffffffffffffffffffffff"),
        "inside",
        &[("delivery-flows", "all", "/endpoint")],
    ),
    (
        |all| all["delivery-flows"]["all"]["destinations"] = json!(["billing", "nobody"]),
        "edge",
        &[("delivery-flows", "all", "/destinations/1")],
    ),
    (
        |all| all["delivery-flows"]["all"]["outputs"][0]["standby"] = json!(["nobody"]),
        "edge",
        &[("delivery-flows", "all", "/outputs/0/standby/0")],
    ),
    (
        |all| all["delivery-flows"]["all"]["outputs"][0]["name"] = json!("audit"),
        "inside",
        &[("delivery-flows", "all", "/outputs/0/name")],
    ),
    (
        |all| all["endpoints"][HOOK]["members"] = json!(["inside-1"]),
        "edge",
        &[("endpoints", HOOK, "/members/0"), ("delivery-flows", "all", "/endpoint")],
    ),
    (
        |all| all["members"]["inside-2"] = all["members"]["inside-1"].clone(),
        "inside",
        &[
            ("destinations", "audit", "/member"),
            ("destinations", "billing", "/member"),
            ("delivery-flows", "all", "/destinations/0"),
            ("delivery-flows", "all", "/outputs/0/primary"),
            ("delivery-flows", "all", "/outputs/0/standby/0"),
        ],
    ),
    (
        |all| {
            all["members"]["inside-2"] = all["members"]["inside-1"].clone();
            all["destinations"]["billing"]["member"] = json!("inside-1");
            all["destinations"]["audit"]["member"] = json!("inside-2");
        },
        "inside",
        &[("delivery-flows", "all", "/outputs/0/standby/0")],
    ),
    (
        |all| drop(all["members"]["edge-1"].as_object_mut().unwrap().remove("link")),
        "edge",
        &[("members", "inside-1", "/link")],
    ),
    (
        |all| all["members"]["edge-1"]["settings"] = json!({"node": {"data_dir": "data"}}),
        "edge",
        &[
            ("members", "edge-1", "/settings/node/data_dir"),
            ("members", "edge-1", "/settings/admin/socket"),
            ("members", "edge-1", "/settings/lockd/socket"),
            ("members", "edge-1", "/settings/ingester/listen"),
            ("members", "edge-1", "/settings/ingester/certificate_file"),
            ("members", "edge-1", "/settings/ingester/private_key_file"),
        ],
    ),
    (
        |all| all["credentials"]["github"]["clusters"] = json!(["inside"]),
        "edge",
        &[("endpoints", HOOK, "/secrets/0")],
    ),
    (
        |all| drop(all["credentials"].as_object_mut().unwrap().remove("public")),
        "edge",
        &[("members", "edge-1", "/settings/ingester/private_key_file")],
    ),
    (
        |all| all["policies"]["x"] = json!({"scope": "links", "allow": ["spiffe://acme.example/core/*"]}),
        "edge",
        &[("members", "edge-1", "")],
    ),
    (
        |all| {
            all["policies"]["x"] =
                json!({"scope": "destinations", "allow": ["spiffe://acme.example/core/*"]});
        },
        "inside",
        &[("destinations", "billing", "/spiffe_ids")],
    ),
    (
        |all| all["credentials"]["again"] = all["credentials"]["github"].clone(),
        "edge",
        &[("credentials", "github", "/place")],
    ),
];

#[test]
fn everything_that_is_wrong_is_named() {
    for (change, cluster, expected) in BROKEN {
        let mut all = tenant();
        change(&mut all);
        let faults = compiled(&all, cluster).unwrap_err();
        let found: Vec<(&str, &str, &str)> =
            faults.iter().map(|fault| (fault.kind, fault.name.as_str(), fault.pointer.as_str())).collect();
        assert_eq!(found, *expected, "{faults:#?}");
    }
}

#[test]
fn what_is_wrong_elsewhere_keeps_no_cluster_back() {
    let mut all = tenant();
    all["clusters"]["third"] = json!({});
    all["destinations"]["lost"] =
        json!({"cluster": "third", "url": "https://a/", "key_id": "a", "secret": "a/b/c"});
    assert!(compiled(&all, "third").is_err());
    assert!(compiled(&all, "edge").is_ok() && compiled(&all, "inside").is_ok());
}

#[test]
fn faults_are_bounded() {
    let mut all = tenant();
    for number in 0..2 * COMPILE_FAULTS_MAX {
        let name = format!("{number:032x}");
        all["endpoints"][name] = all["endpoints"][HOOK].clone();
    }
    assert_eq!(compiled(&all, "edge").unwrap_err().len(), COMPILE_FAULTS_MAX);
}

#[test]
fn names_of_keys_tell_clusters_apart() {
    let mut all = tenant();
    let long = "a".repeat(64);
    for (name, end) in [("x", "1"), ("y", "2")] {
        let cluster = format!("{}{end}", &long[..63]);
        all["clusters"][&cluster] = json!({});
        all["members"][name] = all["members"]["inside-1"].clone();
        all["members"][name]["cluster"] = json!(cluster);
        all["destinations"][name] =
            json!({"cluster": cluster, "url": "https://a/", "key_id": "a", "secret": "a/b/c"});
        all["delivery-flows"][name] = json!({"endpoint": HOOK, "destinations": [name]});
    }
    let keys = compiled(&all, "edge").unwrap().link_keys;
    assert_eq!(keys.len(), 3);
    assert!(keys.keys().all(|name| zen_control_api::is_link_name(name)), "{keys:?}");
}

#[test]
fn the_fuzz_target_compiles_its_corpus() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dataplane/fuzz/corpus/control_compile/tenant");
    let data = std::fs::read(corpus).unwrap();
    let all: Value = serde_json::from_slice(&data).unwrap();
    assert!(compiled(&all, "edge").is_ok() && compiled(&all, "inside").is_ok());
    fuzz::check(&data);
}

/// Text with what TOML must escape.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\"'\\\\\n\r\t#={}\\[\\]\u{0}\u{7f}]{0,12}", Just("\"\"\"'''".to_owned()),]
        .prop_filter("places are the agent's", |text| !text.contains("{{"))
}

fn when() -> impl Strategy<Value = Value> {
    let leaf = (text(), text()).prop_map(|(header, exact)| json!({"header": header, "exact": exact}));
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({ "all": all })),
            inner.prop_map(|not| json!({ "not": not })),
        ]
    })
}

proptest! {
    #[test]
    fn texts_are_toml_and_say_what_objects_say(
        flows in proptest::collection::btree_map("[a-z][a-z0-9._-]{0,20}", (when(), text(), any::<bool>()), 1..8),
        order in any::<u64>(),
    ) {
        let mut all = tenant();
        let mut named: Vec<_> = flows.iter().collect();
        for (name, (when, static_text, is_enabled)) in &named {
            all["delivery-flows"][name.as_str()] = json!({
                "endpoint": HOOK, "destinations": ["billing"], "when": when,
                "outputs": [{"name": format!("o-{name}"), "primary": "audit",
                    "settings": {"transform": {"fields": [{"static": static_text, "to": "x"}]}}}],
                "settings": {"enabled": is_enabled, "priority": order % 7}
            });
        }
        let (edge, inside) = (compiled(&all, "edge").unwrap(), compiled(&all, "inside").unwrap());
        let node_flows = node(&edge, "edge-1")["ingester"]["flows"].clone();
        let outputs = node(&inside, "inside-1")["egress"]["outputs"].clone();
        for (name, (when, static_text, is_enabled)) in &named {
            let flow = node_flows.as_array().unwrap().iter().find(|flow| flow["name"].as_str() == Some(name)).unwrap();
            prop_assert_eq!(&serde_json::to_value(&flow["when"]).unwrap(), when);
            prop_assert_eq!(flow["enabled"].as_bool(), Some(*is_enabled));
            let own = format!("o-{name}");
            let output = outputs.as_array().unwrap().iter().find(|output| output["name"].as_str() == Some(&own)).unwrap();
            prop_assert_eq!(output["transform"]["fields"][0]["static"].as_str(), Some(static_text.as_str()));
        }
        // The same objects, said in another order, with keys in another order.
        let first = order as usize % named.len();
        named.rotate_left(first);
        let mut again = tenant();
        again["delivery-flows"].as_object_mut().unwrap().clear();
        for (name, _) in named.iter().rev() {
            let flow = all["delivery-flows"][name.as_str()].as_object().unwrap();
            let turned: serde_json::Map<String, Value> =
                flow.iter().rev().map(|(key, value)| (key.clone(), value.clone())).collect();
            again["delivery-flows"][name.as_str()] = turned.into();
        }
        if !flows.contains_key("all") {
            again["delivery-flows"]["all"] = all["delivery-flows"]["all"].clone();
        }
        let same = compiled(&again, "edge").unwrap();
        prop_assert_eq!(&same.members["edge-1"].node, &edge.members["edge-1"].node);
        prop_assert_eq!(&compiled(&again, "inside").unwrap().members["inside-1"].node, &inside.members["inside-1"].node);
    }
}
