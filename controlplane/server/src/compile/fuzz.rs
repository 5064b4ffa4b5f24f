//! A tenant as arbitrary JSON: what its good objects come to is TOML with the agent's places where they belong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use toml::Table;
use zen_control_api::with_link_keys;

use super::compile;
use crate::objects::{Object, TenantObjects};

/// Asserts all of it.
pub(crate) fn check(data: &[u8]) {
    let Ok(all) = serde_json::from_slice::<Value>(data) else { return };
    let objects = TenantObjects {
        tenant: "acme".to_owned(),
        clusters: good(&all),
        members: good(&all),
        endpoints: good(&all),
        destinations: good(&all),
        delivery_flows: good(&all),
        policies: good(&all),
        credentials: good(&all),
    };
    for cluster in objects.clusters.keys() {
        let Ok(input) = compile(&objects, cluster, "acme.example") else { continue };
        for member in input.members.values() {
            let table: Table = member.node.parse().expect("what is compiled is TOML");
            let key = table["identity"]["private_key_file"].as_str();
            assert_eq!(key, Some("{{private_key}}"));
            assert_eq!(member.node.matches("{{private_key}}").count(), 1);
            let (_, uses) = with_link_keys(&member.node, |_, _| vec![1]).expect("its places are good");
            assert!(uses.keys().all(|(link, _)| input.link_keys.contains_key(link)));
        }
        let brought: BTreeSet<&str> =
            objects.credentials.values().map(|credential| credential.place.0.as_str()).collect();
        assert!(input.secrets.keys().all(|place| brought.contains(place.as_str())));
    }
}

/// Objects of one kind that the API would have taken.
fn good<T: Object>(all: &Value) -> BTreeMap<String, T> {
    let entries = all.get(T::KIND).and_then(Value::as_object).into_iter().flatten();
    let read = entries.filter_map(|(name, value)| {
        let object: T = serde_json::from_value(value.clone()).ok()?;
        object.check(name).is_ok().then(|| (name.clone(), object))
    });
    read.collect()
}
