//! An envelope becomes an age file (age-encryption.org/v1).

use std::io::{self, Write};

use age::Encryptor;
use age::armor::{ArmoredWriter, Format as AgeFormat};

use super::envelope::Envelope;
use super::keys::Recipients;

/// How a sealed file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Bytes.
    #[default]
    Binary,
    /// PEM-like text.
    Armored,
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// age refused the recipients.
    #[error("{0}")]
    Age(#[from] age::EncryptError),
    /// Writing to memory, which does not fail.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Seals an envelope to all recipients, and notes in it who they are.
pub fn seal(envelope: &mut Envelope, recipients: &Recipients, format: Format) -> Result<Vec<u8>, SealError> {
    envelope.recipients = recipients.texts();
    let format = match format {
        Format::Binary => AgeFormat::Binary,
        Format::Armored => AgeFormat::AsciiArmor,
    };
    let output = ArmoredWriter::wrap_output(Vec::new(), format)?;
    let mut writer = Encryptor::with_recipients(recipients.for_age())?.wrap_output(output)?;
    writer.write_all(&envelope.encode())?;
    Ok(writer.finish()?.finish()?)
}
