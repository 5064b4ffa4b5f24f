//! What browsers send beside JSON: forms (`application/x-www-form-urlencoded`) and cookies. Pure: bytes in, texts out.
//!
//! Refused: over its bounds, no UTF-8, a field that is there twice. A cookie that is there twice is none.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, HOST, HeaderName, ORIGIN};

/// Longest form, bytes.
pub(crate) const FORM_BYTES_MAX: usize = 16 * 1024;
/// Most fields.
const FORM_FIELDS_MAX: usize = 64;
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Fields by name.
pub(crate) type Form = BTreeMap<String, String>;

/// A form's fields, if it is one.
pub(crate) fn form(bytes: &[u8]) -> Option<Form> {
    if bytes.len() > FORM_BYTES_MAX {
        return None;
    }
    let mut fields = Form::new();
    for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[..0]),
        };
        if fields.len() == FORM_FIELDS_MAX || fields.insert(decoded(name)?, decoded(value)?).is_some() {
            return None;
        }
    }
    Some(fields)
}

fn decoded(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next()?, rest.next()?].map(|digit| char::from(*digit).to_digit(16));
                (digits[0]? << 4 | digits[1]?) as u8
            }
            other => *other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Percent-encoded for a query (RFC 3986 section 2.3).
pub(super) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => {
                let _ = write!(encoded, "%{other:02X}");
            }
        }
    }
    encoded
}

/// A cookie's value, if it is there once.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// Whether a form comes from a page of ours. Pages send no Referer, so a browser's Origin may be `null`: what it says of the
/// site comes first.
pub(crate) fn is_same_origin(headers: &HeaderMap) -> bool {
    let one = |name: HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (Some(line), None) => line.to_str().ok(),
            _ => None,
        }
    };
    if headers.contains_key(SEC_FETCH_SITE) {
        return one(SEC_FETCH_SITE) == Some("same-origin");
    }
    let origin = one(ORIGIN).and_then(|origin| origin.strip_prefix("https://"));
    origin.is_some() && origin == one(HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_form_has_each_field_once() {
        let read = form(b"name=a+b%2B&code=1%2523&&empty").unwrap();
        assert_eq!(
            (read["name"].as_str(), read["code"].as_str(), read["empty"].as_str()),
            ("a b+", "1%23", "")
        );
        assert!(form(b"").unwrap().is_empty());
        let many: Vec<String> = (0..65).map(|at| format!("f{at}=1")).collect();
        let long = "a".repeat(FORM_BYTES_MAX + 1);
        for bad in ["a=1&a=2", "a=%", "a=%f", "a=%zz", "a=%ff", &many.join("&"), &long] {
            assert!(form(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(encoded("a b/ü~"), "a%20b%2F%C3%BC~");
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        assert_eq!(cookie(&headers(&[("cookie", "a=1; s=2;b=3")]), "s"), Some("2"));
        for bad in ["s=1; s=2", "as=1", "s", "", "S=1"] {
            assert_eq!(cookie(&headers(&[("cookie", bad)]), "s"), None, "{bad}");
        }
        assert_eq!(cookie(&headers(&[("cookie", "s=1"), ("cookie", "s=2")]), "s"), None);
    }

    #[test]
    fn a_form_comes_from_a_page_of_ours() {
        for (pairs, is_ours) in [
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")][..], true),
            (&[("host", "c:1"), ("origin", "https://c:1")], true),
            (&[("host", "c:1")], false),
            (&[("host", "c:1"), ("origin", "null")], false),
            (&[("host", "c:1"), ("origin", "http://c:1")], false),
            (&[("host", "c:1"), ("origin", "https://c:2")], false),
            (&[("host", "c:1"), ("origin", "https://c:1"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "c:1"), ("origin", "https://c:1"), ("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false),
            (&[("host", "c:1"), ("origin", "https://c:1"), ("origin", "https://c:1")], false),
        ] {
            assert_eq!(is_same_origin(&headers(pairs)), is_ours, "{pairs:?}");
        }
    }
}
