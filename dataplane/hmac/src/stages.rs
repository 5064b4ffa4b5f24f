//! A batch through kernels of falling width.
//!
//! Enters: jobs, and the kernels with the least number of lanes for which each pays. A lane that ends takes the next
//! job at once. When fewer lanes are left than pay, the next kernel goes on with them where they are.

use std::array;

use zeroize::Zeroize;

use crate::Tag;
use crate::kernel::Proof;
use crate::kernels::{BLOCK_BYTES, Compress, States};
use crate::lane::{Lane, Next, words_to_bytes};
use crate::window::Window;

/// A kernel, and the fewest lanes for which it is the fastest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) kernel: Proof,
    pub(crate) lanes_min: usize,
}

/// Where lanes come from: a batch's jobs, or a wider kernel's rest.
pub(crate) struct Source<'a, 'j, 's> {
    pub(crate) window: Option<&'s mut Window<'a, 'j>>,
    moved: &'s [Lane<'a>],
}

impl<'a, 'j, 's> Source<'a, 'j, 's> {
    pub(crate) fn jobs(window: &'s mut Window<'a, 'j>) -> Self {
        Self { window: Some(window), moved: &[] }
    }

    fn rest(moved: &'s [Lane<'a>]) -> Self {
        Self { window: None, moved }
    }

    /// Puts the next one into `lane`; false where there is none.
    fn next_into(
        &mut self,
        lane: &mut Lane<'a>,
        states: &mut impl States,
        at: usize,
        tags: &mut Vec<Tag>,
    ) -> bool {
        if let [first, rest @ ..] = self.moved {
            *lane = *first;
            states.put(at, &first.moved);
            self.moved = rest;
            return true;
        }
        let Some((job, place)) = self.window.as_mut().and_then(|window| window.next(tags)) else {
            return false;
        };
        states.put(at, &job.key.chains().inner);
        lane.begin(&job, place);
        true
    }
}

/// Takes all that is in `source` to its tags; the last stage takes a single lane.
pub(crate) fn run(stages: &[Stage], source: Source<'_, '_, '_>, tags: &mut Vec<Tag>) {
    let (stage, narrower) = stages.split_first().expect("the last stage takes a single lane");
    let rest = Rest { lanes_min: stage.lanes_min, narrower };
    match stage.kernel {
        Proof::One(one) => run_stage::<1, _>(one, rest, source, tags),
        #[cfg(test)]
        Proof::Wrong(wrong) => run_stage::<8, _>(wrong, rest, source, tags),
        #[cfg(target_arch = "x86_64")]
        Proof::ShaNi1(sha) => run_stage::<1, _>(sha, rest, source, tags),
        #[cfg(target_arch = "x86_64")]
        Proof::ShaNi2(sha) => run_stage::<2, _>(sha, rest, source, tags),
        #[cfg(target_arch = "x86_64")]
        Proof::ShaNi4(sha) => run_stage::<4, _>(sha, rest, source, tags),
        #[cfg(target_arch = "x86_64")]
        Proof::Avx2(avx2) => run_stage::<8, _>(avx2, rest, source, tags),
        #[cfg(target_arch = "x86_64")]
        Proof::Avx512(avx512) => run_stage::<16, _>(avx512, rest, source, tags),
        #[cfg(target_arch = "aarch64")]
        Proof::ArmSha1(sha) => run_stage::<1, _>(sha, rest, source, tags),
        #[cfg(target_arch = "aarch64")]
        Proof::ArmSha2(sha) => run_stage::<2, _>(sha, rest, source, tags),
        #[cfg(target_arch = "aarch64")]
        Proof::ArmSha4(sha) => run_stage::<4, _>(sha, rest, source, tags),
        #[cfg(target_arch = "aarch64")]
        Proof::Neon(neon) => run_stage::<4, _>(neon, rest, source, tags),
    }
}

/// Where a stage stops, and what goes on then.
struct Rest<'k> {
    lanes_min: usize,
    narrower: &'k [Stage],
}

fn run_stage<const W: usize, C: Compress<W>>(
    kernel: C,
    rest: Rest<'_>,
    mut source: Source<'_, '_, '_>,
    tags: &mut Vec<Tag>,
) {
    let mut lanes = [Lane::IDLE; W];
    let mut states = C::States::ZERO;
    let mut active = 0;
    while active < W && source.next_into(&mut lanes[active], &mut states, active, tags) {
        active += 1;
    }
    while active >= rest.lanes_min {
        let count = compress(kernel, &lanes, active, &mut states);
        for at in (0..active).rev() {
            if lanes[at].advance(count, &mut states, at) == Next::Blocks {
                continue;
            }
            tags[lanes[at].place] = words_to_bytes(&states.chain(at));
            if !source.next_into(&mut lanes[at], &mut states, at, tags) {
                active -= 1;
                lanes[at] = lanes[active];
                states.put(at, &states.chain(active));
            }
        }
    }
    for (at, lane) in lanes[..active].iter_mut().enumerate() {
        lane.moved = states.chain(at);
    }
    states.zeroize();
    if active > 0 {
        run(rest.narrower, Source::rest(&lanes[..active]), tags);
        lanes[..active].iter_mut().for_each(|lane| lane.moved.zeroize());
    }
}

/// Hashes as many blocks of each active lane as the shortest has; how many that were.
#[inline]
fn compress<const W: usize, C: Compress<W>>(
    kernel: C,
    lanes: &[Lane<'_>; W],
    active: usize,
    states: &mut C::States,
) -> usize {
    let first = lanes[0].blocks();
    // An idle lane hashes what the first does, for nothing.
    let blocks: [_; W] = array::from_fn(|at| if at < active { lanes[at].blocks() } else { first });
    let count = blocks.iter().fold(first.len(), |least, blocks| least.min(blocks.len()));
    kernel.compress(states, &blocks.map(|blocks| &blocks[..count]));
    count
}

const _: () = assert!(size_of::<Lane<'_>>() <= 4 * BLOCK_BYTES, "sixteen lanes lie on the stack");
