//! Where a node's configuration names link keys: the control plane writes the link's name, the agent puts in which keys.
//!
//! `{{link_key_id:LINK}}` and `{{link_key:LINK}}` are the id and the place of the key that an ingester signs with;
//! `"{{link_keys:LINK}}"`, with its quotes, is the array of keys that an egress takes, of 1 to 4 tables.

use std::collections::BTreeMap;

use crate::link_keys::{is_link_name, link_key_id, link_secret};

const OPEN: &str = "{{link_key";
const CLOSE: &str = "}}";
const PLACE: &str = "lockd:";

/// Which way a link goes, as a place in a text has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkRole {
    /// An ingester's: one key.
    Sender,
    /// An egress's: all keys.
    Receiver,
}

/// Links that a text names, with the keys that were put in.
pub type LinkUses = BTreeMap<(String, LinkRole), Vec<u64>>;

/// Why a text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkTextError {
    /// A place that is none.
    #[error(
        "byte {0} begins no place of a link key: {{{{link_key_id:LINK}}}}, {{{{link_key:LINK}}}} or \"{{{{link_keys:LINK}}}}\""
    )]
    Malformed(usize),
    /// The link has no key for it.
    #[error("there is no key of the link {0} yet")]
    NoKey(String),
}

/// The text with keys in their places: `keys_of` has the numbers of a link's keys, for a sender the one that it signs with.
pub fn with_link_keys(
    text: &str,
    mut keys_of: impl FnMut(&str, LinkRole) -> Vec<u64>,
) -> Result<(String, LinkUses), LinkTextError> {
    let (mut written, mut uses) = (String::with_capacity(text.len()), LinkUses::new());
    let mut done = 0;
    while let Some(found) = text[done..].find(OPEN).map(|at| done + at) {
        let (kind, link, end) = place(text, (done, found)).ok_or(LinkTextError::Malformed(found))?;
        let role = if kind == Kind::Keys { LinkRole::Receiver } else { LinkRole::Sender };
        let use_of = uses.entry((link.to_owned(), role)).or_insert_with(|| keys_of(link, role));
        let Some(newest) = use_of.last().copied() else { return Err(LinkTextError::NoKey(link.to_owned())) };
        // The array stands in place of a text, with its quotes.
        let quotes = usize::from(kind == Kind::Keys);
        written.push_str(&text[done..found - quotes]);
        match kind {
            Kind::Id => written.push_str(&link_key_id(link, newest)),
            Kind::Place => written.push_str(&place_of(link, newest)),
            Kind::Keys => written.push_str(&array(link, use_of)),
        }
        done = end + quotes;
    }
    written.push_str(&text[done..]);
    Ok((written, uses))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Id,
    Place,
    Keys,
}

/// What begins at `found`: its kind, the link, and where it ends. Quotes before `done` are another place's.
fn place(text: &str, (done, found): (usize, usize)) -> Option<(Kind, &str, usize)> {
    let rest = &text[found + OPEN.len()..];
    let (kind, rest) = [("_id:", Kind::Id), (":", Kind::Place), ("s:", Kind::Keys)]
        .into_iter()
        .find_map(|(name, kind)| Some((kind, rest.strip_prefix(name)?)))?;
    let (link, after) = rest.split_once(CLOSE)?;
    let end = text.len() - after.len();
    let is_quoted = text[done..found].ends_with('"') && after.starts_with('"');
    (is_link_name(link) && (kind != Kind::Keys || is_quoted)).then_some((kind, link, end))
}

fn place_of(link: &str, number: u64) -> String {
    let (namespace, name, key) = link_secret(link, number);
    format!("{PLACE}{namespace}/{name}/{key}")
}

/// As TOML; names of links need no escapes.
fn array(link: &str, numbers: &[u64]) -> String {
    let table = |number: &u64| {
        format!("{{ id = \"{}\", file = \"{}\" }}", link_key_id(link, *number), place_of(link, *number))
    };
    let tables: Vec<String> = numbers.iter().map(table).collect();
    format!("[{}]", tables.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(link: &str, role: LinkRole) -> Vec<u64> {
        match (link, role) {
            ("none", _) => Vec::new(),
            (_, LinkRole::Sender) => vec![7],
            (_, LinkRole::Receiver) => vec![6, 7],
        }
    }

    #[test]
    fn keys_are_put_where_the_text_names_them() {
        let text = "a = 1 # é\nkey_id = \"{{link_key_id:e-c}}\"\nkey_file = \"{{link_key:e-c}}\"\nkeys = \"{{link_keys:e-c}}\"\n";
        let (written, uses) = with_link_keys(text, keys).unwrap();
        assert_eq!(
            written,
            "a = 1 # é\nkey_id = \"e-c-7\"\nkey_file = \"lockd:zen-link/e-c/key-7\"\n\
             keys = [{ id = \"e-c-6\", file = \"lockd:zen-link/e-c/key-6\" }, { id = \"e-c-7\", file = \"lockd:zen-link/e-c/key-7\" }]\n"
        );
        let link = "e-c".to_owned();
        let expected =
            [((link.clone(), LinkRole::Sender), vec![7]), ((link, LinkRole::Receiver), vec![6, 7])];
        assert_eq!(uses, LinkUses::from(expected));
        assert_eq!(
            with_link_keys("{{private_key}}", keys),
            Ok(("{{private_key}}".to_owned(), LinkUses::new()))
        );
    }

    #[test]
    fn two_places_share_no_quote() {
        let text = "keys = \"{{link_keys:e-c}}\"{{link_keys:e-c}}\"";
        let second = text.rfind(OPEN).unwrap();
        assert_eq!(with_link_keys(text, keys), Err(LinkTextError::Malformed(second)));
    }

    #[test]
    fn a_place_that_is_none_is_said() {
        for text in [
            "{{link_key",
            "{{link_key:",
            "{{link_key:}}",
            "{{link_key:a/b}}",
            "{{link_key:..}}",
            "{{link_key:a\"}}",
            "{{link_keys:a}}",
            "\"{{link_keys:a}}",
            "{{link_keys:a}}\"",
            "{{link_key_ids:a}}",
            &format!("{{{{link_key:{}}}}}", "a".repeat(41)),
        ] {
            assert!(matches!(with_link_keys(text, keys), Err(LinkTextError::Malformed(0 | 1))), "{text}");
        }
        let none = with_link_keys("x {{link_key:none}}", keys);
        assert_eq!(none, Err(LinkTextError::NoKey("none".to_owned())));
        let said = LinkTextError::Malformed(3).to_string();
        assert!(said.contains("{{link_key:LINK}}"), "{said}");
    }
}
