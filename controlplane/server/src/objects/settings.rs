//! Settings: what an object says of a node's configuration beyond its own fields.
//!
//! Enters: a JSON object. Leaves: a TOML table. Refused: keys that nodes do not have, keys that the object says in a field, and
//! values that TOML does not have. Whether values are within their bounds says the node.

mod keys;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use self::keys::{ROUTING_TABLES, TABLES};
use super::fields::check_places;
use super::{FieldFault, SecretPlace};

/// Deepest settings.
pub(crate) const SETTINGS_DEPTH_MAX: usize = 24;
/// Most values in one object's settings.
pub(crate) const SETTINGS_VALUES_MAX: usize = 4096;

/// Keys and values of a node's configuration (`docs/configuration.md`), as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct Settings(pub Map<String, Value>);

/// Where settings go in a node's configuration.
pub(super) struct Scope {
    /// The table, dotted; empty for the whole file.
    path: &'static str,
    /// Keys below it that the object says in a field, or that are nobody's to say; dotted, from `path` on.
    taken: &'static [&'static str],
}

pub(super) const MEMBER: Scope = Scope {
    path: "",
    taken: &[
        "node.name",
        "identity.certificate_file",
        "identity.private_key_file",
        "identity.trust_bundle_file",
        "identity.trust_domain",
        "identity.deny_list_file",
        "ingester.link_listen",
        "ingester.endpoints",
        "ingester.flows",
        "ingester.egresses",
        "egress.link_listen",
        "egress.ingesters",
        "egress.targets",
        "egress.outputs",
    ],
};
pub(super) const ENDPOINT: Scope =
    Scope { path: "ingester.endpoints", taken: &["id", "tenant", "scheme", "secret_files"] };
pub(super) const FLOW: Scope =
    Scope { path: "ingester.flows", taken: &["name", "endpoint", "egress", "targets", "when"] };
pub(super) const DESTINATION: Scope = Scope {
    path: "egress.targets",
    taken: &[
        "name",
        "url",
        "key_id",
        "secret_file",
        "previous_secret_file",
        "spiffe_ids",
        // Policies say these.
        "deny_spiffe_ids",
        "dry_run",
    ],
};
pub(super) const OUTPUT: Scope = Scope { path: "egress.outputs", taken: &["name", "primary", "standby"] };

impl Settings {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As TOML; what [`Self::check_values`] takes comes through whole.
    pub(crate) fn table(&self) -> toml::Table {
        self.0.iter().filter_map(|(key, value)| Some((key.clone(), toml_value(value)?))).collect()
    }

    /// Secrets that settings name, as nodes do: `lockd:NAMESPACE/NAME/KEY` in a key that ends in `file` or `files`.
    pub(crate) fn places(&self, pointer: &str) -> Vec<(String, SecretPlace)> {
        let mut found = Vec::new();
        self.0.iter().for_each(|(key, value)| references(key, value, &below(pointer, key), &mut found));
        let place = |(pointer, text): (String, &str)| Some((pointer, text.parse().ok()?));
        found.into_iter().filter_map(place).collect()
    }

    /// Settings of an object, at `/settings`.
    pub(super) fn check(&self, scope: &Scope) -> Result<(), FieldFault> {
        self.check_at(scope, "/settings")
    }

    pub(super) fn check_at(&self, scope: &Scope, pointer: &str) -> Result<(), FieldFault> {
        self.check_values(pointer)?;
        check_keys(&self.0, scope.path, scope, pointer)
    }

    /// Whether TOML has all values, and nodes can read them.
    pub(super) fn check_values(&self, pointer: &str) -> Result<(), FieldFault> {
        let mut left = SETTINGS_VALUES_MAX;
        self.0.iter().try_for_each(|(key, value)| {
            check_places(key, pointer)?;
            check_value(value, &below(pointer, key), SETTINGS_DEPTH_MAX - 1, &mut left)
        })?;
        let mut found = Vec::new();
        self.0.iter().for_each(|(key, value)| references(key, value, &below(pointer, key), &mut found));
        found.into_iter().try_for_each(|(pointer, text)| SecretPlace(text.to_owned()).check(&pointer))
    }
}

