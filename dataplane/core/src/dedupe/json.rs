//! One scalar of a JSON body (RFC 8259), found by a dotted path: an event's id where no header has one.
//!
//! The whole body is read once, without a tree: what is not JSON is refused even behind the value, and so
//! are a member that the path meets twice, lone surrogates, and nesting over [`JSON_DEPTH_MAX`].

use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use super::KeyError;
use crate::verify::SOURCE_ID_BYTES_MAX;

/// Steps of a path.
pub const JSON_STEPS_MAX: usize = 8;
/// Longest step, bytes.
pub const JSON_STEP_BYTES_MAX: usize = 64;
/// Deepest nesting of a body.
pub const JSON_DEPTH_MAX: usize = 64;

/// In front of a number or boolean: a text cannot begin with it, so `1` and `"1"` are two ids.
const LITERAL: u8 = 0;

/// Names of members, and indices of elements, from the outermost inwards: `data.items.0.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath(Vec<String>);

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path is 1 to {JSON_STEPS_MAX} names or indices of 1 to {JSON_STEP_BYTES_MAX} bytes, joined by dots"
)]
pub struct JsonPathError;

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, JsonPathError> {
        let steps: Vec<String> = text.split('.').map(String::from).collect();
        let fits = steps.len() <= JSON_STEPS_MAX
            && steps.iter().all(|step| (1..=JSON_STEP_BYTES_MAX).contains(&step.len()));
        if fits { Ok(Self(steps)) } else { Err(JsonPathError) }
    }
}

impl JsonPath {
    /// What `of` makes of the value at the path; nothing if it is not there, or null.
    pub fn value<T>(&self, body: &[u8], of: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, KeyError> {
        let mut id = JsonId::new();
        let found = self.read(body, &mut id)?;
        Ok(found.then(|| of(id.as_bytes())))
    }

    /// Reads the value at the path into `id`; false if it is not there, or null.
    fn read(&self, body: &[u8], id: &mut JsonId) -> Result<bool, KeyError> {
        let text = core::str::from_utf8(body).map_err(|_| KeyError::NotJson)?;
        id.bytes = 0;
        let mut reader = Reader { rest: text.as_bytes(), id };
        reader.value(Some(&self.0), 0)?;
        reader.skip_space();
        if reader.rest.is_empty() { Ok(id.bytes > 0) } else { Err(KeyError::NotJson) }
    }
}

/// The id that was found; a text as it is after its escapes, anything else as it was written.
struct JsonId {
    buffer: [u8; SOURCE_ID_BYTES_MAX + 1],
    bytes: usize,
}

impl JsonId {
    fn new() -> Self {
        Self { buffer: [0; SOURCE_ID_BYTES_MAX + 1], bytes: 0 }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.bytes]
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), KeyError> {
        let end = self.bytes + piece.len();
        self.buffer.get_mut(self.bytes..end).ok_or(KeyError::Malformed)?.copy_from_slice(piece);
        self.bytes = end;
        Ok(())
    }
}

/// What is left to read, and where the value goes.
struct Reader<'a, 'i> {
    rest: &'a [u8],
    id: &'i mut JsonId,
}

impl Reader<'_, '_> {
    /// One value; `steps` lead on from it, and none of them are left when it is the one that is wanted.
    fn value(&mut self, steps: Option<&[String]>, depth: usize) -> Result<(), KeyError> {
        let is_wanted = steps.is_some_and(<[String]>::is_empty);
        self.skip_space();
        match self.rest.first().ok_or(KeyError::NotJson)? {
            b'{' | b'[' if is_wanted => Err(KeyError::Malformed),
            b'{' | b'[' if depth == JSON_DEPTH_MAX => Err(KeyError::NotJson),
            b'{' => self.object(steps, depth + 1),
            b'[' => self.array(steps, depth + 1),
            b'"' if is_wanted => self.wanted_text(),
            b'"' => self.text(|_| Ok(())),
            b'n' => self.literal(b"null"),
            _ => {
                let before = self.rest;
                match before[0] {
                    b't' => self.literal(b"true"),
                    b'f' => self.literal(b"false"),
                    _ => self.number(),
                }?;
                if is_wanted {
                    self.wanted_literal(&before[..before.len() - self.rest.len()])
                } else {
                    Ok(())
                }
            }
        }
    }

