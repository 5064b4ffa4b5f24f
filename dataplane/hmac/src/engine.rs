//! Which kernels a batch goes through: chosen by what each costs on this processor, after a self-test.
//!
//! Enters: the processor, or a kernel's name. Leaves: an engine with the fewest lanes for which each kernel pays.
//! Refused: a kernel that is not here, or that does not equal the portable path.

use std::borrow::Borrow;
use std::sync::OnceLock;

use crate::kernel::Proof;
use crate::kernels::LANES_MAX;
use crate::stages::{self, Source, Stage};
use crate::window::Window;
use crate::{Job, Kernel, Tag, measure, portable};

/// A kernel's cost must be below this share of what it replaces: less is noise.
const GAIN_PERCENT_MAX: u64 = 97;

/// Signs batches.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Falling width; none is the portable path.
    stages: Vec<(Kernel, Stage)>,
    steps: Vec<Stage>,
    singles: Singles,
    failed: Vec<Kernel>,
}

/// How messages go that are too few for more than one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Singles {
    /// Through a lane, or the portable way where there are none.
    Ours,
    /// Each by aws-lc-rs.
    AwsLc,
}

/// Why a kernel cannot be forced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Its instructions are not there.
    #[error("this processor has no instructions for the HMAC kernel `{0}`; it has {here}", here = available())]
    Missing(Kernel),
    /// It gives other tags than the portable path.
    #[error("the HMAC kernel `{0}` does not give the tags of `portable` on this machine; do not force it")]
    SelfTest(Kernel),
}

/// Is set once, by who installs one or by the first key.
static ENGINE: OnceLock<Engine> = OnceLock::new();

/// The process' engine; measured now (a few milliseconds) if none was installed.
pub fn engine() -> &'static Engine {
    ENGINE.get_or_init(Engine::measured)
}

/// Makes `engine` the process' own; gives it back if there is one already. To be called before the first key.
pub fn install(engine: Engine) -> Result<(), Engine> {
    ENGINE.set(engine)
}

impl Engine {
    /// The fastest for each size of batch on this processor.
    #[must_use]
    pub fn measured() -> Self {
        let (mut priced, mut failed) = (Vec::new(), Vec::new());
        for kernel in Kernel::ALL {
            let Some(proof) = kernel.detect() else { continue };
            match Self::tested(kernel, proof) {
                Ok(engine) => priced.push((kernel, proof, measure::batch_cost_ns(&engine, kernel.lanes()))),
                Err(_) => failed.push(kernel),
            }
        }
        let (alone, mut singles) = (Self::alone(), Singles::Ours);
        if measure::equals_portable(&alone) {
            let cost = measure::batch_cost_ns(&alone, 1);
            if let Some(one) = priced.iter_mut().filter(|one| one.0.lanes() == 1).min_by_key(|one| one.2)
                && cost * 100 < one.2 * GAIN_PERCENT_MAX
            {
                // As few as one lane would take go to aws-lc-rs in its place.
                (one.2, singles) = (cost, Singles::AwsLc);
            }
        } else {
            failed.push(Kernel::OneAwsLc);
        }
        Self { singles, failed, ..Self::of(chosen(&priced)) }
    }

    /// One kernel for everything, also where it is not the fastest: for comparisons.
    pub fn forced(kernel: Kernel) -> Result<Self, KernelError> {
        if kernel == Kernel::Portable {
            return Ok(Self::of(Vec::new()));
        }
        if kernel == Kernel::OneAwsLc {
            let engine = Self::alone();
            let right = measure::equals_portable(&engine);
            return right.then_some(engine).ok_or(KernelError::SelfTest(kernel));
        }
        let proof = kernel.detect().ok_or(KernelError::Missing(kernel))?;
        Self::tested(kernel, proof)
    }

    /// Its kernels, the widest first, each with the fewest lanes for which it is used.
    pub fn kernels(&self) -> impl Iterator<Item = (Kernel, usize)> {
        let singles = (self.singles == Singles::AwsLc).then_some((Kernel::OneAwsLc, 1));
        let ours = self.stages.iter().map(|(kernel, stage)| (*kernel, stage.lanes_min));
        ours.filter(move |(kernel, _)| singles.is_none() || kernel.lanes() > 1).chain(singles)
    }

    pub(crate) fn singles(&self) -> Singles {
        self.singles
    }

    /// Kernels that were left out as they failed the self-test.
    #[must_use]
    pub fn failed(&self) -> &[Kernel] {
        &self.failed
    }

    /// Replaces `tags` by one tag per job, in order.
    pub fn sign_jobs<'a, J: Borrow<Job<'a>>>(&self, jobs: impl IntoIterator<Item = J>, tags: &mut Vec<Tag>) {
        tags.clear();
        let mut jobs = jobs.into_iter().map(|job| *job.borrow());
        if self.steps.is_empty() {
            match self.singles {
                Singles::Ours => tags.extend(jobs.map(|job| portable::sign(job.key.state(), job.parts))),
                Singles::AwsLc => tags.extend(jobs.map(|job| job.key.sign_alone(job.parts))),
            }
            return;
        }
        self.sign_in_lanes(&mut jobs, tags);
    }

