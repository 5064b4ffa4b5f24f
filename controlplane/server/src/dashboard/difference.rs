//! What would change: two configurations of a cluster in, the parts that differ out, line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::deny::hex;

/// Lines around a change.
const CONTEXT_LINES: usize = 3;
/// Most lines of one part that are shown.
const DIFFERENCE_LINES_MAX: usize = 2000;

/// A part that differs.
pub(super) struct Part {
    /// `node-1`, `secrets` and so on.
    pub(super) name: String,
    pub(super) lines: Vec<Line>,
}

/// A line of a difference.
pub(super) struct Line {
    pub(super) side: Side,
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Both,
    Added,
    Removed,
    /// Lines that are left out.
    Gap,
}

/// Parts of two configurations that differ; each is an object with `members`, `secrets` and `link_keys`.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<Part> {
    let (before, after) = (texts(before), texts(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut parts = Vec::new();
    for name in names {
        let text = |side: &BTreeMap<String, String>| side.get(name).cloned().unwrap_or_default();
        let (before, after) = (text(&before), text(&after));
        if before != after {
            parts.push(Part { name: name.clone(), lines: lines(&before, &after) });
        }
    }
    parts
}

/// A configuration as texts: each member's node, then what comes with all of them.
fn texts(configuration: &Value) -> BTreeMap<String, String> {
    let entries = |key: &str| configuration[key].as_object().into_iter().flatten();
    let mut texts = BTreeMap::new();
    for (name, member) in entries("members") {
        let (id, node) = (member["spiffe_id"].as_str(), member["node"].as_str());
        let text = format!("# {}\n{}", id.unwrap_or_default(), node.unwrap_or_default());
        texts.insert(format!("member {name}"), text);
    }
    // Only whether a ciphertext changed is for eyes.
    let secrets = entries("secrets").fold(String::new(), |mut text, (place, sealed)| {
        let hash = hex(&digest(&SHA256, sealed.to_string().as_bytes()).as_ref()[..8]);
        let _ = writeln!(text, "{place}  sealed, sha256 {hash}");
        text
    });
    let keys = entries("link_keys").fold(String::new(), |mut text, (name, link)| {
        let side = |key: &str| link[key].as_str().unwrap_or_default().to_owned();
        let _ = writeln!(text, "{name}  {} to {}", side("sender"), side("receiver"));
        text
    });
    texts.extend([("secrets", secrets), ("link keys", keys)].map(|(name, text)| (name.to_owned(), text)));
    texts
}

fn lines(before: &str, after: &str) -> Vec<Line> {
    let difference = TextDiff::from_lines(before, after);
    let mut lines = Vec::new();
    for (index, group) in difference.grouped_ops(CONTEXT_LINES).iter().enumerate() {
        if index > 0 {
            lines.push(Line { side: Side::Gap, text: String::new() });
        }
        for change in group.iter().flat_map(|operation| difference.iter_changes(operation)) {
            let side = match change.tag() {
                ChangeTag::Equal => Side::Both,
                ChangeTag::Insert => Side::Added,
                ChangeTag::Delete => Side::Removed,
            };
            lines.push(Line { side, text: change.value().trim_end_matches('\n').to_owned() });
            if lines.len() == DIFFERENCE_LINES_MAX {
                lines.push(Line { side: Side::Gap, text: String::new() });
                return lines;
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_that_differ_are_shown_and_ciphertext_is_not() {
        let configuration = |port: u16, secret: &str| {
            let node = format!("[node]\nname = \"n\"\nlisten = {port}\n");
            json!({"members": {"n": {"spiffe_id": "spiffe://a/b/n", "node": node}}, "secrets": {"a/b/c": secret}})
        };
        assert!(differences(&configuration(1, "x"), &configuration(1, "x")).is_empty());
        let parts = differences(&configuration(1, "CIPHER"), &configuration(2, "OTHER"));
        let names: Vec<_> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["member n", "secrets"]);
        let of = |side: Side| parts[0].lines.iter().filter(move |line| line.side == side);
        assert_eq!(of(Side::Removed).map(|line| line.text.as_str()).collect::<Vec<_>>(), ["listen = 1"]);
        assert_eq!(of(Side::Added).map(|line| line.text.as_str()).collect::<Vec<_>>(), ["listen = 2"]);
        assert!(
            parts[1].lines.iter().all(|line| !line.text.contains("CIPHER") && !line.text.contains("OTHER"))
        );
        let new = differences(&Value::Null, &configuration(1, "x"));
        assert!(new[0].lines.iter().all(|line| line.side == Side::Added), "all of it is new");
    }
}
