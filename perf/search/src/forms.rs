//! The forms in which a value may lie somewhere, and what each looks like.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Byte for byte.
    AsItIs,
    /// Inside of anything in base64, so at each of three alignments.
    Base64,
    /// As [`Self::Base64`], in the alphabet for URLs.
    Base64Url,
    /// In lower or upper case.
    Hex,
    /// With those of its characters escaped that encoders of JSON differ on, or all.
    JsonEscapes,
    /// As decimal numbers, as byte arrays are printed.
    Numbers,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::AsItIs, Self::Base64, Self::Base64Url, Self::Hex, Self::JsonEscapes, Self::Numbers];

    /// What a complaint calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::AsItIs => "as it is",
            Self::Base64 => "base64",
            Self::Base64Url => "base64 for URLs",
            Self::Hex => "hex",
            Self::JsonEscapes => "JSON escapes",
            Self::Numbers => "a list of numbers",
        }
    }

    /// What a value may look like in this form.
    pub fn spellings(self, value: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Self::AsItIs => vec![value.to_vec()],
            Self::Base64 => aligned(value, &STANDARD_NO_PAD),
            Self::Base64Url => aligned(value, &URL_SAFE_NO_PAD),
            Self::Hex => vec![
                each(value, |text, byte| write!(text, "{byte:02x}")),
                each(value, |text, byte| write!(text, "{byte:02X}")),
            ],
            Self::JsonEscapes => json_escapes(value),
            Self::Numbers => [",", ", "]
                .map(|comma| value.iter().map(u8::to_string).collect::<Vec<_>>().join(comma).into_bytes())
                .into(),
        }
    }
}

/// The characters that the value alone decides, with none, one and two bytes in front of it.
fn aligned(value: &[u8], alphabet: &GeneralPurpose) -> Vec<Vec<u8>> {
    (0..3)
        .map(|before| {
            let encoded = alphabet.encode([&[0; 2][..before], value].concat());
            let (first, end) = ((before * 8).div_ceil(6), (before + value.len()) * 8 / 6);
            encoded.as_bytes()[first..end].to_vec()
        })
        .collect()
}

/// Encoders differ on `+`, `/` and `=`, the only characters of our texts that any of them escapes.
fn json_escapes(value: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = vec![
        each(value, |text, byte| write!(text, "\\u{byte:04x}")),
        each(value, |text, byte| write!(text, "\\u{byte:04X}")),
    ];
    let Ok(text) = str::from_utf8(value) else {
        return spellings;
    };
    for plus in ["+", "\\u002b", "\\u002B"] {
        for slash in ["/", "\\/", "\\u002f", "\\u002F"] {
            for equals in ["=", "\\u003d", "\\u003D"] {
                let escaped = text.replace('+', plus).replace('/', slash).replace('=', equals);
                spellings.push(escaped.into_bytes());
            }
        }
    }
    spellings
}

fn each(value: &[u8], write: impl Fn(&mut String, u8) -> std::fmt::Result) -> Vec<u8> {
    let mut text = String::new();
    for byte in value {
        write(&mut text, *byte).expect("a String takes any text");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(form: Form, value: &[u8]) -> Vec<String> {
        form.spellings(value).into_iter().map(|text| String::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn spellings_are_as_others_write_them() {
        assert_eq!(spelled(Form::Hex, b"\x0a\xff"), ["0aff", "0AFF"]);
        assert_eq!(spelled(Form::Numbers, b"\x00\xff"), ["0,255", "0, 255"]);
        // Base64 of "secret", "asecret" and "absecret", without what the neighbours decide.
        assert_eq!(spelled(Form::Base64, b"secret"), ["c2VjcmV0", "NlY3Jld", "zZWNyZX"]);
        assert_eq!(spelled(Form::Base64Url, b"\xfb\xff\xbf")[0], "-_-_");
        let escaped = spelled(Form::JsonEscapes, b"a/+=");
        for known in ["a\\/+=", "a/\\u002B=", "a/+\\u003d", "a\\/\\u002b\\u003d"] {
            assert!(escaped.iter().any(|text| text == known), "{known}");
        }
        assert_eq!(escaped[0], "\\u0061\\u002f\\u002b\\u003d");
    }
}