    fn sign_in_lanes(&self, jobs: &mut dyn Iterator<Item = Job<'_>>, tags: &mut Vec<Tag>) {
        let mut window = Window::new(jobs);
        let count = window.fill(tags);
        if count == 0 {
            return;
        }
        let first = self.steps.iter().position(|stage| stage.lanes_min <= count);
        let first = first.expect("the last stage takes a single lane");
        if self.singles == Singles::AwsLc && first + 1 == self.steps.len() {
            while let Some((job, place)) = window.next(tags) {
                tags[place] = job.key.sign_alone(job.parts);
            }
            return;
        }
        stages::run(&self.steps[first..], Source::jobs(&mut window), tags);
    }

    /// This kernel alone, if it gives the portable tags.
    fn tested(kernel: Kernel, proof: Proof) -> Result<Self, KernelError> {
        let engine = Self::of(vec![(kernel, Stage { kernel: proof, lanes_min: 1 })]);
        if !measure::equals_portable(&engine) {
            return Err(KernelError::SelfTest(kernel));
        }
        Ok(engine)
    }

    /// aws-lc-rs alone, a message at a time.
    fn alone() -> Self {
        Self { singles: Singles::AwsLc, ..Self::of(Vec::new()) }
    }

    fn of(stages: Vec<(Kernel, Stage)>) -> Self {
        let steps = stages.iter().map(|(_, stage)| *stage).collect();
        Self { stages, steps, singles: Singles::Ours, failed: Vec::new() }
    }
}

/// Keeps each kernel that beats the narrower ones for some number of lanes; the priced are in order of width.
fn chosen(priced: &[(Kernel, Proof, u64)]) -> Vec<(Kernel, Stage)> {
    let Some(single) = priced.iter().filter(|one| one.0.lanes() == 1).min_by_key(|one| one.2) else {
        return Vec::new();
    };
    // The least cost of a batch with as many messages.
    let mut best: [u64; LANES_MAX + 1] = std::array::from_fn(|count| single.2 * count as u64);
    let mut kept = vec![(single.0, Stage { kernel: single.1, lanes_min: 1 })];
    for (kernel, proof, cost) in priced {
        let lanes = kernel.lanes();
        let pays = (2..=lanes).find(|&count| cost * 100 < best[count] * GAIN_PERCENT_MAX);
        let Some(lanes_min) = pays else { continue };
        kept.insert(0, (*kernel, Stage { kernel: *proof, lanes_min }));
        for count in lanes_min..=LANES_MAX {
            best[count] = best[count].min(cost + best[count.saturating_sub(lanes)]);
        }
    }
    kept
}

fn available() -> String {
    let here: Vec<_> =
        Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()).map(Kernel::name).collect();
    here.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::one::One;
    use crate::kernels::wrong::Wrong;

    /// Costs of a full batch, and the kernels that are kept, each from its number of lanes on.
    type Case = (&'static [(Kernel, u64)], &'static [(Kernel, usize)]);

    #[test]
    fn a_wrong_kernel_is_refused() {
        let error = Engine::tested(Kernel::Avx2, Proof::Wrong(Wrong)).expect_err("its tags are wrong");
        assert_eq!(error, KernelError::SelfTest(Kernel::Avx2));
        assert!(error.to_string().contains("do not force it"), "{error}");
    }

    #[test]
    fn what_is_too_few_for_lanes_goes_to_aws_lc() {
        let wide = Kernel::ALL.into_iter().filter(|kernel| kernel.lanes() > 1);
        let wide = wide.filter_map(|kernel| Some((kernel, Stage { kernel: kernel.detect()?, lanes_min: 2 })));
        let one = (Kernel::One, Stage { kernel: Proof::One(One), lanes_min: 1 });
        let stages: Vec<_> = wide.take(1).chain([one]).collect();
        let wide = stages.len() - 1;
        let engine = Engine { singles: Singles::AwsLc, ..Engine::of(stages) };
        assert!(measure::equals_portable(&engine), "alone, in lanes, and what lanes leave");
        let kernels: Vec<_> = engine.kernels().collect();
        assert_eq!((kernels.len(), kernels.last()), (wide + 1, Some(&(Kernel::OneAwsLc, 1))));
    }

    #[test]
    fn a_kernel_is_kept_from_where_it_pays() {
        use Kernel::{Avx2, Avx512, One as Single, ShaNi1, ShaNi2, ShaNi4};
        let cases: [Case; 6] = [
            (&[], &[]),
            (&[(Single, 100)], &[(Single, 1)]),
            // The cheaper of two that take one lane.
            (&[(Single, 100), (ShaNi1, 90)], &[(ShaNi1, 1)]),
            // Twice the lanes at twice the cost is no gain; sixteen for four pairs and one is.
            (
                &[(Single, 100), (ShaNi2, 120), (ShaNi4, 240), (Avx512, 500)],
                &[(Avx512, 9), (ShaNi2, 2), (Single, 1)],
            ),
            // Without SHA extensions the wide ones pay early.
            (&[(Single, 400), (Avx2, 1100), (Avx512, 920)], &[(Avx512, 3), (Avx2, 3), (Single, 1)]),
            // A gain that could be noise is none.
            (&[(Single, 100), (ShaNi2, 198)], &[(Single, 1)]),
        ];
        for (costs, expected) in cases {
            let priced: Vec<_> =
                costs.iter().map(|(kernel, cost)| (*kernel, Proof::One(One), *cost)).collect();
            let kept: Vec<_> =
                chosen(&priced).iter().map(|(kernel, stage)| (*kernel, stage.lanes_min)).collect();
            assert_eq!(kept, expected, "{costs:?}");
        }
    }
}
