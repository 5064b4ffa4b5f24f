//! A sealed file becomes its value, if it is ours to open and belongs where it was found.

use std::io::Read;

use age::armor::ArmoredReader;
use age::{DecryptError, Decryptor};
use zen_lock::SecretName;
use zeroize::Zeroizing;

use super::author::Author;
use super::envelope::{ENVELOPE_BYTES_MAX, Envelope, EnvelopeError, Scope};
use super::keys::Identities;
use crate::memory::wipe_stack;

/// Most bytes of a sealed file: an envelope, armored, with a header for 64 recipients.
pub const SEALED_BYTES_MAX: usize = 2 * ENVELOPE_BYTES_MAX;

/// How age files begin, and how those do that we read.
const MAGIC: &[u8] = b"age-encryption.org/";
const MAGIC_OF_OURS: &[u8] = b"age-encryption.org/v1\n";

/// What an opening demands of the envelope.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Where the file was found.
    pub place: &'a SecretName,
    /// Who may have sealed it: each list must hold its author.
    pub authors: &'a [&'a [Author]],
}

/// An opened file.
#[derive(Debug)]
pub struct Opened {
    /// What was in it.
    pub envelope: Envelope,
}

/// Why a sealed file stays shut. No variant holds anything of the plaintext.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Longer than any that is allowed.
    #[error("it has over {SEALED_BYTES_MAX} bytes")]
    Length,
    /// Not an age file, or one whose header is damaged.
    #[error("it is no age file, or its header is damaged")]
    Header,
    /// A version of the format that is not known.
    #[error("it is an age file of an unknown version")]
    Version,
    /// Sealed with a passphrase.
    #[error("it is sealed with a passphrase, not to a key")]
    Passphrase,
    /// Sealed to others.
    #[error("it is sealed to other keys")]
    OtherKeys,
    /// Header or payload were changed, or the end is missing.
    #[error("it is damaged or cut off")]
    Damaged,
    /// Opened, and what was in it is no envelope.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// Opened, and it belongs elsewhere.
    #[error("it was sealed for {sealed_for} (scope {scope:?}), not for this place")]
    Elsewhere {
        /// Where it belongs.
        sealed_for: SecretName,
        /// How far it may go.
        scope: Scope,
    },
    /// Policy demands a signature and there is none.
    #[error("it is not signed, and policy demands who sealed it")]
    Unsigned,
    /// Signed by somebody whom policy does not name.
    #[error("its author {0} is not one whom policy names")]
    OtherAuthor(Author),
}

/// Opens `sealed` with any of our keys; refuses what does not belong where it was found.
pub fn open(sealed: &[u8], keys: &Identities, expected: Expected<'_>) -> Result<Opened, OpenError> {
    let opened = decrypt(sealed, keys).and_then(|text| Ok(Envelope::decode(&text)?));
    wipe_stack();
    let envelope = opened?;
    if !envelope.allows(expected.place) {
        let (sealed_for, scope) = (envelope.name.clone(), envelope.scope);
        return Err(OpenError::Elsewhere { sealed_for, scope });
    }
    for authors in expected.authors {
        match &envelope.author {
            None => return Err(OpenError::Unsigned),
            Some(author) if !authors.contains(author) => return Err(OpenError::OtherAuthor(author.clone())),
            Some(_) => {}
        }
    }
    Ok(Opened { envelope })
}

fn decrypt(sealed: &[u8], keys: &Identities) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if sealed.len() > SEALED_BYTES_MAX {
        return Err(OpenError::Length);
    }
    let decryptor =
        Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(|error| unread(&error, sealed))?;
    if decryptor.is_scrypt() {
        return Err(OpenError::Passphrase);
    }
    let reader = decryptor.decrypt(keys.for_age())?;
    let mut text = Zeroizing::new(Vec::with_capacity(sealed.len()));
    let length = reader.take(ENVELOPE_BYTES_MAX as u64 + 1).read_to_end(&mut text);
    // Payload and armor both report what is wrong with them as an error of reading.
    let length = length.map_err(|_| OpenError::Damaged)?;
    if length > ENVELOPE_BYTES_MAX {
        return Err(EnvelopeError::Length.into());
    }
    Ok(text)
}

/// age calls a header of ours that does not parse an unknown format, too.
fn unread(error: &DecryptError, sealed: &[u8]) -> OpenError {
    let is_newer = sealed.starts_with(MAGIC) && !sealed.starts_with(MAGIC_OF_OURS);
    match error {
        DecryptError::UnknownFormat if is_newer => OpenError::Version,
        _ => OpenError::Header,
    }
}

impl From<DecryptError> for OpenError {
    fn from(error: DecryptError) -> Self {
        match error {
            DecryptError::NoMatchingKeys => Self::OtherKeys,
            DecryptError::InvalidHeader => Self::Header,
            // What a newer age may add is damage until it is looked at.
            _ => Self::Damaged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Recipients, seal};
    use super::*;

    fn place() -> SecretName {
        SecretName::parse("edge/webhooks/github").unwrap()
    }

    fn sealed(keys: &Identities, format: Format) -> Vec<u8> {
        let value = Zeroizing::new(b"swordfish".to_vec());
        let mut envelope = Envelope::new(place(), Scope::Strict, value).unwrap();
        let recipients = keys.recipients();
        let recipients = Recipients::parse(recipients.iter().map(String::as_str)).unwrap();
        seal(&mut envelope, &recipients, format).unwrap()
    }

    fn opened(sealed: &[u8], keys: &Identities) -> Result<Opened, OpenError> {
        open(sealed, keys, Expected { place: &place(), authors: &[] })
    }

    #[test]
    fn each_key_opens_what_is_sealed_to_all() {
        let keys = Identities::generate().with_new().unwrap();
        for format in [Format::Binary, Format::Armored] {
            let sealed = sealed(&keys, format);
            for key in keys.each() {
                assert_eq!(*opened(&sealed, &key).unwrap().envelope.value, b"swordfish");
            }
            assert!(matches!(opened(&sealed, &Identities::generate()), Err(OpenError::OtherKeys)));
        }
    }

    #[test]
    fn no_part_of_a_file_may_be_missing_or_changed() {
        let keys = Identities::generate();
        let whole = sealed(&keys, Format::Binary);
        for length in 0..whole.len() {
            assert!(opened(&whole[..length], &keys).is_err(), "the first {length} bytes");
        }
        for bit in 0..8 * whole.len() {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&flipped, &keys).is_err(), "bit {bit}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(opened(&longer, &keys).is_err(), "a byte more");
    }

    #[test]
    fn a_refusal_shows_nothing_of_the_value() {
        let keys = Identities::generate();
        let elsewhere = SecretName::parse("core/webhooks/github").unwrap();
        let sealed = sealed(&keys, Format::Binary);
        let error = open(&sealed, &keys, Expected { place: &elsewhere, authors: &[] }).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("edge/webhooks/github") && !shown.contains("swordfish"), "{shown}");
    }
}
