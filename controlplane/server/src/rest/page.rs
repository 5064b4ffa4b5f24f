//! Lists, a page at a time. A cursor is the key of the last item, so that what is added or deleted meanwhile moves nothing.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Fault;

/// Items of a page that does not say.
pub(crate) const PAGE_ITEMS: usize = 50;
/// Most items of a page.
pub(crate) const PAGE_ITEMS_MAX: usize = 200;
/// The fields of a list's query.
pub(crate) const LIST_QUERY: &[&str] = &["limit", "cursor"];

/// Where a page begins and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The key of the last item before; empty at the beginning.
    pub(crate) after: String,
    pub(crate) count: usize,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// In the list's order.
    pub(crate) items: Vec<T>,
    /// Gets the next page, as the query's `cursor`; none on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

impl Page {
    /// What a query says, in a list of this name.
    pub(crate) fn read(query: &BTreeMap<&str, String>, list: &str) -> Result<Self, Fault> {
        let limit = || Fault::Malformed(format!("limit is 1 to {PAGE_ITEMS_MAX}"));
        let count = match query.get("limit") {
            None => PAGE_ITEMS,
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| limit())?
            }
            Some(_) => return Err(limit()),
        };
        if !(1..=PAGE_ITEMS_MAX).contains(&count) {
            return Err(limit());
        }
        let after = match query.get("cursor") {
            None => String::new(),
            Some(text) => key(text, list)
                .ok_or_else(|| Fault::Malformed("cursor is the next_cursor of this list".to_owned()))?,
        };
        Ok(Self { after, count })
    }

    /// A page of items of which there was asked one more than it has, to see whether there is a next one.
    pub(crate) fn list<T, U>(
        &self,
        mut found: Vec<T>,
        list: &str,
        key: impl Fn(&T) -> String,
        item: impl Fn(T) -> U,
    ) -> List<U> {
        let has_next = found.len() > self.count;
        found.truncate(self.count);
        let last = found.last().filter(|_| has_next);
        let next_cursor = last.map(|last| BASE64_URL_SAFE_NO_PAD.encode(format!("{list}\n{}", key(last))));
        List { items: found.into_iter().map(item).collect(), next_cursor }
    }
}

fn key(cursor: &str, list: &str) -> Option<String> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    let key = text.strip_prefix(list)?.strip_prefix('\n')?;
    (!key.is_empty()).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_on_and_is_of_its_list() {
        let page = Page::read(&BTreeMap::from([("limit", "2".to_owned())]), "members").unwrap();
        let first = page.list(vec!["a", "b", "c"], "members", ToString::to_string, str::to_owned);
        assert_eq!(first.items, ["a", "b"]);
        let cursor = first.next_cursor.unwrap();
        let query = BTreeMap::from([("cursor", cursor)]);
        let next = Page::read(&query, "members").unwrap();
        assert_eq!(next, Page { after: "b".to_owned(), count: PAGE_ITEMS });
        assert!(next.list(vec!["c"], "members", ToString::to_string, str::to_owned).next_cursor.is_none());
        assert!(Page::read(&query, "policies").is_err());
        for limit in ["0", "201", "-1", "+1", "", "1.0", "99999999999999999999999"] {
            assert!(
                Page::read(&BTreeMap::from([("limit", limit.to_owned())]), "members").is_err(),
                "{limit}"
            );
        }
        for cursor in ["", "x", "bWVtYmVycwo", "bWVtYmVycwphCg=="] {
            assert!(
                Page::read(&BTreeMap::from([("cursor", cursor.to_owned())]), "members").is_err(),
                "{cursor}"
            );
        }
    }
}
