//! Two messages at a time: where the processor has SHA instructions, a second, independent chain fills
//! the cycles that the first waits for its own result.
//!
//! Enters: jobs in order. Leaves: their tags at the same places. A lane whose message ends takes the next
//! job at once, so that messages of different lengths keep both lanes busy; the last one runs alone.

use sha2::block_api::compress256;
use zeroize::Zeroize;

use crate::{Job, Tag, sha_instructions};

const BLOCK: usize = 64;
/// Where the length in bits stands in a message's last block (FIPS 180-4 section 5.1.1).
const LENGTH_AT: usize = BLOCK - 8;

/// Signs each job; its tag is pushed at its place.
pub(crate) fn sign<'a>(
    mut jobs: impl Iterator<Item = Job<'a>>,
    two: sha_instructions::Two,
    tags: &mut Vec<Tag>,
) {
    let [mut left, mut right] = [Lane::default(), Lane::default()];
    loop {
        left.take_job(&mut jobs, tags);
        right.take_job(&mut jobs, tags);
        match (left.phase, right.phase) {
            (Phase::Idle, Phase::Idle) => return,
            (_, Phase::Idle) => left.step(),
            (Phase::Idle, _) => right.step(),
            (_, _) => step_both(two, &mut left, &mut right),
        }
        left.give_tag(tags);
        right.give_tag(tags);
    }
}

fn step_both(two: sha_instructions::Two, left: &mut Lane<'_>, right: &mut Lane<'_>) {
    let count = left.blocks().len().min(right.blocks().len());
    let mut states = [left.state, right.state];
    two.compress(&mut states, [&left.blocks()[..count], &right.blocks()[..count]]);
    [left.state, right.state] = states;
    states.zeroize();
    left.advance(count);
    right.advance(count);
}

/// What a lane's blocks are part of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// No job.
    #[default]
    Idle,
    /// Whole blocks of the message.
    Message,
    /// The end of the message, padded.
    Padding,
    /// The inner digest under the outer key.
    Outer,
    /// The state is the tag.
    Ended,
}

/// One message on its way; wiped when it is dropped.
struct Lane<'a> {
    phase: Phase,
    place: usize,
    state: [u32; 8],
    outer: [u32; 8],
    parts: [&'a [u8]; 2],
    /// Bytes hashed under the inner key, its own block included.
    length: u64,
    /// Blocks that are not whole in the message: across its parts, and padding.
    staged: [[u8; BLOCK]; 2],
    staged_from: usize,
    staged_to: usize,
}

impl Default for Lane<'_> {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            place: 0,
            state: [0; 8],
            outer: [0; 8],
            parts: [&[]; 2],
            length: 0,
            staged: [[0; BLOCK]; 2],
            staged_from: 0,
            staged_to: 0,
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.state.zeroize();
        self.outer.zeroize();
        self.staged.zeroize();
    }
}

impl<'a> Lane<'a> {
    /// Takes the next job if it has none, and makes a place for its tag.
    fn take_job(&mut self, jobs: &mut impl Iterator<Item = Job<'a>>, tags: &mut Vec<Tag>) {
        if self.phase != Phase::Idle {
            return;
        }
        let Some(job) = jobs.next() else { return };
        self.place = tags.len();
        tags.push([0; 32]);
        let chains = job.key.chains();
        self.state = chains.inner;
        self.outer = chains.outer;
        self.parts = job.parts;
        self.length = (BLOCK + job.parts[0].len() + job.parts[1].len()) as u64;
        self.phase = Phase::Message;
        self.fill();
    }

    /// The blocks that can be hashed now; at least one while it has a job.
    fn blocks(&self) -> &[[u8; BLOCK]] {
        if self.staged_from < self.staged_to {
            return &self.staged[self.staged_from..self.staged_to];
        }
        self.parts[0].as_chunks().0
    }

    /// Hashes what is there, alone.
    fn step(&mut self) {
        let mut state = self.state;
        let count = self.blocks().len();
        compress256(&mut state, self.blocks());
        self.state = state;
        self.advance(count);
    }

    /// Goes on behind `count` hashed blocks.
    fn advance(&mut self, count: usize) {
        if self.staged_from < self.staged_to {
            self.staged_from += count;
        } else {
            self.parts[0] = &self.parts[0][count * BLOCK..];
        }
        if self.blocks().is_empty() {
            self.fill();
        }
    }

    /// Stages the next block when the message has none in one piece.
    fn fill(&mut self) {
        match self.phase {
            Phase::Message => self.fill_message(),
            Phase::Padding => {
                let digest = self.state;
                self.state = self.outer;
                self.stage_end(&words_to_bytes(&digest), (BLOCK + 32) as u64);
                self.phase = Phase::Outer;
            }
            Phase::Outer => self.phase = Phase::Ended,
            Phase::Idle | Phase::Ended => {}
        }
    }

    fn fill_message(&mut self) {
        if self.parts[0].is_empty() {
            self.parts = [self.parts[1], &[]];
        }
        if self.parts[0].len() >= BLOCK {
            return;
        }
        let [head, tail] = self.parts;
        let mut joined = [0; BLOCK];
        joined[..head.len()].copy_from_slice(head);
        let taken = tail.len().min(BLOCK - head.len());
        joined[head.len()..head.len() + taken].copy_from_slice(&tail[..taken]);
        self.parts = [&tail[taken..], &[]];
        let filled = head.len() + taken;
        if filled == BLOCK {
            self.staged[0] = joined;
            (self.staged_from, self.staged_to) = (0, 1);
            return;
        }
        let length = self.length;
        self.stage_end(&joined[..filled], length);
        self.phase = Phase::Padding;
    }

    /// Stages the last bytes of a message of `length` bytes, padded (FIPS 180-4 section 5.1.1).
    fn stage_end(&mut self, last: &[u8], length: u64) {
        let blocks = if last.len() < LENGTH_AT { 1 } else { 2 };
        self.staged = [[0; BLOCK]; 2];
        let bytes = self.staged.as_flattened_mut();
        bytes[..last.len()].copy_from_slice(last);
        bytes[last.len()] = 0x80;
        let length_at = (blocks - 1) * BLOCK + LENGTH_AT;
        bytes[length_at..length_at + 8].copy_from_slice(&(length * 8).to_be_bytes());
        (self.staged_from, self.staged_to) = (0, blocks);
    }

    /// Puts the tag of a message that has ended at its place.
    fn give_tag(&mut self, tags: &mut [Tag]) {
        if self.phase == Phase::Ended {
            tags[self.place] = words_to_bytes(&self.state);
            self.phase = Phase::Idle;
        }
    }
}

fn words_to_bytes(words: &[u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (piece, word) in bytes.chunks_exact_mut(4).zip(words) {
        piece.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}
