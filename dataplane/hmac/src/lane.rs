//! One message on its way through the blocks of an HMAC.
//!
//! Enters: a job. Leaves: runs of whole blocks, first the message's own, then staged ones: across its parts, its
//! padded end (FIPS 180-4 section 5.1.1), the inner digest under the outer key. The chaining value lies with the kernel.

use crate::Job;
use crate::kernels::{BLOCK_BYTES, Block, Chain, States};

/// Where the length in bits stands in a message's last block.
const LENGTH_AT: usize = BLOCK_BYTES - 8;
/// A digest's bytes.
const DIGEST_BYTES: usize = 32;

/// What a lane's blocks are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Whole blocks of the message.
    Message,
    /// The end of the message, padded.
    Padding,
    /// The inner digest under the outer key.
    Outer,
}

/// Whether there are blocks to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There are.
    Blocks,
    /// The chaining value is the tag.
    Tag,
}

#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    phase: Phase,
    /// Where the tag goes.
    pub(crate) place: usize,
    outer: &'a Chain,
    parts: [&'a [u8]; 2],
    /// Bytes hashed under the inner key, its own block included.
    length: u64,
    staged: [Block; 2],
    staged_from: usize,
    staged_to: usize,
    /// The chaining value while the lane moves between kernels.
    pub(crate) moved: Chain,
}

/// How many blocks a message of `bytes` takes, its padding and the outer digest included.
pub(crate) fn block_count(bytes: usize) -> usize {
    (bytes + 1 + 8).div_ceil(BLOCK_BYTES) + 1
}

impl<'a> Lane<'a> {
    /// Has no blocks; stands where none is at work.
    pub(crate) const IDLE: Self = Self {
        phase: Phase::Outer,
        place: 0,
        outer: &[0; 8],
        parts: [&[]; 2],
        length: 0,
        staged: [[0; BLOCK_BYTES]; 2],
        staged_from: 0,
        staged_to: 0,
        moved: [0; 8],
    };

    /// Begins a job; the chaining value is to be the key's inner one.
    pub(crate) fn begin(&mut self, job: &Job<'a>, place: usize) {
        self.phase = Phase::Message;
        self.place = place;
        self.outer = &job.key.chains().outer;
        self.parts = job.parts;
        self.length = (BLOCK_BYTES + job.parts[0].len() + job.parts[1].len()) as u64;
        (self.staged_from, self.staged_to) = (0, 0);
        if self.blocks().is_empty() {
            self.stage_message();
        }
    }

    /// The blocks that can be hashed now; at least one while it has a job.
    #[inline]
    pub(crate) fn blocks(&self) -> &[Block] {
        if self.staged_from < self.staged_to {
            return &self.staged[self.staged_from..self.staged_to];
        }
        self.parts[0].as_chunks().0
    }

    /// Goes on behind `count` hashed blocks.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize, states: &mut impl States, at: usize) -> Next {
        if self.staged_from < self.staged_to {
            self.staged_from += count;
        } else {
            self.parts[0] = &self.parts[0][count * BLOCK_BYTES..];
        }
        if !self.blocks().is_empty() {
            return Next::Blocks;
        }
        match self.phase {
            Phase::Message => self.stage_message(),
            Phase::Padding => {
                let digest = words_to_bytes(&states.chain(at));
                states.put(at, self.outer);
                self.stage_end(&digest, (BLOCK_BYTES + DIGEST_BYTES) as u64);
                self.phase = Phase::Outer;
            }
            Phase::Outer => return Next::Tag,
        }
        Next::Blocks
    }

    /// Stages the next block when the message has none in one piece.
    fn stage_message(&mut self) {
        if self.parts[0].is_empty() {
            self.parts = [self.parts[1], &[]];
        }
        if self.parts[0].len() >= BLOCK_BYTES {
            return;
        }
        let [head, tail] = self.parts;
        let mut joined = [0; BLOCK_BYTES];
        joined[..head.len()].copy_from_slice(head);
        let taken = tail.len().min(BLOCK_BYTES - head.len());
        joined[head.len()..head.len() + taken].copy_from_slice(&tail[..taken]);
        self.parts = [&tail[taken..], &[]];
        let filled = head.len() + taken;
        if filled == BLOCK_BYTES {
            self.staged[0] = joined;
            (self.staged_from, self.staged_to) = (0, 1);
            return;
        }
        let length = self.length;
        self.stage_end(&joined[..filled], length);
        self.phase = Phase::Padding;
    }

    /// Stages the last bytes of a message of `length` bytes, padded.
    fn stage_end(&mut self, last: &[u8], length: u64) {
        let blocks = if last.len() < LENGTH_AT { 1 } else { 2 };
        self.staged = [[0; BLOCK_BYTES]; 2];
        let bytes = self.staged.as_flattened_mut();
        bytes[..last.len()].copy_from_slice(last);
        bytes[last.len()] = 0x80;
        let length_at = (blocks - 1) * BLOCK_BYTES + LENGTH_AT;
        bytes[length_at..length_at + 8].copy_from_slice(&(length * 8).to_be_bytes());
        (self.staged_from, self.staged_to) = (0, blocks);
    }
}

pub(crate) fn words_to_bytes(words: &Chain) -> [u8; DIGEST_BYTES] {
    let mut bytes = [0; DIGEST_BYTES];
    for (piece, word) in bytes.chunks_exact_mut(4).zip(words) {
        piece.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
