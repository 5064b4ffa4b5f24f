//! What a kernel costs here, and whether it is right: both by batches such as the node signs.

use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::{Job, PreparedKey, Tag, portable};

/// The message that prices a kernel, in its two parts.
const PARTS_BYTES: [usize; 2] = [200, 824];
/// Batches in a round, and rounds; the least counts, as everything else is what the machine did meanwhile.
const BATCHES: u32 = 6;
const ROUNDS: u32 = 12;
/// No kernel is priced for longer; a busy machine then gets fewer rounds.
const PRICING: Duration = Duration::from_millis(2);
/// Messages of the self-test: past two windows, and past every length of the padding's last two blocks.
const TESTED_JOBS: usize = 200;

/// Nanoseconds for a batch that fills the lanes.
pub(crate) fn batch_cost_ns(engine: &Engine, lanes: usize) -> u64 {
    let key = PreparedKey::prepare(&[7; 32], engine.singles());
    let parts = PARTS_BYTES.map(|bytes| vec![0x5A; bytes]);
    let job = Job { key: &key, parts: [&parts[0], &parts[1]] };
    let mut tags = Vec::with_capacity(lanes);
    let mut least = u64::MAX;
    let started = Instant::now();
    for round in 0..ROUNDS {
        if round > 0 && started.elapsed() > PRICING {
            break;
        }
        let begun = Instant::now();
        for _ in 0..BATCHES {
            engine.sign_jobs(std::iter::repeat_n(job, lanes), &mut tags);
        }
        least = least.min(begun.elapsed().as_nanos() as u64);
    }
    (least / u64::from(BATCHES)).max(1)
}

/// Whether every tag of a batch of many lengths, keys and splits equals the portable one.
pub(crate) fn equals_portable(engine: &Engine) -> bool {
    let key = |seed: u8| PreparedKey::prepare(&vec![seed; 20 + 17 * usize::from(seed)], engine.singles());
    let keys: Vec<_> = (0..5).map(key).collect();
    let bytes: Vec<u8> = (0..TESTED_JOBS * 3).map(|at| (at * 31 / 4) as u8).collect();
    let job = |at: usize| {
        // Neighbours differ in length, and no two messages begin alike.
        let message = &bytes[at..at + at * 67 % TESTED_JOBS];
        let (head, body) = message.split_at(at * 13 % (message.len() + 1));
        Job { key: &keys[at % keys.len()], parts: [head, body] }
    };
    let mut tags: Vec<Tag> = Vec::new();
    (0..=17).chain([33, TESTED_JOBS]).all(|count| {
        engine.sign_jobs((0..count).map(job), &mut tags);
        tags.len() == count
            && (0..count)
                .map(job)
                .zip(&tags)
                .all(|(job, tag)| portable::sign(job.key.state(), job.parts) == *tag)
    })
}