    fn object(&mut self, steps: Option<&[String]>, depth: usize) -> Result<(), KeyError> {
        self.literal(b"{")?;
        let (mut met, mut is_first) = (false, true);
        loop {
            self.skip_space();
            if is_first && self.take(b'}') {
                return Ok(());
            }
            is_first = false;
            let inner = match self.name(steps.map(|steps| steps[0].as_str()))? {
                true if met => return Err(KeyError::Doubled),
                true => steps.map(|steps| &steps[1..]),
                false => None,
            };
            met |= inner.is_some();
            self.skip_space();
            self.literal(b":")?;
            self.value(inner, depth)?;
            self.skip_space();
            if self.take(b'}') {
                return Ok(());
            }
            self.literal(b",")?;
        }
    }

    fn array(&mut self, steps: Option<&[String]>, depth: usize) -> Result<(), KeyError> {
        self.literal(b"[")?;
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        let wanted = steps.and_then(|steps| steps[0].parse::<usize>().ok());
        for index in 0_usize.. {
            let inner = if wanted == Some(index) { steps.map(|steps| &steps[1..]) } else { None };
            self.value(inner, depth)?;
            self.skip_space();
            if self.take(b']') {
                break;
            }
            self.literal(b",")?;
        }
        Ok(())
    }

    /// A member's name: whether it is `wanted`.
    fn name(&mut self, wanted: Option<&str>) -> Result<bool, KeyError> {
        let mut left = wanted.map(str::as_bytes);
        self.text(|piece| {
            left = left.and_then(|left| left.strip_prefix(piece));
            Ok(())
        })?;
        Ok(left.is_some_and(<[u8]>::is_empty))
    }

    fn wanted_text(&mut self) -> Result<(), KeyError> {
        let mut found = JsonId::new();
        self.text(|piece| if has_control(piece) { Err(KeyError::Malformed) } else { found.push(piece) })?;
        if !(1..=SOURCE_ID_BYTES_MAX).contains(&found.bytes) {
            return Err(KeyError::Malformed);
        }
        self.id.push(found.as_bytes())
    }

    fn wanted_literal(&mut self, written: &[u8]) -> Result<(), KeyError> {
        self.id.push(&[LITERAL])?;
        self.id.push(written)
    }

    /// A string; `each` gets its bytes in pieces, escapes resolved.
    fn text(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), KeyError>) -> Result<(), KeyError> {
        self.literal(b"\"")?;
        loop {
            let end = self.rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20));
            let (piece, rest) = self.rest.split_at(end.ok_or(KeyError::NotJson)?);
            self.rest = rest;
            if !piece.is_empty() {
                each(piece)?;
            }
            if self.take(b'"') {
                return Ok(());
            }
            each(self.escape()?.encode_utf8(&mut [0; 4]).as_bytes())?;
        }
    }

    fn escape(&mut self) -> Result<char, KeyError> {
        let (head, rest) = self.rest.split_first_chunk::<2>().ok_or(KeyError::NotJson)?;
        self.rest = rest;
        Ok(match head {
            [b'\\', byte @ (b'"' | b'\\' | b'/')] => char::from(*byte),
            b"\\b" => '\u{8}',
            b"\\f" => '\u{c}',
            b"\\n" => '\n',
            b"\\r" => '\r',
            b"\\t" => '\t',
            b"\\u" => return self.unicode(),
            _ => return Err(KeyError::NotJson),
        })
    }

    fn unicode(&mut self) -> Result<char, KeyError> {
        let unit = self.hex()?;
        if !(0xd800..0xdc00).contains(&unit) {
            return char::from_u32(unit).ok_or(KeyError::NotJson);
        }
        self.literal(b"\\u")?;
        let low = self.hex()?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(KeyError::NotJson);
        }
        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).ok_or(KeyError::NotJson)
    }

    fn hex(&mut self) -> Result<u32, KeyError> {
        let (digits, rest) = self.rest.split_first_chunk::<4>().ok_or(KeyError::NotJson)?;
        self.rest = rest;
        digits.iter().try_fold(0, |value, &digit| {
            Ok(value << 4 | char::from(digit).to_digit(16).ok_or(KeyError::NotJson)?)
        })
    }

    /// RFC 8259 section 6.
    fn number(&mut self) -> Result<(), KeyError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), KeyError> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.rest.len());
        self.rest = &self.rest[end..];
        if end == 0 { Err(KeyError::NotJson) } else { Ok(()) }
    }

    fn skip_space(&mut self) {
        let end = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
    }

    fn take(&mut self, byte: u8) -> bool {
        let Some(rest) = self.rest.strip_prefix(&[byte]) else { return false };
        self.rest = rest;
        true
    }

    fn literal(&mut self, text: &[u8]) -> Result<(), KeyError> {
        self.rest = self.rest.strip_prefix(text).ok_or(KeyError::NotJson)?;
        Ok(())
    }
}

