//! The parts of a request beside its body: queries, entity tags, accepted types, idempotency keys. Pure: texts in, values out.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::problem::Fault;

/// Longest query, bytes.
pub(crate) const QUERY_BYTES_MAX: usize = 1024;
/// Longest idempotency key, bytes.
pub(crate) const KEY_BYTES_MAX: usize = 128;
/// Most entity tags in one condition.
pub(crate) const TAGS_MAX: usize = 16;
/// As clients send it.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Entity tags of a condition (RFC 9110 section 13.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: whichever there is.
    Any,
    /// Revisions; tags that are none of ours are none of these.
    Revisions(Vec<i64>),
}

/// On what a request depends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<Tags>,
    pub(crate) if_none_match: Option<Tags>,
}

impl Tags {
    /// Whether one of them is this revision; none of them is, if there is nothing.
    pub(crate) fn holds(&self, revision: Option<i64>) -> bool {
        match (self, revision) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Revisions(revisions), Some(revision)) => revisions.contains(&revision),
        }
    }
}

impl Conditions {
    /// What the headers say.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        Ok(Self {
            if_match: tags(headers, IF_MATCH, Comparison::Strong)?,
            if_none_match: tags(headers, IF_NONE_MATCH, Comparison::Weak)?,
        })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }
}

/// How weak tags compare (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

fn tags(headers: &HeaderMap, name: HeaderName, comparison: Comparison) -> Result<Option<Tags>, Fault> {
    let refused = || Fault::Malformed(format!("{name} is * or entity tags in quotes, {TAGS_MAX} at most"));
    let mut found = Vec::new();
    let mut is_any = false;
    let mut lines = headers.get_all(&name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    for line in lines {
        let mut rest = line.to_str().map_err(|_| refused())?.trim();
        if rest == "*" {
            is_any = true;
            continue;
        }
        loop {
            let (tag, after) = tag(rest).ok_or_else(refused)?;
            let is_usable = !tag.is_weak || comparison == Comparison::Weak;
            found.push(tag.revision.filter(|_| is_usable));
            match after.trim_start().strip_prefix(',') {
                Some(next) => rest = next.trim_start(),
                None if after.trim().is_empty() => break,
                None => return Err(refused()),
            }
        }
    }
    match (is_any, found.len()) {
        (true, 0) => Ok(Some(Tags::Any)),
        (false, 1..=TAGS_MAX) => Ok(Some(Tags::Revisions(found.into_iter().flatten().collect()))),
        _ => Err(refused()),
    }
}

struct Tag {
    is_weak: bool,
    /// None if it is no tag that we give.
    revision: Option<i64>,
}

/// The first entity tag of a list, and what comes after it.
fn tag(text: &str) -> Option<(Tag, &str)> {
    let (is_weak, text) = match text.strip_prefix("W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (opaque, rest) = text.strip_prefix('"')?.split_once('"')?;
    let is_ours = (1..=19).contains(&opaque.len()) && opaque.bytes().all(|byte| byte.is_ascii_digit());
    let revision = opaque.parse().ok().filter(|revision: &i64| is_ours && revision.to_string() == opaque);
    opaque.bytes().all(|byte| byte > 0x20 && byte != 0x7f).then_some((Tag { is_weak, revision }, rest))
}

/// Fields of a query by name; only names of the list, each once.
pub(crate) fn query<'a>(text: Option<&str>, names: &[&'a str]) -> Result<BTreeMap<&'a str, String>, Fault> {
    let mut fields = BTreeMap::new();
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(fields) };
    if text.len() > QUERY_BYTES_MAX {
        return Err(Fault::Malformed(format!("the query has over {QUERY_BYTES_MAX} bytes")));
    }
    for pair in text.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let known = names.iter().find(|known| **known == name);
        let known = known.ok_or_else(|| {
            let has = if names.is_empty() { "no query".to_owned() } else { names.join(", ") };
            Fault::Malformed(format!("the query has a field that the route does not have; it has {has}"))
        })?;
        let value = decoded(value)
            .ok_or_else(|| Fault::Malformed(format!("{known} is not percent-encoded UTF-8")))?;
        if fields.insert(*known, value).is_some() {
            return Err(Fault::Malformed(format!("{known} is there twice")));
        }
    }
    Ok(fields)
}

/// Percent-decoded (RFC 3986 section 2.1), if it is UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?].map(|digit| char::from(digit).to_digit(16));
        bytes.push((digits[0]? << 4 | digits[1]?) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// Whether the client takes JSON (RFC 9110 section 12.5.1).
pub(crate) fn accepts_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(ACCEPT).iter().peekable();
    if lines.peek().is_none() {
        return true;
    }
    let ranges = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    ranges.into_iter().any(|range| {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let is_ours = parts.next().is_some_and(|kind| {
            matches!(kind.as_str(), "application/json" | "application/*" | "*/*" | "application/problem+json")
        });
        let is_nothing = |part: &String| {
            part.strip_prefix("q=")
                .is_some_and(|weight| weight.parse().is_ok_and(|weight: f32| weight <= 0.0))
        };
        is_ours && !parts.any(|part| is_nothing(&part))
    })
}