fn check_value(value: &Value, pointer: &str, depth: usize, left: &mut usize) -> Result<(), FieldFault> {
    let refuse = |detail: &str| Err(FieldFault::new(pointer, detail));
    if depth == 0 {
        return refuse("settings are nested too deep");
    }
    let Some(rest) = left.checked_sub(1) else { return refuse("settings have too many values") };
    *left = rest;
    match value {
        Value::Null => refuse("leave the key out in place of null"),
        Value::Number(number) if number.is_u64() && number.as_i64().is_none() => {
            refuse("a number below 2^63")
        }
        Value::String(text) => check_places(text, pointer),
        Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check_value(item, &format!("{pointer}/{index}"), depth - 1, left)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            check_places(key, pointer)?;
            check_value(value, &below(pointer, key), depth - 1, left)
        }),
    }
}

/// Texts behind `lockd:` in keys that name secrets.
fn references<'a>(key: &str, value: &'a Value, pointer: &str, found: &mut Vec<(String, &'a str)>) {
    match value {
        Value::String(text) if key.ends_with("file") || key.ends_with("files") => {
            found.extend(text.strip_prefix("lockd:").map(|place| (pointer.to_owned(), place)));
        }
        Value::Array(items) => {
            let each = items.iter().enumerate();
            each.for_each(|(index, item)| references(key, item, &format!("{pointer}/{index}"), found));
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| references(key, value, &below(pointer, key), found));
        }
        _ => {}
    }
}

/// Whether nodes have all keys of the table `path`, and of the tables below it.
fn check_keys(map: &Map<String, Value>, path: &str, scope: &Scope, pointer: &str) -> Result<(), FieldFault> {
    for (key, value) in map {
        let pointer = below(pointer, key);
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let own = path.strip_prefix(scope.path).unwrap_or(&path).trim_start_matches('.');
        if scope.taken.contains(&own) {
            return Err(FieldFault::new(pointer, "is no setting: it is known from elsewhere"));
        }
        if scope.path.is_empty() && !path.contains('.') && !value.is_object() {
            return Err(FieldFault::new(pointer, "a section is an object"));
        }
        let Some(path) = known(&path) else {
            return Err(FieldFault::new(pointer, "nodes have no such key: see docs/configuration.md"));
        };
        let inner: Vec<(String, &Map<String, Value>)> = match value {
            Value::Object(map) => vec![(pointer, map)],
            Value::Array(items) => {
                let each = items.iter().enumerate();
                each.filter_map(|(index, item)| Some((format!("{pointer}/{index}"), item.as_object()?)))
                    .collect()
            }
            _ => Vec::new(),
        };
        if tables().any(|(table, _)| table.starts_with(&format!("{path}."))) || is_table(&path) {
            inner.into_iter().try_for_each(|(pointer, map)| check_keys(map, &path, scope, &pointer))?;
        }
    }
    Ok(())
}

fn tables() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    TABLES.into_iter().chain(ROUTING_TABLES)
}

fn is_table(path: &str) -> bool {
    tables().any(|(table, _)| table == path)
}

/// The path as the tables have it, if they do: one of their keys, a table, or a name that somebody chose.
fn known(path: &str) -> Option<String> {
    let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
    let has_key = tables().any(|(name, keys)| name == table && keys.contains(&key));
    if has_key || is_table(path) {
        return Some(path.to_owned());
    }
    let named = if table.is_empty() { "NAME".to_owned() } else { format!("{table}.NAME") };
    is_table(&named).then_some(named)
}

