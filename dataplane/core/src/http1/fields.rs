//! Field lines (RFC 9112 section 5): checked, names lower-cased, kept as offsets into one text.

use alloc::string::String;
use alloc::vec::Vec;

use super::characters::{has_control, is_token_byte, trim_ows};
use super::line::LineError;

/// Why a line of a head or a trailer is refused: always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// LF without CR before it.
    #[error("a line ends with a bare LF")]
    BareLf,
    /// CR without LF after it.
    #[error("a line holds a bare CR")]
    BareCr,
    /// A control character other than HTAB in a value.
    #[error("a line holds a control character")]
    ControlCharacter,
    /// Octets over 127 that are not UTF-8.
    #[error("a line is not UTF-8")]
    NotUtf8,
    /// The first field line begins with a space or tab.
    #[error("white space before the first field")]
    LeadingSpace,
    /// A later field line begins with a space or tab (obs-fold).
    #[error("a field is folded over lines")]
    Folded,
    /// A space or tab in the name, or between the name and the colon.
    #[error("white space in or after a field name")]
    SpaceInName,
    /// The name is empty or holds a character that no token has.
    #[error("a field name is not a token")]
    Name,
    /// No colon in the line.
    #[error("a field line without a colon")]
    NoColon,
}

impl FieldError {
    /// The error of a line without end or with the wrong end; `too_long` is the caller's own.
    pub(super) fn from_line<E: From<Self>>(error: LineError, too_long: E) -> E {
        match error {
            LineError::TooLong => too_long,
            LineError::BareLf => Self::BareLf.into(),
        }
    }
}

/// A stretch of a [`Fields`] text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

/// The texts of one head; its memory is kept for the next.
#[derive(Default)]
pub(super) struct Fields {
    text: String,
    index: Vec<(Span, Span)>,
}

impl Fields {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.index.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Keeps a text that is not a field.
    pub(super) fn push_text(&mut self, text: &str) -> Span {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        Span { start, end: self.text.len() as u32 }
    }

    /// Checks and keeps a field line; returns the lower-cased name, the trimmed value and its place.
    pub(super) fn push_line(&mut self, line: &str) -> Result<(&str, &str, Span), FieldError> {
        let (name, value) = split_field(line).map_err(|error| match error {
            FieldError::Folded if self.index.is_empty() => FieldError::LeadingSpace,
            error => error,
        })?;
        let name = self.push_text(name);
        self.text[name.start as usize..].make_ascii_lowercase();
        let value = self.push_text(value);
        self.index.push((name, value));
        Ok((self.text(name), self.text(value), value))
    }

    pub(super) fn text(&self, span: Span) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// The first value under a lower-case name.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.iter().find(|field| field.0 == name).map(|field| field.1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.index.iter().map(|&(name, value)| (self.text(name), self.text(value)))
    }
}

/// Name as sent and value without OWS of one field line.
pub(super) fn split_field(line: &str) -> Result<(&str, &str), FieldError> {
    let bytes = line.as_bytes();
    let Some(end) = bytes.iter().position(|&byte| !is_token_byte(byte)) else {
        return Err(FieldError::NoColon);
    };
    match bytes[end] {
        b':' if end > 0 => {}
        b' ' | b'\t' if end == 0 => return Err(FieldError::Folded),
        b' ' | b'\t' => return Err(FieldError::SpaceInName),
        b'\r' => return Err(FieldError::BareCr),
        _ => return Err(FieldError::Name),
    }
    check_controls(&bytes[end + 1..])?;
    Ok((&line[..end], trim_ows(&line[end + 1..])))
}

/// Refuses control characters other than HTAB.
pub(super) fn check_controls(bytes: &[u8]) -> Result<(), FieldError> {
    if !has_control(bytes) {
        return Ok(());
    }
    Err(if bytes.contains(&b'\r') { FieldError::BareCr } else { FieldError::ControlCharacter })
}
