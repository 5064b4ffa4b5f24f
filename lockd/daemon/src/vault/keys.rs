//! Keys: lockd's own age identities, and the recipients that others seal to.

use std::fmt::{self, Write};

use age::x25519;
use secrecy::ExposeSecret;
use zeroize::Zeroizing;

/// Most own keys at once: one in use, others until everything is sealed anew.
pub const IDENTITIES_MAX: usize = 8;
/// Most recipients of a file.
const RECIPIENTS_MAX: usize = 64;

/// lockd's own keys, the newest first; wiped when dropped.
#[derive(Clone)]
pub struct Identities(Vec<x25519::Identity>);

/// To whom a value is sealed.
#[derive(Clone, Debug)]
pub struct Recipients(Vec<x25519::Recipient>);

/// What is wrong with keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something in the file is no X25519 identity; never what it is.
    #[error("line {0} is neither an age identity (AGE-SECRET-KEY-1...) nor a comment")]
    Identity(usize),
    /// No key, or too many.
    #[error("{0} own keys; there must be 1 to {IDENTITIES_MAX}")]
    Count(usize),
    /// No X25519 recipient.
    #[error("\"{0}\" is no age recipient (age1...)")]
    Recipient(String),
    /// No recipient, or too many.
    #[error("{0} recipients; there must be 1 to {RECIPIENTS_MAX}")]
    Recipients(usize),
}

impl Identities {
    /// A new key.
    pub fn generate() -> Self {
        Self(vec![x25519::Identity::generate()])
    }

    /// Reads an age identity file: a key a line, `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = keys.map(|(index, line)| line.parse().map_err(|_| KeyError::Identity(index + 1)));
        let keys: Vec<x25519::Identity> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() || keys.len() > IDENTITIES_MAX {
            return Err(KeyError::Count(keys.len()));
        }
        Ok(Self(keys))
    }

    /// The text of a file that [`Identities::parse`] reads.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for key in &self.0 {
            let (public, secret) = (key.to_public(), key.to_string());
            writeln!(text, "# public key: {public}\n{}", secret.expose_secret())
                .expect("a String takes any text");
        }
        text
    }

    /// With a new key in front; refused if there are too many then.
    pub fn with_new(&self) -> Result<Self, KeyError> {
        if self.0.len() == IDENTITIES_MAX {
            return Err(KeyError::Count(IDENTITIES_MAX + 1));
        }
        let mut keys = vec![x25519::Identity::generate()];
        keys.extend(self.0.iter().cloned());
        Ok(Self(keys))
    }

    /// Without any but the newest.
    #[must_use]
    pub fn newest(&self) -> Self {
        Self(vec![self.0[0].clone()])
    }

    /// One set for each key, in the same order.
    pub fn each(&self) -> impl Iterator<Item = Self> {
        self.0.iter().map(|key| Self(vec![key.clone()]))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Their public keys, in the same order.
    pub fn recipients(&self) -> Vec<String> {
        self.0.iter().map(|key| key.to_public().to_string()).collect()
    }

    pub(super) fn for_age(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|key| key as &dyn age::Identity)
    }
}

impl Recipients {
    /// Reads recipients; the same one twice counts once.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let mut seen: Vec<String> = texts.into_iter().map(|text| text.trim().to_owned()).collect();
        seen.sort();
        seen.dedup();
        if seen.is_empty() || seen.len() > RECIPIENTS_MAX {
            return Err(KeyError::Recipients(seen.len()));
        }
        let keys = seen.into_iter().map(|text| text.parse().map_err(|_| KeyError::Recipient(text)));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// As they are written, sorted.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    pub(super) fn for_age(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0.iter().map(|key| key as &dyn age::Recipient)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.recipients()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_back() {
        let one = Identities::generate();
        let two = one.with_new().unwrap();
        let read = Identities::parse(&two.text()).unwrap();
        assert_eq!(read.recipients(), two.recipients());
        assert_eq!(read.recipients()[1], one.recipients()[0], "the newest is first");
        assert_eq!(read.newest().recipients(), two.recipients()[..1]);
        assert!(!format!("{read:?}").contains("SECRET"));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        assert_eq!(Identities::parse("# nothing\n").unwrap_err(), KeyError::Count(0));
        let error = Identities::parse("#\nAGE-SECRET-KEY-1XYZ").unwrap_err();
        assert_eq!(error, KeyError::Identity(2));
        assert!(!error.to_string().contains("XYZ"));
        let mut many = Identities::generate();
        for _ in 1..IDENTITIES_MAX {
            many = many.with_new().unwrap();
        }
        assert_eq!(many.with_new().unwrap_err(), KeyError::Count(IDENTITIES_MAX + 1));
        let doubled = format!("{}{}", *many.text(), *many.text());
        assert_eq!(Identities::parse(&doubled).unwrap_err(), KeyError::Count(2 * IDENTITIES_MAX));
    }

    #[test]
    fn recipients_are_a_set() {
        let [one, two] =
            [Identities::generate(), Identities::generate()].map(|key| key.recipients().remove(0));
        let both = Recipients::parse([&*one, &*two, &*one]).unwrap();
        assert_eq!(both.texts().len(), 2);
        assert_eq!(Recipients::parse([]).unwrap_err(), KeyError::Recipients(0));
        assert_eq!(Recipients::parse(["age1x"]).unwrap_err(), KeyError::Recipient("age1x".to_owned()));
    }
}