/// The pointer to a key (RFC 6901 section 3).
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn toml_value(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => toml::Value::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => toml::Value::Integer(integer),
            None => toml::Value::Float(number.as_f64()?),
        },
        Value::String(text) => toml::Value::String(text.clone()),
        Value::Array(items) => toml::Value::Array(items.iter().filter_map(toml_value).collect()),
        Value::Object(map) => {
            let entries = map.iter().filter_map(|(key, value)| Some((key.clone(), toml_value(value)?)));
            toml::Value::Table(entries.collect())
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_keys_are_those_of_the_document() {
        let text = include_str!("../../../../docs/configuration.md");
        let mut documented: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut table = None;
        for line in text.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                let name = heading.trim_matches('`').trim_matches(['[', ']']);
                table = heading.starts_with("`[").then_some(name);
            }
            let key = line.strip_prefix("| `").and_then(|row| row.split('`').next());
            if let (Some(table), Some(key)) = (table, key) {
                documented.entry(table).or_default().insert(key);
            }
        }
        let ours: BTreeMap<&str, BTreeSet<&str>> =
            TABLES.into_iter().map(|(table, keys)| (table, keys.iter().copied().collect())).collect();
        assert_eq!(ours, documented, "objects/settings/keys.rs and docs/configuration.md");
    }

    #[test]
    fn what_fields_say_is_a_key_of_a_node() {
        for scope in [&MEMBER, &ENDPOINT, &FLOW, &DESTINATION] {
            for taken in scope.taken {
                let path = format!("{}.{taken}", scope.path);
                assert!(known(path.trim_start_matches('.')).is_some(), "{path}");
            }
        }
    }

    #[test]
    fn keys_that_nodes_do_not_have_are_named() {
        let good = json!({
            "node": {"data_dir": "/var/lib/zen", "workers": 2},
            "lockd": {"socket": "/run/zen-lockd/lockd.sock"},
            "ebpf": {"guard": {"mode": "enforce"}},
            "ingester": {"listen": ["0.0.0.0:8443"], "networks": {"provider": {"cidrs": ["192.0.2.0/24"]}}},
        });
        settings(good).check(&MEMBER).unwrap();
        for (value, pointer) in [
            (json!({"nodes": {}}), "/settings/nodes"),
            (json!({"node": {"worker": 1}}), "/settings/node/worker"),
            (json!({"node": {"name": "x"}}), "/settings/node/name"),
            (json!({"identity": {"trust_domain": "x"}}), "/settings/identity/trust_domain"),
            (json!({"ingester": {"endpoints": []}}), "/settings/ingester/endpoints"),
            (
                json!({"ingester": {"networks": {"a/b": {"cidr": 1}}}}),
                "/settings/ingester/networks/a~1b/cidr",
            ),
            (json!({"ebpf": {"guard": {"a~b": 1}}}), "/settings/ebpf/guard/a~0b"),
            (json!({"node": {"log": null}}), "/settings/node/log"),
            (json!({"node": {"workers": u64::MAX}}), "/settings/node/workers"),
            (json!({"node": 7}), "/settings/node"),
            (json!({"node": {"log": "{{private_key}}"}}), "/settings/node/log"),
            (json!({"ingester": {"networks": {"{{link_key:a}}": {}}}}), "/settings/ingester/networks"),
            (json!({"node": {"hash_key_file": "lockd:a/b"}}), "/settings/node/hash_key_file"),
        ] {
            assert_eq!(settings(value.clone()).check(&MEMBER).unwrap_err().pointer, pointer, "{value}");
        }
        let endpoint = |value| settings(value).check(&ENDPOINT);
        endpoint(json!({"hmac": {"header": "x"}, "headers": [{"name": "x"}]})).unwrap();
        for (value, pointer) in [
            (json!({"hmac": {"headers": "x"}}), "/settings/hmac/headers"),
            (json!({"headers": [{"name": "x"}, {"names": "x"}]}), "/settings/headers/1/names"),
            (json!({"tenant": "other"}), "/settings/tenant"),
        ] {
            assert_eq!(endpoint(value.clone()).unwrap_err().pointer, pointer, "{value}");
        }
    }

    #[test]
    fn secrets_are_found_where_they_are_named() {
        let own = settings(json!({
            "authorization": {"secret_files": ["lockd:a/b/c", "lockd:a/b/d"]},
            "batch": {"log": "lockd:a/b/e"},
        }));
        let found: Vec<(String, String)> =
            own.places("/settings").into_iter().map(|(pointer, place)| (pointer, place.0)).collect();
        let expected = [("0", "a/b/c"), ("1", "a/b/d")].map(|(index, place)| {
            (format!("/settings/authorization/secret_files/{index}"), place.to_owned())
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let deep = (0..SETTINGS_DEPTH_MAX).fold(json!(1), |value, _| json!([value]));
        assert!(settings(json!({"log": deep})).check_values("").is_err());
        let many = vec![1; SETTINGS_VALUES_MAX];
        assert!(settings(json!({ "log": many })).check_values("").is_err());
    }
}
