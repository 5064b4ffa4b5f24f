//! Values to seal: a JSON or YAML object of strings, a Kubernetes Secret, dotenv lines, or one file. What is wrong is
//! said by line and key, never by content.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::Value;
use zeroize::Zeroizing;

/// Longest input, bytes.
const BYTES_MAX: u64 = 4 << 20;

/// Values by key, and where they say they belong.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) by_key: Vec<(String, Zeroizing<Vec<u8>>)>,
}

/// Why an input is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the input has over {BYTES_MAX} bytes")]
    Length,
    #[error("the input is no {0}")]
    Format(&'static str),
    #[error("the input is no object of strings, and no Secret with stringData or data")]
    Shape,
    #[error("key {0}: is no text; quote it")]
    Text(String),
    #[error("key {0}: is no base64, as data of a Secret must be")]
    Base64(String),
    #[error("line {0}: give KEY=VALUE")]
    Line(usize),
    #[error("line {0}: a quote is not closed")]
    Quote(usize),
    #[error("key {0}: is there twice")]
    Twice(String),
    #[error("the input has no value")]
    Empty,
}

/// All of a file, or with `-` of the standard input.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let failed = |source| InputError::Io { path: path.to_owned(), source };
    let from: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(failed)?)
    };
    let mut bytes = Zeroizing::new(Vec::new());
    from.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(InputError::Length);
    }
    Ok(bytes)
}

/// A JSON object.
pub(crate) fn json(bytes: &[u8]) -> Result<Values, InputError> {
    object(serde_json::from_slice(bytes).map_err(|_| InputError::Format("JSON"))?)
}

/// A YAML mapping.
pub(crate) fn yaml(bytes: &[u8]) -> Result<Values, InputError> {
    let text = std::str::from_utf8(bytes).map_err(|_| InputError::Format("YAML"))?;
    object(serde_saphyr::from_str(text).map_err(|_| InputError::Format("YAML"))?)
}

/// Lines of `KEY=VALUE`, with comments, `export` and quotes as a shell reads them.
pub(crate) fn dotenv(bytes: &[u8]) -> Result<Values, InputError> {
    let text = std::str::from_utf8(bytes).map_err(|_| InputError::Format("text"))?;
    let mut values = Values::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (key, value) = line.split_once('=').ok_or(InputError::Line(index + 1))?;
        values.push(key.trim(), unquoted(value.trim(), index + 1)?)?;
    }
    values.checked()
}

impl Values {
    fn push(&mut self, key: &str, value: Zeroizing<Vec<u8>>) -> Result<(), InputError> {
        if self.by_key.iter().any(|(known, _)| known == key) {
            return Err(InputError::Twice(key.to_owned()));
        }
        self.by_key.push((key.to_owned(), value));
        Ok(())
    }

    fn checked(self) -> Result<Self, InputError> {
        if self.by_key.is_empty() { Err(InputError::Empty) } else { Ok(self) }
    }
}

fn object(value: Value) -> Result<Values, InputError> {
    let Value::Object(fields) = value else { return Err(InputError::Shape) };
    let mut values = Values::default();
    if fields.get("kind").and_then(Value::as_str) != Some("Secret") {
        for (key, value) in fields {
            values.push(&key, text(&key, value)?)?;
        }
        return values.checked();
    }
    let place = |field: &str| fields.get("metadata")?.get(field)?.as_str().map(str::to_owned);
    (values.namespace, values.name) = (place("namespace"), place("name"));
    let of = |field: &str| fields.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    for (key, value) in of("stringData") {
        values.push(&key, text(&key, value)?)?;
    }
    for (key, value) in of("data") {
        let decoded = BASE64_STANDARD.decode(text(&key, value)?.as_slice());
        values.push(&key, Zeroizing::new(decoded.map_err(|_| InputError::Base64(key.clone()))?))?;
    }
    values.checked()
}

fn text(key: &str, value: Value) -> Result<Zeroizing<Vec<u8>>, InputError> {
    match value {
        Value::String(text) => Ok(Zeroizing::new(text.into_bytes())),
        _ => Err(InputError::Text(key.to_owned())),
    }
}

fn unquoted(value: &str, line: usize) -> Result<Zeroizing<Vec<u8>>, InputError> {
    let inner = |quote: char| {
        let rest = value.strip_prefix(quote)?;
        Some(rest.strip_suffix(quote).ok_or(InputError::Quote(line)))
    };
    if let Some(literal) = inner('\'') {
        return Ok(Zeroizing::new(literal?.as_bytes().to_vec()));
    }
    let Some(quoted) = inner('"') else { return Ok(Zeroizing::new(value.as_bytes().to_vec())) };
    let mut text = Zeroizing::new(String::with_capacity(value.len()));
    let mut characters = quoted?.chars();
    while let Some(character) = characters.next() {
        text.push(match (character, character == '\\') {
            (_, true) => match characters.next().ok_or(InputError::Quote(line))? {
                'n' => '\n',
                other => other,
            },
            (plain, false) => plain,
        });
    }
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(values: &Values) -> Vec<(&str, &str)> {
        values.by_key.iter().map(|(key, value)| (&**key, std::str::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn each_format_gives_its_values() {
        assert_eq!(pairs(&json(br#"{"a":"1","b":"\u00e9"}"#).unwrap()), [("a", "1"), ("b", "é")]);
        assert_eq!(
            pairs(&yaml(b"a: '1'\nb: |\n  two\n  lines\n").unwrap()),
            [("a", "1"), ("b", "two\nlines\n")]
        );
        let lines = b"# note\n\nA=1\nexport B = two words \nC='$x \"y\"'\nD=\"a\\nb \\\"q\\\"\"\nE=a=b\n";
        assert_eq!(
            pairs(&dotenv(lines).unwrap()),
            [("A", "1"), ("B", "two words"), ("C", "$x \"y\""), ("D", "a\nb \"q\""), ("E", "a=b")]
        );
    }

    #[test]
    fn a_kubernetes_secret_gives_its_place() {
        let secret = b"kind: Secret\nmetadata: {name: webhooks, namespace: edge}\ndata: {a: MQ==}\nstringData: {b: two}\n";
        let values = yaml(secret).unwrap();
        assert_eq!((values.namespace.as_deref(), values.name.as_deref()), (Some("edge"), Some("webhooks")));
        assert_eq!(pairs(&values), [("b", "two"), ("a", "1")]);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for (result, error) in [
            (json(b"{"), "the input is no JSON"),
            (json(b"[\"swordfish\"]"), "the input is no object"),
            (json(br#"{"a":7}"#), "key a: is no text"),
            (json(b"{}"), "the input has no value"),
            (yaml(b"a: [swordfish"), "the input is no YAML"),
            (yaml(b"kind: Secret\ndata: {a: '%'}"), "key a: is no base64"),
            (yaml(b"kind: Secret\ndata: {a: MQ==}\nstringData: {a: x}"), "key a: is there twice"),
            (dotenv(b"A=1\nswordfish"), "line 2: give KEY=VALUE"),
            (dotenv(b"A='swordfish"), "line 1: a quote is not closed"),
            (dotenv(b"A=1\nA=2"), "key A: is there twice"),
            (dotenv(b"# \n"), "the input has no value"),
        ] {
            let found = result.err().unwrap().to_string();
            assert!(found.starts_with(error) && !found.contains("swordfish"), "{found}");
        }
    }
}
