//! The chunked transfer coding (RFC 9112 section 7.1), decoded in place.
//!
//! Extensions and trailers are checked, bounded over the whole body, and dropped. Refused: anything
//! before the first hex digit, more than 16 of them, white space after them, a line or a chunk that
//! does not end with CRLF, and trailers that would change framing or routing.

use super::Progress;
use super::fields::{FieldError, check_controls, split_line};
use super::line::{LineBuffer, LineError};

/// All chunk extensions of one body, bytes.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 4096;
/// The trailer section with its empty line, bytes.
pub const TRAILER_BYTES_MAX: usize = 8192;

/// Fields of framing and routing (RFC 9110 section 6.5.1), and of the connection.
const FORBIDDEN_TRAILERS: [&[u8]; 7] =
    [b"content-length", b"transfer-encoding", b"host", b"connection", b"trailer", b"te", b"expect"];

const SIZE_DIGITS_MAX: usize = 16;

/// Why a chunked body is refused: always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The size is not 1 to 16 hex digits, or is followed by neither CRLF nor `;`.
    #[error("chunk size is not valid")]
    Size,
    /// The extensions go over [`CHUNK_EXTENSION_BYTES_MAX`], or a size line has no end within it.
    #[error("chunk extensions are too long")]
    ExtensionTooLong,
    /// A control character or bare CR in an extension, or a size line that ends with a bare LF.
    #[error("chunk size line: {0}")]
    Line(FieldError),
    /// Chunk data is not followed by CRLF.
    #[error("chunk data is not followed by CRLF")]
    DataEnd,
    /// A trailer line is malformed.
    #[error("trailer: {0}")]
    Trailer(FieldError),
    /// A trailer names a field of framing or routing.
    #[error("trailer that belongs into the head")]
    TrailerForbidden,
    /// The trailers go over [`TRAILER_BYTES_MAX`].
    #[error("trailers are too long")]
    TrailerTooLong,
}

/// What a piece of a chunked body is.
pub(super) enum ChunkStep<'i> {
    Progress(Progress<'i>),
    /// A chunk of this size begins: the caller holds the total against its bound.
    Size(u64),
}

/// The decoder of one body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chunked {
    state: State,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Size,
    Data {
        remaining: u64,
    },
    DataCr,
    DataLf,
    Trailers,
    End,
}

impl Chunked {
    pub(super) fn handle_bytes<'i>(
        &mut self,
        lines: &mut LineBuffer,
        input: &mut &'i [u8],
    ) -> Result<ChunkStep<'i>, ChunkError> {
        loop {
            match self.state {
                State::Size => {
                    return Ok(match self.handle_size(lines, input)? {
                        Some(size) => ChunkStep::Size(size),
                        None => ChunkStep::Progress(Progress::NeedMore),
                    });
                }
                State::Data { remaining } => {
                    if input.is_empty() {
                        return Ok(ChunkStep::Progress(Progress::NeedMore));
                    }
                    let (data, rest) = input.split_at(within(remaining, input.len()));
                    *input = rest;
                    let remaining = remaining - data.len() as u64;
                    self.state = if remaining == 0 { State::DataCr } else { State::Data { remaining } };
                    return Ok(ChunkStep::Progress(Progress::Body(data)));
                }
                State::DataCr | State::DataLf => {
                    if !self.handle_data_end(input)? {
                        return Ok(ChunkStep::Progress(Progress::NeedMore));
                    }
                }
                State::Trailers => {
                    if !self.handle_trailer(lines, input)? {
                        return Ok(ChunkStep::Progress(Progress::NeedMore));
                    }
                }
                State::End => return Ok(ChunkStep::Progress(Progress::End)),
            }
        }
    }

    fn handle_size(&mut self, lines: &mut LineBuffer, input: &mut &[u8]) -> Result<Option<u64>, ChunkError> {
        let bytes_max = SIZE_DIGITS_MAX + (CHUNK_EXTENSION_BYTES_MAX - self.extension_bytes) + 2;
        let line = lines.take(input, bytes_max).map_err(|error| match error {
            LineError::TooLong => ChunkError::ExtensionTooLong,
            LineError::BareLf => ChunkError::Line(FieldError::BareLf),
        })?;
        let Some(line) = line else { return Ok(None) };
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let extension = &line[digits..];
        if !(1..=SIZE_DIGITS_MAX).contains(&digits) || !matches!(extension.first(), None | Some(b';')) {
            return Err(ChunkError::Size);
        }
        check_controls(extension).map_err(ChunkError::Line)?;
        self.extension_bytes += extension.len();
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            return Err(ChunkError::ExtensionTooLong);
        }
        let size = line[..digits].iter().fold(0, |size, &digit| size << 4 | hex_value(digit));
        self.state = if size == 0 { State::Trailers } else { State::Data { remaining: size } };
        Ok(Some(size))
    }

    /// Whether it got a byte.
    fn handle_data_end(&mut self, input: &mut &[u8]) -> Result<bool, ChunkError> {
        let Some((&byte, rest)) = input.split_first() else { return Ok(false) };
        self.state = match (self.state, byte) {
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            _ => return Err(ChunkError::DataEnd),
        };
        *input = rest;
        Ok(true)
    }

    /// Whether it got a whole line.
    fn handle_trailer(&mut self, lines: &mut LineBuffer, input: &mut &[u8]) -> Result<bool, ChunkError> {
        let line =
            lines.take(input, TRAILER_BYTES_MAX - self.trailer_bytes).map_err(|error| match error {
                LineError::TooLong => ChunkError::TrailerTooLong,
                LineError::BareLf => ChunkError::Trailer(FieldError::BareLf),
            })?;
        let Some(line) = line else { return Ok(false) };
        self.trailer_bytes += line.len() + 2;
        if line.is_empty() {
            self.state = State::End;
            return Ok(true);
        }
        let (name, _) = split_line(line).map_err(ChunkError::Trailer)?;
        if FORBIDDEN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
            return Err(ChunkError::TrailerForbidden);
        }
        Ok(true)
    }
}

/// The smaller of a 64-bit count and a length.
pub(super) fn within(count: u64, len: usize) -> usize {
    usize::try_from(count).map_or(len, |count| count.min(len))
}

fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => unreachable!("only called for hex digits"),
    })
}
