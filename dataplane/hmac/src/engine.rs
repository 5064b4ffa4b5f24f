//! Which kernels a batch goes through: chosen by what each costs on this processor, after a self-test.
//!
//! Enters: the processor, or a kernel's name. Leaves: an engine with the fewest lanes for which each kernel pays.
//! Refused: a kernel that is not here, or that does not equal the portable path.

use std::borrow::Borrow;
use std::sync::OnceLock;

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
    failed: Vec<Kernel>,
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
            let engine = Self::of(vec![(kernel, Stage { kernel: proof, lanes_min: 1 })]);
            if measure::equals_portable(&engine) {
                priced.push((kernel, proof, measure::batch_cost_ns(&engine, kernel.lanes())));
            } else {
                failed.push(kernel);
            }
        }
        let mut engine = Self::of(chosen(&priced));
        engine.failed = failed;
        engine
    }

    /// One kernel for everything, also where it is not the fastest: for comparisons.
    pub fn forced(kernel: Kernel) -> Result<Self, KernelError> {
        if kernel == Kernel::Portable {
            return Ok(Self::of(Vec::new()));
        }
        let proof = kernel.detect().ok_or(KernelError::Missing(kernel))?;
        let engine = Self::of(vec![(kernel, Stage { kernel: proof, lanes_min: 1 })]);
        if !measure::equals_portable(&engine) {
            return Err(KernelError::SelfTest(kernel));
        }
        Ok(engine)
    }

    /// Its kernels, the widest first, each with the fewest lanes for which it is used.
    pub fn kernels(&self) -> impl Iterator<Item = (Kernel, usize)> {
        self.stages.iter().map(|(kernel, stage)| (*kernel, stage.lanes_min))
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
            tags.extend(jobs.map(|Job { key, parts }| portable::sign(key.state(), parts)));
            return;
        }
        self.sign_in_lanes(&mut jobs, tags);
    }

    fn sign_in_lanes(&self, jobs: &mut dyn Iterator<Item = Job<'_>>, tags: &mut Vec<Tag>) {
        let mut window = Window::new(jobs);
        let count = window.fill(tags);
        let first = self.steps.iter().position(|stage| stage.lanes_min <= count);
        if let Some(first) = first {
            stages::run(&self.steps[first..], Source::jobs(&mut window), tags);
        }
    }

    fn of(stages: Vec<(Kernel, Stage)>) -> Self {
        let steps = stages.iter().map(|(_, stage)| *stage).collect();
        Self { stages, steps, failed: Vec::new() }
    }
}

/// Keeps each kernel that beats the narrower ones for some number of lanes; the priced are in order of width.
fn chosen<P: Copy>(priced: &[(Kernel, P, u64)]) -> Vec<(Kernel, Stage)>
where
    Stage: From<(P, usize)>,
{
    let Some(single) = priced.iter().filter(|one| one.0.lanes() == 1).min_by_key(|one| one.2) else {
        return Vec::new();
    };
    // The least cost of a batch with as many messages.
    let mut best: [u64; LANES_MAX + 1] = std::array::from_fn(|count| single.2 * count as u64);
    let mut kept = vec![(single.0, Stage::from((single.1, 1)))];
    for (kernel, proof, cost) in priced {
        let lanes = kernel.lanes();
        let pays = (2..=lanes).find(|&count| cost * 100 < best[count] * GAIN_PERCENT_MAX);
        let Some(lanes_min) = pays else { continue };
        kept.insert(0, (*kernel, Stage::from((*proof, lanes_min))));
        for count in lanes_min..=LANES_MAX {
            best[count] = best[count].min(cost + best[count.saturating_sub(lanes)]);
        }
    }
    kept
}

impl From<(crate::kernel::Proof, usize)> for Stage {
    fn from((kernel, lanes_min): (crate::kernel::Proof, usize)) -> Self {
        Self { kernel, lanes_min }
    }
}

fn available() -> String {
    let here: Vec<_> =
        Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()).map(Kernel::name).collect();
    here.join(", ")
}
