//! What is inside a sealed file: a JSON object that names the value's place, so that ciphertext cannot be moved.
//!
//! `{"version":1,"namespace":…,"name":…,"key":…,"scope":"strict","value":BASE64}`, with `recipients`, `author` and
//! `signature` where they are known. Anybody can make one with `age` and a text editor.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde::{Deserialize, Serialize};
use zen_lock::{NameError, SecretName, VALUE_BYTES_MAX};
use zeroize::Zeroizing;

use super::author::{Author, AuthorError, AuthorKey};

/// Most bytes of an envelope: a value in base64, its name, and 64 recipients.
pub const ENVELOPE_BYTES_MAX: usize = VALUE_BYTES_MAX / 3 * 4 + 16 * 1024;
const VERSION: u64 = 1;
const SIGNED_AS: &[u8] = b"zen-lockd envelope 1\0";

/// How far a sealed value may be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Nowhere: namespace, name and key are those it was sealed for.
    #[default]
    Strict,
    /// Under any name of its namespace.
    Namespace,
    /// Anywhere.
    Cluster,
}

/// A value with its place.
pub struct Envelope {
    /// Where it was sealed for.
    pub name: SecretName,
    /// Where it may be.
    pub scope: Scope,
    /// To whom it was sealed, as its maker said; empty if that is not known.
    pub recipients: Vec<String>,
    /// Who signed it; the signature has been verified.
    pub author: Option<Author>,
    /// The signature of its author, Ed25519.
    signature: Vec<u8>,
    /// The secret.
    pub value: Zeroizing<Vec<u8>>,
}

