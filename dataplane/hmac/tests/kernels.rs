//! Every kernel that this processor has, each forced in turn, and the engine that measuring chooses, against aws-lc-rs.

mod support;

use std::collections::HashMap;

use proptest::prelude::*;
use support::{bytes, engines, oracle};
use zen_hmac::{Engine, Job, Kernel, KernelError, PreparedKey, Tag, UnknownKernel};

const SECRETS: usize = 7;

fn secret(at: usize) -> Vec<u8> {
    let at = at % SECRETS;
    bytes(at as u8, [32, 0, 1, 63, 64, 65, 200][at])
}

/// Messages of these lengths, with their keys and tags; each begins at another place of its block of memory.
struct Batch {
    keys: Vec<PreparedKey>,
    memory: Vec<Vec<u8>>,
    expected: Vec<Vec<u8>>,
}

impl Batch {
    fn of(lengths: impl IntoIterator<Item = usize>) -> Self {
        let keys = (0..SECRETS).map(|at| PreparedKey::new(&secret(at))).collect();
        let memory: Vec<_> =
            lengths.into_iter().enumerate().map(|(at, length)| bytes(at as u8, at % 64 + length)).collect();
        let mut batch = Self { keys, memory, expected: Vec::new() };
        batch.expected = (0..batch.memory.len()).map(|at| oracle(&secret(at), batch.message(at))).collect();
        batch
    }

    fn message(&self, at: usize) -> &[u8] {
        &self.memory[at][at % 64..]
    }

    /// The jobs, cut in two at a place that `split` finds from number and length.
    fn jobs(&self, split: impl Fn(usize, usize) -> usize) -> Vec<Job<'_>> {
        let job = |at: usize| {
            let (head, body) = self.message(at).split_at(split(at, self.message(at).len()));
            Job { key: &self.keys[at % SECRETS], parts: [head, body] }
        };
        (0..self.memory.len()).map(job).collect()
    }

    fn check(&self, name: &str, engine: &Engine, split: impl Fn(usize, usize) -> usize) {
        let mut tags: Vec<Tag> = vec![[1; 32]; 2];
        engine.sign_jobs(self.jobs(split), &mut tags);
        assert_eq!(tags.len(), self.expected.len(), "{name}");
        for (at, (tag, expected)) in tags.iter().zip(&self.expected).enumerate() {
            assert_eq!(tag[..], expected[..], "{name}: message {at} of {} bytes", self.message(at).len());
        }
    }
}

#[test]
fn every_length_to_1000_in_one_batch() {
    let batch = Batch::of(0..=1000);
    for (name, engine) in engines() {
        batch.check(name, engine, |_, _| 0);
        batch.check(name, engine, |_, length| length);
        batch.check(name, engine, |at, length| at * 37 % (length + 1));
    }
}

#[test]
fn every_count_of_lanes_to_64() {
    let engines = engines();
    for count in 0..=64 {
        let equal = Batch::of(std::iter::repeat_n(200, count));
        let mixed = Batch::of((0..count).map(|at| at * 113 % 700));
        for (name, engine) in engines {
            equal.check(name, engine, |_, length| length / 2);
            mixed.check(name, engine, |at, length| at * 29 % (length + 1));
        }
    }
}

/// Around a block's end, and where the padding takes another block, in each lane and cut at each place.
#[test]
fn block_boundaries_cut_everywhere() {
    let lengths = [0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129];
    for (name, engine) in engines() {
        for length in lengths {
            let batch = Batch::of(std::iter::repeat_n(length, length + 1));
            batch.check(name, engine, |at, _| at);
        }
        let batch = Batch::of(lengths.into_iter().cycle().take(100));
        batch.check(name, engine, |at, length| (at / 3).min(length));
    }
}

/// One long message among short ones, at each place: the others must not wait for it, nor take its tag.
#[test]
fn one_long_message_among_short_ones() {
    for (name, engine) in engines() {
        for place in 0..20 {
            let batch = Batch::of((0..20).map(|at| if at == place { 5000 } else { at }));
            batch.check(name, engine, |_, length| length.min(100));
        }
    }
}

#[test]
fn the_same_jobs_give_the_same_tags_again() {
    let batch = Batch::of((0..130).map(|at| at * 7));
    for (name, engine) in engines() {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        engine.sign_jobs(batch.jobs(|_, _| 0), &mut first);
        engine.sign_jobs(batch.jobs(|_, length| length), &mut second);
        assert_eq!(first, second, "{name}");
        let places: HashMap<_, _> = first.iter().zip(0..).collect();
        assert_eq!(places.len(), 130, "{name}: a tag stands twice");
    }
}

#[test]
fn each_kernel_has_a_name_that_finds_it() {
    for kernel in Kernel::ALL {
        assert_eq!(kernel.name().parse(), Ok(kernel));
    }
    let wrong: Result<Kernel, UnknownKernel> = "avx9".parse();
    let message = wrong.expect_err("no such kernel").to_string();
    assert!(message.contains("`avx9`") && message.contains("sha-ni-x2"), "{message}");
}

#[test]
fn a_kernel_of_another_processor_is_refused() {
    let absent = Kernel::ALL.into_iter().find(|kernel| !kernel.is_available()).expect("no machine has all");
    let error = Engine::forced(absent).expect_err("its instructions are not there");
    assert_eq!(error, KernelError::Missing(absent));
    assert!(error.to_string().contains("it has portable, one-aws-lc, one"), "{error}");
}

/// Wide before narrow, the last for a single message, and none that failed its self-test.
#[test]
fn what_measuring_chooses_is_in_order() {
    let engine = Engine::measured();
    assert_eq!(engine.failed(), []);
    let kernels: Vec<_> = engine.kernels().collect();
    assert!(kernels.iter().all(|(kernel, least)| (1..=kernel.lanes()).contains(least)), "{kernels:?}");
    assert!(kernels.is_sorted_by(|wide, narrow| wide.0.lanes() >= narrow.0.lanes()), "{kernels:?}");
    assert!(matches!(kernels.last(), Some((last, 1)) if last.lanes() == 1), "{kernels:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_batch_equals_the_oracle(
        jobs in proptest::collection::vec((0_usize..=1000, 0_usize..=1000), 1..=64),
    ) {
        let batch = Batch::of(jobs.iter().map(|job| job.0));
        for (name, engine) in engines() {
            batch.check(name, engine, |at, length| jobs[at].1.min(length));
        }
    }
}
