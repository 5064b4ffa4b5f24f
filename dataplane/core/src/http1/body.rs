//! A body of known length, in chunks, or up to the end of the connection (RFC 9112 section 6.3).

use super::Progress;
use super::chunked::{ChunkError, ChunkStep, Chunked, within};
use super::line::LineBuffer;

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    Chunk(ChunkError),
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Length { remaining: u64 },
    Chunked { chunked: Chunked, announced: u64 },
    UntilClose { received: u64 },
}

impl Body {
    pub(super) fn chunked() -> Self {
        Self::Chunked { chunked: Chunked::default(), announced: 0 }
    }

    /// The next piece; `bytes_max` bounds the whole body and is checked as soon as a length is known.
    pub(super) fn handle_bytes<'i>(
        &mut self,
        lines: &mut LineBuffer,
        input: &mut &'i [u8],
        bytes_max: usize,
    ) -> Result<Progress<'i>, BodyError> {
        match self {
            Self::Length { remaining: 0 } => Ok(Progress::End),
            Self::Length { .. } | Self::UntilClose { .. } if input.is_empty() => Ok(Progress::NeedMore),
            Self::Length { remaining } => {
                let (data, rest) = input.split_at(within(*remaining, input.len()));
                *input = rest;
                *remaining -= data.len() as u64;
                Ok(Progress::Body(data))
            }
            Self::Chunked { chunked, announced } => loop {
                match chunked.handle_bytes(lines, input).map_err(BodyError::Chunk)? {
                    ChunkStep::Progress(progress) => return Ok(progress),
                    ChunkStep::Size(size) => {
                        *announced = announced.saturating_add(size);
                        if *announced > bytes_max as u64 {
                            return Err(BodyError::TooLarge);
                        }
                    }
                }
            },
            Self::UntilClose { received } => {
                // Up to the bound first, so that the pieces do not depend on where the input was cut.
                let room = within(bytes_max as u64 - *received, input.len());
                if room == 0 {
                    return Err(BodyError::TooLarge);
                }
                let (data, rest) = input.split_at(room);
                *input = rest;
                *received += room as u64;
                Ok(Progress::Body(data))
            }
        }
    }
}
