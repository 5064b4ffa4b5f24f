//! The jobs of a batch, longest first among those that are looked at together.
//!
//! Lanes that run side by side then have about as many blocks, and the short ones fill what is left at the end.

use crate::lane::block_count;
use crate::{Job, Tag};

/// Jobs that are looked at together.
pub(crate) const WINDOW_JOBS: usize = 64;

pub(crate) struct Window<'a, 'j> {
    jobs: &'j mut dyn Iterator<Item = Job<'a>>,
    held: [Option<Job<'a>>; WINDOW_JOBS],
    /// Block counts, inverted, above places in `held`: ascending is longest first.
    order: [u64; WINDOW_JOBS],
    count: usize,
    taken: usize,
    /// The place of the first tag of those held.
    base: usize,
}

impl<'a, 'j> Window<'a, 'j> {
    pub(crate) fn new(jobs: &'j mut dyn Iterator<Item = Job<'a>>) -> Self {
        Self {
            jobs,
            held: [const { None }; WINDOW_JOBS],
            order: [0; WINDOW_JOBS],
            count: 0,
            taken: 0,
            base: 0,
        }
    }

    /// Looks at the next jobs, and makes places for their tags; how many there are.
    pub(crate) fn fill(&mut self, tags: &mut Vec<Tag>) -> usize {
        self.base = tags.len();
        (self.count, self.taken) = (0, 0);
        let mut differ = false;
        while self.count < WINDOW_JOBS
            && let Some(job) = self.jobs.next()
        {
            let blocks = block_count(job.parts[0].len() + job.parts[1].len()) as u64;
            let key = !blocks << 8 | self.count as u64;
            differ |= key >> 8 != self.order[0] >> 8 && self.count > 0;
            self.order[self.count] = key;
            self.held[self.count] = Some(job);
            self.count += 1;
        }
        if differ {
            self.order[..self.count].sort_unstable();
        }
        tags.resize(self.base + self.count, [0; 32]);
        self.count
    }

    /// The next job and the place of its tag.
    pub(crate) fn next(&mut self, tags: &mut Vec<Tag>) -> Option<(Job<'a>, usize)> {
        if self.taken == self.count && (self.count < WINDOW_JOBS || self.fill(tags) == 0) {
            return None;
        }
        let at = (self.order[self.taken] & 0xFF) as usize;
        self.taken += 1;
        Some((self.held[at].take()?, self.base + at))
    }
}

const _: () = assert!(WINDOW_JOBS <= 0x100, "a place has a byte in the order");
