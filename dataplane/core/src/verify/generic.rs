//! HMAC in a header of the operator's choice: algorithm, header, encoding and prefix come from the
//! configuration. With a timestamp header, `timestamp separator body` is signed and a window applies: a
//! window over an unsigned time would protect nothing. Otherwise the body alone is signed.

use alloc::string::String;
use alloc::vec::Vec;

use smallvec::smallvec;

use super::claim::{Claim, Encoding, Proof, check_fresh, check_source_id, optional, required, tag_bytes};
use super::secret::Secret;
use super::{AFFIX_BYTES_MAX, HEADER_NAME_BYTES_MAX, Refusal, RequestView, SchemeError, WINDOW_MS_MAX};
use crate::crypto::HashAlgorithm;

/// How a source signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacSettings {
    /// SHA-256 or SHA-512.
    pub algorithm: HashAlgorithm,
    /// Header that holds the signature; any case.
    pub header: String,
    /// How the signature is written.
    pub encoding: Encoding,
    /// Text before the signature, such as `sha256=`; may be empty.
    pub prefix: String,
    /// The signed time, if the source sends one.
    pub timestamp: Option<TimestampSettings>,
    /// Header that holds the provider's event id; any case. It is not signed, and may be absent.
    pub source_id_header: Option<String>,
}

/// A signed time: `timestamp separator body` is the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimestampSettings {
    /// Header that holds the time as a decimal number; any case.
    pub header: String,
    /// What the number counts.
    pub unit: TimestampUnit,
    /// Text between time and body, such as `.`; may be empty.
    pub separator: String,
    /// Window on either side of the clock, 1 to [`WINDOW_MS_MAX`] ms.
    pub window_ms: u64,
}

/// What a Unix timestamp counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl TimestampUnit {
    fn ms(self) -> u64 {
        match self {
            Self::Seconds => 1000,
            Self::Milliseconds => 1,
        }
    }
}

/// The generic scheme, with an endpoint's secrets.
#[derive(Debug)]
pub struct GenericHmac {
    settings: HmacSettings,
    secrets: Vec<Secret>,
}

impl GenericHmac {
    pub(super) fn new(settings: HmacSettings, secrets: &[Vec<u8>]) -> Result<Self, SchemeError> {
        Ok(Self { settings: validated(settings)?, secrets: Secret::list(secrets)? })
    }

    /// For HMAC, in the configured order.
    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Header that holds the provider's event id, in lower case.
    pub(super) fn source_id_header(&self) -> Option<&str> {
        self.settings.source_id_header.as_deref()
    }

    pub(super) fn claim<'a>(
        &'a self,
        request: &'a impl RequestView,
        now_ms: u64,
    ) -> Result<Claim<'a>, Refusal> {
        let HmacSettings { algorithm, header, encoding, prefix, timestamp, source_id_header } =
            &self.settings;
        let signature = required(request, header, Refusal::MissingSignature)?;
        let text = signature.strip_prefix(prefix.as_str()).ok_or(Refusal::MalformedSignature)?;
        let tag = encoding.decode(text, tag_bytes(*algorithm))?;
        let mut preamble = [""; 4];
        if let Some(timestamp) = timestamp {
            let sent = required(request, &timestamp.header, Refusal::MissingTimestamp)?;
            check_fresh(sent, timestamp.unit.ms(), now_ms, timestamp.window_ms)?;
            preamble[0] = sent;
            preamble[1] = &timestamp.separator;
        }
        if let Some(name) = source_id_header {
            optional(request, name)?.map_or(Ok(()), check_source_id)?;
        }
        let proof = Proof::Mac { algorithm: *algorithm, secrets: &self.secrets, tags: smallvec![tag] };
        Ok(Claim { preamble, proof })
    }
}

/// Checks each setting; header names become lower case, as [`RequestView`] is asked for them.
fn validated(mut settings: HmacSettings) -> Result<HmacSettings, SchemeError> {
    if settings.algorithm == HashAlgorithm::Sha1 {
        return Err(SchemeError::WeakAlgorithm);
    }
    lower_case_name(&mut settings.header)?;
    settings.source_id_header.as_deref_mut().map_or(Ok(()), lower_case_name)?;
    if !is_affix(&settings.prefix) {
        return Err(SchemeError::Prefix);
    }
    let Some(timestamp) = &mut settings.timestamp else { return Ok(settings) };
    lower_case_name(&mut timestamp.header)?;
    if timestamp.header == settings.header {
        return Err(SchemeError::SameHeader);
    }
    if !is_affix(&timestamp.separator)
        || timestamp.separator.starts_with(|first: char| first.is_ascii_digit())
    {
        return Err(SchemeError::Separator);
    }
    if !(1..=WINDOW_MS_MAX).contains(&timestamp.window_ms) {
        return Err(SchemeError::Window);
    }
    Ok(settings)
}

fn lower_case_name(name: &mut str) -> Result<(), SchemeError> {
    if !is_header_name(name) {
        return Err(SchemeError::HeaderName);
    }
    name.make_ascii_lowercase();
    Ok(())
}

/// Whether a configured header can have this name: `token` of RFC 9110 section 5.6.2, 1 to
/// [`HEADER_NAME_BYTES_MAX`] bytes, any case.
pub fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=HEADER_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(token)
}

fn is_affix(text: &str) -> bool {
    text.len() <= AFFIX_BYTES_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
