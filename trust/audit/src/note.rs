//! Signed notes (C2SP signed-note): text, an empty line, and a line for each signature.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::key::{LogKey, SignatureKind, SigningKey, is_key_name};

/// Longest note, bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Most signatures of a note.
pub const SIGNATURES_MAX: usize = 256;
const ID_BYTES: usize = 4;
const TIME_BYTES: usize = 8;

/// A note as it was read; nothing of it is true before a signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// Of the key.
    pub name: String,
    /// Of the key.
    pub key_id: u32,
    /// What the key made.
    pub signature: Vec<u8>,
}

/// Why a text is no note, or nobody whom we know signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Too long, or with too many signatures.
    #[error("the note has over {NOTE_BYTES_MAX} bytes or {SIGNATURES_MAX} signatures")]
    Length,
    /// Not of the form.
    #[error("the note is not text, an empty line, and signatures")]
    Form,
    /// A signature of a key that we know does not hold.
    #[error("a signature in the note does not hold")]
    Signature,
    /// Nobody whom we know.
    #[error("nobody who is known signed the note")]
    Unsigned,
}

impl Note {
    /// A note without signatures.
    ///
    /// # Panics
    ///
    /// If the text does not end with a newline, or has control characters beside newlines.
    pub fn new(text: String) -> Self {
        assert!(is_text(&text), "a note's text ends with a newline and has no control characters");
        Self { text, signatures: Vec::new() }
    }

    /// Reads a note.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Length);
        }
        let end = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (&note[..=end], &note[end + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        if !is_text(text) {
            return Err(NoteError::Form);
        }
        let signatures =
            lines.split('\n').map(signature).collect::<Option<Vec<_>>>().ok_or(NoteError::Form)?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::Length);
        }
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// What was signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All of them, of known and unknown keys.
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Signs the text, with the time in Unix seconds if the key is a cosigner's.
    pub fn sign(&mut self, key: &SigningKey, time_seconds: u64) {
        let signature = match key.public().kind() {
            SignatureKind::Note => key.sign(self.text.as_bytes()).to_vec(),
            SignatureKind::Cosignature => {
                let made = key.sign(&cosigned(time_seconds, &self.text));
                [&time_seconds.to_be_bytes()[..], &made].concat()
            }
        };
        self.add(NoteSignature {
            name: key.public().name().to_owned(),
            key_id: key.public().id(),
            signature,
        });
    }

    /// Adds a signature, in place of another one of the same key.
    pub fn add(&mut self, signature: NoteSignature) {
        self.signatures.retain(|other| (&other.name, other.key_id) != (&signature.name, signature.key_id));
        self.signatures.push(signature);
    }

    /// The key's signature and, of a cosigner, its time in Unix seconds; `None` without one. One that does not hold is an
    /// error.
    pub fn verify(&self, key: &LogKey) -> Result<Option<u64>, NoteError> {
        let mut found = None;
        let own = |signature: &&NoteSignature| signature.key_id == key.id() && signature.name == key.name();
        for signature in self.signatures.iter().filter(own) {
            let bytes = signature.signature.as_slice();
            let (time, message, made) = match key.kind() {
                SignatureKind::Note => (0, self.text.clone().into_bytes(), bytes),
                SignatureKind::Cosignature => {
                    let (time, made) = bytes.split_at_checked(TIME_BYTES).ok_or(NoteError::Signature)?;
                    let time = u64::from_be_bytes(time.try_into().expect("eight bytes were split off"));
                    (time, cosigned(time, &self.text), made)
                }
            };
            if !key.verify(&message, made) {
                return Err(NoteError::Signature);
            }
            found = Some(time);
        }
        Ok(found)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for NoteSignature { name, key_id, signature } in &self.signatures {
            let bytes = [&key_id.to_be_bytes()[..], signature].concat();
            writeln!(f, "— {name} {}", BASE64_STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

/// What a cosigner signs.
fn cosigned(time_seconds: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_seconds}\n{text}").into_bytes()
}

fn signature(line: &str) -> Option<NoteSignature> {
    let (name, data) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = BASE64_STANDARD.decode(data).ok()?;
    let (key_id, signature) = bytes.split_at_checked(ID_BYTES)?;
    if !is_key_name(name) || signature.is_empty() {
        return None;
    }
    let key_id = u32::from_be_bytes(key_id.try_into().ok()?);
    Some(NoteSignature { name: name.to_owned(), key_id, signature: signature.to_vec() })
}

fn is_text(text: &str) -> bool {
    text.ends_with('\n') && text.chars().all(|character| character == '\n' || character >= ' ')
}
