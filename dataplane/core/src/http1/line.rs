//! Lines that end with CRLF, out of pieces of any size. A line inside one piece is not copied.

use alloc::vec::Vec;

use memchr::memchr;

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    /// Longer than the bound, whatever comes next.
    TooLong,
    /// LF without CR.
    BareLf,
}

/// The received part of a line whose end has not come yet; a finished one stays until the next call.
#[derive(Default)]
pub(super) struct LineBuffer {
    partial: Vec<u8>,
}

impl LineBuffer {
    /// Whether no line has begun.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.partial.last(), None | Some(b'\n'))
    }

    /// Memory held, bytes.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// The next line without its CRLF, taken off `input`; with it, it has at most `bytes_max` bytes.
    pub(super) fn take<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
        bytes_max: usize,
    ) -> Result<Option<&'a [u8]>, LineError> {
        if self.is_idle() {
            self.partial.clear();
        }
        let room = bytes_max.saturating_sub(self.partial.len());
        let window = &input[..input.len().min(room)];
        let Some(end) = memchr(b'\n', window) else {
            if input.len() > room {
                return Err(LineError::TooLong);
            }
            self.partial.extend_from_slice(input);
            *input = &[];
            return Ok(None);
        };
        let (line, rest) = input.split_at(end + 1);
        *input = rest;
        if self.partial.is_empty() {
            return without_crlf(line).map(Some);
        }
        self.partial.extend_from_slice(line);
        without_crlf(&self.partial).map(Some)
    }
}

fn without_crlf(line: &[u8]) -> Result<&[u8], LineError> {
    line.strip_suffix(b"\r\n").ok_or(LineError::BareLf)
}
