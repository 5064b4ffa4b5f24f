//! Names of secrets: `NAMESPACE/NAME/KEY`, as a Kubernetes Secret has them.

use std::fmt;
use std::str::FromStr;

/// Most bytes of each of the three parts, as of a Kubernetes object or key.
pub const SEGMENT_BYTES_MAX: usize = 253;
/// Most bytes of a whole name.
pub const NAME_BYTES_MAX: usize = 3 * SEGMENT_BYTES_MAX + 2;

/// The name of one secret; no part of it can leave its directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName {
    text: String,
    name_at: usize,
    key_at: usize,
}

/// Why a text is no name of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not three parts.
    #[error("a secret's name has three parts: NAMESPACE/NAME/KEY")]
    Parts,
    /// A part that is empty, too long, begins with a dot, or has other characters.
    #[error("each part of a secret's name is 1 to 253 of A-Z a-z 0-9 . _ - and does not begin with a dot")]
    Segment,
}

impl SecretName {
    /// Reads `NAMESPACE/NAME/KEY`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        let (Some(namespace), Some(name), Some(key), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NameError::Parts);
        };
        Self::new(namespace, name, key)
    }

    /// A name of its parts.
    pub fn new(namespace: &str, name: &str, key: &str) -> Result<Self, NameError> {
        if ![namespace, name, key].into_iter().all(is_segment) {
            return Err(NameError::Segment);
        }
        let name_at = namespace.len() + 1;
        let key_at = name_at + name.len() + 1;
        Ok(Self { text: format!("{namespace}/{name}/{key}"), name_at, key_at })
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose it is.
    pub fn namespace(&self) -> &str {
        &self.text[..self.name_at - 1]
    }

    /// The object.
    pub fn name(&self) -> &str {
        &self.text[self.name_at..self.key_at - 1]
    }

    /// The entry of the object.
    pub fn key(&self) -> &str {
        &self.text[self.key_at..]
    }

    /// Whether a text may be one of the three parts.
    pub fn is_segment(text: &str) -> bool {
        is_segment(text)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SecretName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

fn is_segment(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=SEGMENT_BYTES_MAX).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_three_parts() {
        let name = SecretName::parse("edge/webhooks/github.com_1-A").unwrap();
        assert_eq!((name.namespace(), name.name(), name.key()), ("edge", "webhooks", "github.com_1-A"));
        assert_eq!(name.to_string(), "edge/webhooks/github.com_1-A");
        assert_eq!(SecretName::new("edge", "webhooks", "github.com_1-A"), Ok(name));
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        let long = "a".repeat(SEGMENT_BYTES_MAX + 1);
        for (text, error) in [
            ("", NameError::Parts),
            ("a/b", NameError::Parts),
            ("a/b/c/d", NameError::Parts),
            ("a/b/", NameError::Segment),
            ("/b/c", NameError::Segment),
            ("a//c", NameError::Segment),
            ("../b/c", NameError::Segment),
            ("a/./c", NameError::Segment),
            ("a/b/.hidden", NameError::Segment),
            ("a/b/c\0", NameError::Segment),
            ("a/b/ü", NameError::Segment),
            ("a/b/c d", NameError::Segment),
            ("a\\b/b/c", NameError::Segment),
            (&format!("a/b/{long}"), NameError::Segment),
        ] {
            assert_eq!(SecretName::parse(text), Err(error), "{text:?}");
        }
        let longest = &long[1..];
        assert_eq!(
            SecretName::parse(&format!("{longest}/{longest}/{longest}")).unwrap().as_str().len(),
            NAME_BYTES_MAX
        );
    }
}