fn has_control(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_control)
}

/// Any bytes are read or refused; a value that is found is found again behind white space, and not in a prefix.
#[doc(hidden)]
pub fn fuzz_json(data: &[u8]) {
    let paths = ["id", "data.id", "0", "a.0.b"].map(|path| path.parse::<JsonPath>().expect("a path"));
    for path in &paths {
        let mut id = JsonId::new();
        let Ok(true) = path.read(data, &mut id) else { continue };
        assert!((1..=SOURCE_ID_BYTES_MAX + 1).contains(&id.bytes));
        assert!(id.bytes > 1 || id.buffer[0] != LITERAL);
        let (mut again, spaced) = (JsonId::new(), [b" \n", data, b"\t"].concat());
        assert_eq!(path.read(&spaced, &mut again), Ok(true));
        assert_eq!(again.as_bytes(), id.as_bytes());
        let end = data.trim_ascii_end().len() - 1;
        assert_eq!(path.read(&data[..end], &mut again).err(), Some(KeyError::NotJson));
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    fn find(path: &str, body: &str) -> Result<Option<Vec<u8>>, KeyError> {
        let mut id = JsonId::new();
        let found = path.parse::<JsonPath>().unwrap().read(body.as_bytes(), &mut id)?;
        Ok(found.then(|| id.as_bytes().to_vec()))
    }

    #[test]
    fn a_scalar_is_found_where_the_path_leads() {
        for (path, body, expected) in [
            ("id", r#"{"id":"evt_1"}"#, &b"evt_1"[..]),
            (
                "id",
                " {\"a\": [1, {\"id\": 2}] ,\r\n\"id\" : \"x\\u0041\\ud83d\\ude00\\/\"}\t",
                "xA😀/".as_bytes(),
            ),
            ("data.id", r#"{"id":1,"data":{"x":null,"id":-1.5e+3}}"#, b"\0-1.5e+3"),
            ("data.1.ok", r#"{"data":[{"ok":1},{"ok":true},{"ok":false}]}"#, b"\0true"),
            ("d", r#"{"\u0064":"escaped name"}"#, b"escaped name"),
            ("0", r#"{"0":"a name of digits"}"#, b"a name of digits"),
            ("ä", r#"{"ä":"ü"}"#, "ü".as_bytes()),
        ] {
            assert_eq!(find(path, body), Ok(Some(expected.to_vec())), "{path} in {body}");
        }
    }

    #[test]
    fn what_is_not_there_is_no_id() {
        for body in
            [r#"{"id":null}"#, "{}", "[]", "1", r#""id""#, r#"{"a":{"id":1}}"#, r#"{"ID":1,"i":2,"idd":3}"#]
        {
            assert_eq!(find("id", body), Ok(None), "{body}");
        }
        assert_eq!(find("a.b", r#"{"a":1}"#), Ok(None));
        assert_eq!(find("a.01", r#"{"a":[1,2]}"#), Ok(Some(b"\x002".to_vec())));
    }

    #[test]
    fn what_is_ambiguous_or_no_id_is_refused() {
        let long = "x".repeat(SOURCE_ID_BYTES_MAX + 1);
        for (body, error) in [
            (r#"{"id":1,"id":1}"#, KeyError::Doubled),
            (r#"{"id":1,"\u0069d":2}"#, KeyError::Doubled),
            (r#"{"id":null,"id":2}"#, KeyError::Doubled),
            (r#"{"id":{}}"#, KeyError::Malformed),
            (r#"{"id":[1]}"#, KeyError::Malformed),
            (r#"{"id":""}"#, KeyError::Malformed),
            (r#"{"id":"a\n"}"#, KeyError::Malformed),
            (&*format!(r#"{{"id":"{long}"}}"#), KeyError::Malformed),
            (&*format!(r#"{{"id":{}}}"#, "1".repeat(SOURCE_ID_BYTES_MAX + 1)), KeyError::Malformed),
        ] {
            assert_eq!(find("id", body), Err(error), "{body}");
        }
        let longest = "x".repeat(SOURCE_ID_BYTES_MAX);
        assert_eq!(find("id", &format!(r#"{{"id":"{longest}"}}"#)), Ok(Some(longest.into_bytes())));
    }

    #[test]
    fn what_is_not_json_is_refused_wherever_it_is() {
        for body in [
            "",
            " ",
            "{",
            "{\"id\":1",
            "{\"id\":1}x",
            "{\"id\":1,}",
            "{id:1}",
            "{\"id\":01}",
            "{\"id\":1.}",
            "{\"id\":.5}",
            "{\"id\":+1}",
            "{\"id\":1e}",
            "{\"id\":tru}",
            "{\"id\":\"\t\"}",
            "{\"id\":\"\\x\"}",
            "{\"id\":\"\\ud800\"}",
            "{\"id\":\"\\udc00\"}",
            "{\"id\":\"\\ud800\\u0041\"}",
            "{\"id\":\"a}",
            "{\"id\":1 \"b\":2}",
            "[1,]",
            "[1 2]",
            "{\"id\":NaN}",
            "{'id':1}",
            "\u{feff}{\"id\":1}",
            "{\"id\":1}{\"id\":1}",
            "{\"id\"}",
            "-",
        ] {
            assert_eq!(find("id", body), Err(KeyError::NotJson), "{body}");
        }
        let path: JsonPath = "id".parse().unwrap();
        assert_eq!(path.read(b"{\"id\":\"\xff\"}", &mut JsonId::new()), Err(KeyError::NotJson));
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(find("id", &nested(JSON_DEPTH_MAX)), Ok(None));
        assert_eq!(find("id", &nested(JSON_DEPTH_MAX + 1)), Err(KeyError::NotJson));
    }

    #[test]
    fn paths_are_bounded() {
        for bad in ["", ".", "a..b", "a.", "1.2.3.4.5.6.7.8.9", &"x".repeat(JSON_STEP_BYTES_MAX + 1)] {
            assert_eq!(bad.parse::<JsonPath>(), Err(JsonPathError), "{bad}");
        }
        assert!("1.2.3.4.5.6.7.8".parse::<JsonPath>().is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "[\\[\\]{}:,\"\\\\ 0-9a.eud-]{0,40}",
            value in "(\"[a-z\\\\\"u0-9]{0,8}\"|-?[0-9]{1,3}(\\.[0-9]{1,2})?|true|null|\\[\\]|\\{\\})",
        ) {
            fuzz_json(text.as_bytes());
            fuzz_json(format!("{{\"data\":{{\"id\":{value}}},\"id\":{value},\"a\":[{{\"b\":{value}}}]}}").as_bytes());
        }
    }
}
