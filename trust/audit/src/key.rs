//! Keys of notes: Ed25519 (RFC 8032), for the text itself or for a cosignature with its time (C2SP signed-note, tlog-cosignature).

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use zeroize::Zeroizing;

const PUBLIC_BYTES: usize = 32;
/// Longest name of a key, bytes.
const NAME_BYTES_MAX: usize = 255;

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureKind {
    /// The text of a note, as the log does.
    Note,
    /// A checkpoint with the time at which it was the newest, as witnesses do.
    Cosignature,
}

/// Whose signatures are looked for in a note: name, kind and public key. Written as `NAME+KEY ID+BASE64`.
#[derive(Clone, PartialEq, Eq)]
pub struct LogKey {
    name: String,
    kind: SignatureKind,
    public: [u8; PUBLIC_BYTES],
}

/// Who signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    key: LogKey,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of this form.
    #[error("a key is NAME+8 digits of hex+base64")]
    Form,
    /// The id is not that of name and key.
    #[error("the key's id does not belong to its name and key")]
    Id,
    /// Neither of the two kinds.
    #[error("the key is neither Ed25519 (1) nor a cosigner's Ed25519 (4)")]
    Kind,
}

impl SignatureKind {
    /// The assigned byte.
    fn byte(self) -> u8 {
        match self {
            Self::Note => 1,
            Self::Cosignature => 4,
        }
    }
}

impl LogKey {
    /// A key by its parts, if the name is one.
    pub fn new(name: &str, kind: SignatureKind, public: [u8; PUBLIC_BYTES]) -> Result<Self, KeyError> {
        if !is_key_name(name) {
            return Err(KeyError::Form);
        }
        Ok(Self { name: name.to_owned(), kind, public })
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(data)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        let is_id = id.len() == 8 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let data = BASE64_STANDARD.decode(data).map_err(|_| KeyError::Form)?;
        let (&kind, public) = data.split_first().ok_or(KeyError::Form)?;
        let kind = match kind {
            1 => SignatureKind::Note,
            4 => SignatureKind::Cosignature,
            _ => return Err(KeyError::Kind),
        };
        let key = Self::new(name, kind, public.try_into().map_err(|_| KeyError::Form)?)?;
        let is_own = is_id && u32::from_str_radix(id, 16).is_ok_and(|id| id == key.id());
        if is_own { Ok(key) } else { Err(KeyError::Id) }
    }

    /// Who it is.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    /// The first four bytes of a hash over name, kind and key; short, and no proof of anything.
    pub fn id(&self) -> u32 {
        let mut context = Context::new(&SHA256);
        context.update(self.name.as_bytes());
        context.update(&[b'\n', self.kind.byte()]);
        context.update(&self.public);
        let hash = context.finish();
        u32::from_be_bytes(hash.as_ref()[..4].try_into().expect("a hash has 32 bytes"))
    }

    /// Whether this key made `signature` over `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = ParsedPublicKey::new(&ED25519, self.public);
        key.is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }
}

impl fmt::Display for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = BASE64_STANDARD.encode([&[self.kind.byte()][..], &self.public].concat());
        write!(f, "{}+{:08x}+{data}", self.name, self.id())
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SigningKey {
    /// The key of a seed, under a name.
    pub fn new(name: &str, kind: SignatureKind, seed: &Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&**seed).expect("any 32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        Ok(Self { key: LogKey::new(name, kind, public)?, pair })
    }

    /// What its signatures are checked with.
    pub fn public(&self) -> &LogKey {
        &self.key
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.key).finish()
    }
}

/// Whether a text can be the name of a key: not empty, without spaces, plus signs and control characters.
pub fn is_key_name(text: &str) -> bool {
    let is_part = |character: char| !character.is_whitespace() && !character.is_control() && character != '+';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_part)
}
