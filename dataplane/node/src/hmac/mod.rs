//! Which kernels compute this process' HMACs: the one that `--hmac` names, or for each size of batch the fastest.
//!
//! Enters: a word. Leaves: the engine of the process, a line for log and status, a metric. Refused: a word that is no
//! kernel, and a kernel that does not run here or does not give the right tags.

mod batches;

use std::fmt;
use std::str::FromStr;

pub use batches::{BatchSizes, HmacBatches};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use zen_hmac::{Engine, Kernel, KernelError, UnknownKernel};

/// In place of a kernel's name.
const AUTO: &str = "auto";

/// What `--hmac` says.
#[derive(Clone, Debug)]
pub enum Choice {
    /// What is the fastest here, by measuring.
    Auto,
    /// One kernel for every batch, which has passed its self-test.
    Forced(Kernel, Engine),
}

/// Why a word is no choice.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChoiceError {
    /// There is no such kernel.
    #[error("{0}; this processor has {AUTO}, {here}", here = here())]
    Unknown(#[from] UnknownKernel),
    /// It cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(word: &str) -> Result<Self, ChoiceError> {
        if word == AUTO {
            return Ok(Self::Auto);
        }
        let kernel: Kernel = word.parse()?;
        Ok(Self::Forced(kernel, Engine::forced(kernel)?))
    }
}

/// The kernels of this process. Its `Display` is a line for the log and for `/status`.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    engine: &'static Engine,
    forced: Option<Kernel>,
}

impl Kernels {
    /// Makes a choice that of the process; to be called once, before there is a key.
    pub fn install(choice: Choice) -> Self {
        let (engine, forced) = match choice {
            Choice::Auto => (Engine::measured(), None),
            Choice::Forced(kernel, engine) => (engine, Some(kernel)),
        };
        zen_hmac::install(engine).expect("no key is made before the configuration is read");
        Self { engine: zen_hmac::engine(), forced }
    }

    /// Says in the log what should not be.
    pub fn warn(&self) {
        for kernel in self.engine.failed() {
            tracing::error!(
                %kernel,
                "this HMAC kernel does not give the right tags on this machine and is not used: the processor, the hypervisor \
                 or the memory is broken"
            );
        }
    }

    /// Each kernel with the fewest messages from which it is used; the widest first.
    fn rows(&self) -> Vec<(Kernel, usize)> {
        let rows: Vec<_> = self.engine.kernels().collect();
        if rows.is_empty() { vec![(Kernel::Portable, 1)] } else { rows }
    }
}

impl fmt::Display for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kernel, messages) in self.rows() {
            write!(f, "{kernel} from {messages}, ")?;
        }
        f.write_str(if self.forced.is_some() { "forced" } else { "measured" })
    }
}

impl Collector for Kernels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "HMAC kernels in use, each with the fewest messages of a batch from which it is used";
        let mut metric = encoder.encode_descriptor("zen_hmac_kernel_info", help, None, MetricType::Gauge)?;
        for (kernel, messages) in self.rows() {
            let labels = [("kernel", kernel.name()), ("messages_min", &messages.to_string())];
            ConstGauge::new(1_u64).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn here() -> String {
    let here = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available());
    here.map(Kernel::name).collect::<Vec<_>>().join(", ")
}