/// Why an envelope is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Too long for any value that is allowed.
    #[error("the envelope has over {ENVELOPE_BYTES_MAX} bytes")]
    Length,
    /// Not the object that it should be; the parser's position only, never the text.
    #[error("the plaintext is no envelope (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// Made by a newer lockd.
    #[error("the envelope has version {0}, this lockd knows version {VERSION}")]
    Version(u64),
    /// Its name is none.
    #[error("the envelope's name: {0}")]
    Name(#[from] NameError),
    /// The value is no base64, or too long.
    #[error("the envelope's value is not base64 of 1 to {VALUE_BYTES_MAX} bytes")]
    Value,
    /// Signed, and the signature does not hold.
    #[error("the envelope's signature: {0}")]
    Author(#[from] AuthorError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u64,
    namespace: String,
    name: String,
    key: String,
    #[serde(default)]
    scope: Scope,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    value: Zeroizing<String>,
}

/// Read first: what else there is depends on it.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl Envelope {
    /// An envelope for a value; refused if the value is empty or too long.
    pub fn new(name: SecretName, scope: Scope, value: Zeroizing<Vec<u8>>) -> Result<Self, EnvelopeError> {
        if value.is_empty() || value.len() > VALUE_BYTES_MAX {
            return Err(EnvelopeError::Value);
        }
        Ok(Self { name, scope, recipients: Vec::new(), author: None, signature: Vec::new(), value })
    }

    /// Signs place and value; recipients are not signed, since they change without the author.
    pub fn sign(&mut self, key: &AuthorKey) {
        self.author = Some(key.author());
        self.signature = key.sign(&self.signed());
    }

    /// The JSON text.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let written = Written {
            version: VERSION,
            namespace: self.name.namespace().to_owned(),
            name: self.name.name().to_owned(),
            key: self.name.key().to_owned(),
            scope: self.scope,
            recipients: self.recipients.clone(),
            author: self.author.as_ref().map(ToString::to_string),
            signature: self.author.as_ref().map(|_| base64(&self.signature)),
            value: Zeroizing::new(base64(&self.value)),
        };
        Zeroizing::new(serde_json::to_vec(&written).expect("names, numbers and base64 are JSON"))
    }

    /// Reads the text; a signature that does not hold is refused whatever policy says.
    pub fn decode(text: &[u8]) -> Result<Self, EnvelopeError> {
        if text.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::Length);
        }
        let Versioned { version } = serde_json::from_slice(text).map_err(malformed)?;
        if version != VERSION {
            return Err(EnvelopeError::Version(version));
        }
        let written: Written = serde_json::from_slice(text).map_err(malformed)?;
        let value = BASE64_STANDARD.decode(&*written.value).map(Zeroizing::new);
        let name = SecretName::new(&written.namespace, &written.name, &written.key)?;
        let mut envelope = Self::new(name, written.scope, value.map_err(|_| EnvelopeError::Value)?)?;
        envelope.recipients = written.recipients;
        match (written.author, written.signature) {
            (None, None) => {}
            (Some(author), Some(signature)) => envelope.verify(&author, &signature)?,
            _ => return Err(AuthorError::Incomplete.into()),
        }
        Ok(envelope)
    }

    /// Whether the value may be at `place`.
    pub fn allows(&self, place: &SecretName) -> bool {
        match self.scope {
            Scope::Strict => self.name == *place,
            Scope::Namespace => self.name.namespace() == place.namespace(),
            Scope::Cluster => true,
        }
    }

    fn verify(&mut self, author: &str, signature: &str) -> Result<(), EnvelopeError> {
        let author: Author = author.parse()?;
        let signature = BASE64_STANDARD.decode(signature).map_err(|_| AuthorError::Signature)?;
        author.verify(&self.signed(), &signature)?;
        (self.author, self.signature) = (Some(author), signature);
        Ok(())
    }

    /// What an author signs: each part with its length in front, so that no two envelopes have the same.
    fn signed(&self) -> Zeroizing<Vec<u8>> {
        let scope: &[u8] = match self.scope {
            Scope::Strict => b"strict",
            Scope::Namespace => b"namespace",
            Scope::Cluster => b"cluster",
        };
        let parts = [
            self.name.namespace().as_bytes(),
            self.name.name().as_bytes(),
            self.name.key().as_bytes(),
            scope,
            &self.value,
        ];
        let length = SIGNED_AS.len() + parts.iter().map(|part| 4 + part.len()).sum::<usize>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend(SIGNED_AS);
        for part in parts {
            bytes.extend((part.len() as u32).to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("author", &self.author)
            .finish_non_exhaustive()
    }
}

fn malformed(error: serde_json::Error) -> EnvelopeError {
    EnvelopeError::Malformed { line: error.line(), column: error.column() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(scope: Scope) -> Envelope {
        let name = SecretName::parse("edge/webhooks/github").unwrap();
        Envelope::new(name, scope, Zeroizing::new(b"swordfish".to_vec())).unwrap()
    }

    #[test]
    fn the_text_is_as_documented() {
        let text = r#"{"version":1,"namespace":"edge","name":"webhooks","key":"github","scope":"strict","value":"c3dvcmRmaXNo"}"#;
        assert_eq!(envelope(Scope::Strict).encode().as_slice(), text.as_bytes());
        let read = Envelope::decode(text.as_bytes()).unwrap();
        assert_eq!(
            (read.name.as_str(), read.scope, read.value.as_slice()),
            ("edge/webhooks/github", Scope::Strict, &b"swordfish"[..])
        );
        let short =
            r#"{"value":"c3dvcmRmaXNo","key":"github","name":"webhooks","namespace":"edge","version":1}"#;
        assert_eq!(
            Envelope::decode(short.as_bytes()).unwrap().scope,
            Scope::Strict,
            "the strictest, if none is given"
        );
    }

    #[test]
    fn a_scope_says_where_a_value_may_be() {
        let places =
            ["edge/webhooks/github", "edge/webhooks/gitlab", "edge/other/github", "core/webhooks/github"];
        let places = places.map(|place| SecretName::parse(place).unwrap());
        for (scope, allowed) in [(Scope::Strict, 1), (Scope::Namespace, 3), (Scope::Cluster, 4)] {
            for (index, place) in places.iter().enumerate() {
                assert_eq!(envelope(scope).allows(place), index < allowed, "{scope:?} {place}");
            }
        }
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let fields = r#""namespace":"a","name":"b","key":"c","value":"YQ==""#;
        let with = |more: &str| format!("{{{fields},{more}}}");
        let long = format!("{{\"version\":1,\"value\":\"{}\"}}", "A".repeat(ENVELOPE_BYTES_MAX));
        let malformed = || EnvelopeError::Malformed { line: 1, column: 0 };
        for (text, error) in [
            (String::new(), malformed()),
            ("[]".to_owned(), malformed()),
            (format!("{{{fields}}}"), malformed()),
            (with("\"version\":2,\"new\":1"), EnvelopeError::Version(2)),
            (with("\"version\":1,\"new\":1"), malformed()),
            (with("\"version\":1,\"key\":\"d\""), malformed()),
            (with("\"version\":1") + " more", malformed()),
            (with("\"version\":1,\"scope\":\"world\""), malformed()),
            (with("\"version\":1").replace("\"b\"", "\"..\""), NameError::Segment.into()),
            (with("\"version\":1").replace("YQ==", "YQ"), EnvelopeError::Value),
            (with("\"version\":1").replace("YQ==", ""), EnvelopeError::Value),
            (with("\"version\":1,\"author\":\"AAAA\""), AuthorError::Incomplete.into()),
            (with("\"version\":1,\"signature\":\"AAAA\""), AuthorError::Incomplete.into()),
            (long, EnvelopeError::Length),
        ] {
            let found = match Envelope::decode(text.as_bytes()).unwrap_err() {
                EnvelopeError::Malformed { .. } => malformed(),
                other => other,
            };
            assert_eq!(found, error, "{text:.200}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_place_and_value_only() {
        let key = AuthorKey::generate();
        let mut signed = envelope(Scope::Strict);
        signed.sign(&key);
        signed.recipients = vec!["age1recipients-are-not-signed".to_owned()];
        let text = String::from_utf8(signed.encode().to_vec()).unwrap();
        assert_eq!(Envelope::decode(text.as_bytes()).unwrap().author, Some(key.author()));
        for (from, to) in [
            ("\"edge\"", "\"core\""),
            ("\"webhooks\"", "\"other\""),
            ("\"github\"", "\"gitlab\""),
            ("strict", "cluster"),
            ("c3dvcmRmaXNo", "c3dvcmRmaXNp"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert_eq!(Envelope::decode(changed.as_bytes()).unwrap_err(), AuthorError::Signature.into());
        }
        let author = key.author().to_string();
        let other = AuthorKey::generate().author().to_string();
        assert_eq!(
            Envelope::decode(text.replace(&author, &other).as_bytes()).unwrap_err(),
            AuthorError::Signature.into()
        );
    }

    #[test]
    fn a_value_is_bounded_and_not_shown() {
        let name = SecretName::parse("a/b/c").unwrap();
        let of = |length| Envelope::new(name.clone(), Scope::Strict, Zeroizing::new(vec![b'x'; length]));
        assert_eq!(of(0).unwrap_err(), EnvelopeError::Value);
        assert_eq!(of(VALUE_BYTES_MAX + 1).unwrap_err(), EnvelopeError::Value);
        let longest = of(VALUE_BYTES_MAX).unwrap();
        assert_eq!(Envelope::decode(&longest.encode()).unwrap().value.len(), VALUE_BYTES_MAX);
        assert!(!format!("{longest:?}").contains("xx"));
    }
}
