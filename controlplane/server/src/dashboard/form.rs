//! Fields of a form or a query (URL Standard, `application/x-www-form-urlencoded`): bytes in, names and texts out.
//!
//! Refused: what is not percent-encoded UTF-8, too many fields, other types of bodies.

use std::borrow::Cow;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;

use crate::rest::Fault;

/// Most fields of a form.
const FORM_FIELDS_MAX: usize = 1024;
/// Longest query of a page, bytes.
const PAGE_QUERY_BYTES_MAX: usize = 4096;

/// Fields in their order; one name may be there often.
#[derive(Clone, Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn of_query(text: Option<&str>) -> Result<Self, Fault> {
        let text = text.unwrap_or_default();
        if text.len() > PAGE_QUERY_BYTES_MAX {
            return Err(Fault::Malformed(format!("the query has over {PAGE_QUERY_BYTES_MAX} bytes")));
        }
        Self::parse(text.as_bytes())
    }

    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Fault> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Fault::Malformed("a form is application/x-www-form-urlencoded".to_owned()));
        }
        Self::parse(body)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let refused =
            || Fault::Malformed("a form is percent-encoded UTF-8, without control characters".to_owned());
        let mut fields = Vec::new();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = decoded(halves.next().unwrap_or_default()).ok_or_else(refused)?;
            let value = decoded(halves.next().unwrap_or_default()).ok_or_else(refused)?;
            fields.push((name, value));
            if fields.len() > FORM_FIELDS_MAX {
                return Err(Fault::Malformed(format!("a form has at most {FORM_FIELDS_MAX} fields")));
            }
        }
        Ok(Self(fields))
    }

    /// The first of a name, without space around it; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.trim())
    }

    /// All of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.trim())
    }

    /// All fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }
}

/// Lines end as on this system; other control characters are nobody's to type.
fn decoded(bytes: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        text.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            other => *other,
        });
    }
    let text = String::from_utf8(text).ok()?.replace("\r\n", "\n");
    let is_typed = |character: char| !character.is_control() || matches!(character, '\n' | '\t');
    text.chars().all(is_typed).then_some(text)
}

/// A text as a part of a query.
pub(super) fn encoded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')) {
        return text.into();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = Form::parse(b"a=1&b=x+%3C%3e%C3%BC%0D%0Ay&b=&c&=d&").unwrap();
        assert_eq!((form.text("a"), form.text("c"), form.text("none")), ("1", "", ""));
        assert_eq!(form.all("b").collect::<Vec<_>>(), ["x <>\u{fc}\ny", ""]);
        assert_eq!(Form::parse(encoded("q=x <\u{fc}&").as_bytes()).unwrap().0[0].0, "q=x <\u{fc}&");
    }

    #[test]
    fn what_no_browser_writes_is_refused() {
        let many = "a=1&".repeat(FORM_FIELDS_MAX + 1);
        for bytes in
            [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%ff", b"a=%00", b"a=%1b", b"\xff=1", many.as_bytes()]
        {
            assert!(Form::parse(bytes).is_err(), "{}", bytes.escape_ascii());
        }
        assert!(Form::of_query(Some(&"a".repeat(PAGE_QUERY_BYTES_MAX + 1))).is_err());
    }
}