/// Whether the body says that it is JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Ok(line) = line.to_str() else { return false };
    let mut parts = line.split(';').map(|part| part.trim().to_ascii_lowercase());
    parts.next().as_deref() == Some("application/json")
        && parts.all(|part| matches!(part.as_str(), "charset=utf-8" | "charset=\"utf-8\""))
}

/// The request's idempotency key, if it has one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let refused = || {
        Fault::Malformed(format!("Idempotency-Key is 1 to {KEY_BYTES_MAX} visible characters of ASCII, once"))
    };
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().map_err(|_| refused())?;
    let is_good =
        (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_good || lines.next().is_some() {
        return Err(refused());
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn entity_tags_are_read_as_the_standard_has_them() {
        let revisions = |revisions: &[i64]| Some(Tags::Revisions(revisions.to_vec()));
        for (values, strong, weak) in [
            (&["*"][..], Some(Tags::Any), Some(Tags::Any)),
            (&["\"3\""], revisions(&[3]), revisions(&[3])),
            (&["W/\"3\""], revisions(&[]), revisions(&[3])),
            (&["\"3\" , W/\"4\",\"x\"", "\"5\""], revisions(&[3, 5]), revisions(&[3, 4, 5])),
            (&["\"03\",\"+3\",\"99999999999999999999\""], revisions(&[]), revisions(&[])),
        ] {
            let conditions = Conditions::read(&headers(IF_MATCH, values)).unwrap();
            assert_eq!(conditions.if_match, strong, "{values:?}");
            let conditions = Conditions::read(&headers(IF_NONE_MATCH, values)).unwrap();
            assert_eq!(conditions.if_none_match, weak, "{values:?}");
        }
        let many = vec!["\"1\""; TAGS_MAX + 1].join(",");
        for values in [
            &[""][..],
            &["3"],
            &["\"3"],
            &["\"3\" \"4\""],
            &["\"3\","],
            &["*", "\"3\""],
            &["w/\"3\""],
            &["\"\u{fc}\""],
            &[&many],
        ] {
            assert!(Conditions::read(&headers(IF_MATCH, values)).is_err(), "{values:?}");
        }
    }

    #[test]
    fn a_query_has_known_fields_once() {
        let names = ["limit", "cursor"];
        assert_eq!(query(Some("limit=5&cursor=%41%c3%bc"), &names).unwrap()["cursor"], "Aü");
        assert!(query(None, &names).unwrap().is_empty() && query(Some(""), &[]).unwrap().is_empty());
        let long = format!("limit={}", "1".repeat(QUERY_BYTES_MAX));
        for text in [
            "limit=1&limit=1",
            "more=1",
            "limit=%",
            "limit=%4",
            "limit=%zz",
            "limit=%ff",
            "&",
            "%6cimit=1",
            &long,
        ] {
            assert!(query(Some(text), &names).is_err(), "{text}");
        }
    }

    #[test]
    fn types_are_compared_as_the_standard_has_them() {
        for good in [
            &["application/json"][..],
            &["*/*"],
            &["text/html, application/*;q=0.1"],
            &["text/html", "Application/JSON"],
            &[],
        ] {
            assert!(accepts_json(&headers(ACCEPT, good)), "{good:?}");
        }
        for bad in
            [&["text/html"][..], &["application/json;q=0"], &["application/json; q=0.000"], &[""], &["json"]]
        {
            assert!(!accepts_json(&headers(ACCEPT, bad)), "{bad:?}");
        }
        for good in
            ["application/json", "application/json; charset=UTF-8", "APPLICATION/JSON;charset=\"utf-8\""]
        {
            assert!(is_json(&headers(CONTENT_TYPE, &[good])), "{good}");
        }
        for bad in [
            &["text/json"][..],
            &["application/json; charset=latin1"],
            &[],
            &["application/json", "application/json"],
        ] {
            assert!(!is_json(&headers(CONTENT_TYPE, bad)), "{bad:?}");
        }
    }

    #[test]
    fn an_idempotency_key_is_short_and_visible() {
        assert_eq!(idempotency_key(&headers(IDEMPOTENCY_KEY, &["a-1"])).unwrap().unwrap(), "a-1");
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        let long = "a".repeat(KEY_BYTES_MAX + 1);
        for bad in [&[""][..], &["a b"], &["ü"], &["a", "a"], &[&long]] {
            assert!(idempotency_key(&headers(IDEMPOTENCY_KEY, bad)).is_err(), "{bad:?}");
        }
    }
}
