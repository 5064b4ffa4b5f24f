//! Field lines (RFC 9112 section 5): checked, names lower-cased, kept as offsets into one text.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use super::characters::{has_control, is_printable_ascii, leading_token_len, trim_ows};
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

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The texts of one head; its memory is kept for the next.
#[derive(Default)]
pub(super) struct Fields {
    /// While the head arrives.
    bytes: Vec<u8>,
    /// The same memory once the head is complete.
    text: String,
    index: Vec<(Span, Span)>,
}

impl Fields {
    /// Starts over.
    pub(super) fn clear(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = mem::take(&mut self.text).into_bytes();
        }
        self.bytes.clear();
        self.index.clear();
    }

    /// Memory held, bytes.
    pub(super) fn buffer_bytes(&self) -> usize {
        let index = self.index.capacity() * size_of::<(Span, Span)>();
        self.bytes.capacity() + self.text.capacity() + index
    }

    /// Makes the texts readable.
    pub(super) fn seal(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        self.text = String::from_utf8(bytes).expect("each line was checked when it was added");
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Keeps a text that is not a field.
    pub(super) fn push_text(&mut self, text: &str) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text.as_bytes());
        Span::new(start, self.bytes.len())
    }

    /// Checks and keeps a field line; returns the lower-cased name, the trimmed value and its place.
    pub(super) fn push_line(&mut self, line: &[u8]) -> Result<(&[u8], &[u8], Span), FieldError> {
        let (name, value) = split_line(line).map_err(|error| match error {
            FieldError::Folded if self.index.is_empty() => FieldError::LeadingSpace,
            error => error,
        })?;
        let start = self.bytes.len();
        let name_end = start + name.len();
        self.bytes.extend(name.iter().map(u8::to_ascii_lowercase));
        self.bytes.extend_from_slice(value);
        let place = Span::new(name_end, self.bytes.len());
        self.index.push((Span::new(start, name_end), place));
        Ok((&self.bytes[start..name_end], &self.bytes[name_end..], place))
    }

    /// A text of a complete head, else nothing.
    pub(super) fn text(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
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
pub(super) fn split_line(line: &[u8]) -> Result<(&[u8], &[u8]), FieldError> {
    let (name, rest) = line.split_at(leading_token_len(line));
    let padded = match rest {
        [b':', padded @ ..] if !name.is_empty() => padded,
        [b' ' | b'\t', ..] if name.is_empty() => return Err(FieldError::Folded),
        [b' ' | b'\t', ..] => return Err(FieldError::SpaceInName),
        [b'\r', ..] => return Err(FieldError::BareCr),
        [_, ..] => return Err(FieldError::Name),
        [] => return Err(FieldError::NoColon),
    };
    if !is_printable_ascii(padded) {
        check_controls(padded)?;
        core::str::from_utf8(padded).map_err(|_| FieldError::NotUtf8)?;
    }
    Ok((name, trim_ows(padded)))
}

/// Refuses control characters other than HTAB.
pub(super) fn check_controls(bytes: &[u8]) -> Result<(), FieldError> {
    if !has_control(bytes) {
        return Ok(());
    }
    Err(if bytes.contains(&b'\r') { FieldError::BareCr } else { FieldError::ControlCharacter })
}
