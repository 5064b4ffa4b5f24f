//! Steering new connections of one group of listeners to the workers' processors.

use std::os::fd::AsFd;

use aya::maps::{Array, PerCpuArray, ReusePortSockArray};
use aya::programs::SkReuseport;
use zen_ebpf_abi::steer::{Counts, PROCESSORS_MAX, WORKERS_MAX};

use crate::error::{EbpfError, reason};
use crate::objects::{Loaded, Owned, STEER, table};

const PROGRAM: &str = "zen_steer";
const KERNEL: &str = "5.14";

/// The steerer of one group. Its end detaches nothing: the group keeps the program until its last listener is closed.
pub struct Steer {
    loaded: Loaded,
    listeners: ReusePortSockArray<Owned>,
    counts: PerCpuArray<Owned, Counts>,
}

impl Steer {
    /// Loads it for workers that are pinned; `processors` are theirs, in their order. Needs privileges.
    pub fn load(processors: &[usize]) -> Result<Self, EbpfError> {
        let count = processors.len();
        if count > WORKERS_MAX as usize {
            return Err(EbpfError::TooMany { table: "LISTENERS", count, max: WORKERS_MAX });
        }
        let mut loaded = STEER.load(&[])?;
        let mut workers: Array<_, u32> = loaded.map_mut("WORKERS")?;
        // The last worker of a processor has it; they share it anyway.
        for (worker, processor) in (1..).zip(processors).filter(|(_, at)| **at < PROCESSORS_MAX as usize) {
            table("WORKERS", workers.set(*processor as u32, worker, 0))?;
        }
        let (listeners, counts) = (loaded.map("LISTENERS")?, loaded.map("COUNTS")?);
        loaded.program(PROGRAM, KERNEL, SkReuseport::load)?;
        Ok(Self { loaded, listeners, counts })
    }

    /// Attaches it to the group of `listeners`, which listen already, one a worker in their order. Needs no privileges.
    pub fn attach(&mut self, listeners: &[impl AsFd]) -> Result<(), EbpfError> {
        for (worker, listener) in (0..).zip(listeners) {
            table("LISTENERS", self.listeners.set(worker, &listener.as_fd(), 0))?;
        }
        let Some(first) = listeners.first() else { return Ok(()) };
        let program = self.loaded.program(PROGRAM, KERNEL, |_: &mut SkReuseport| Ok(()))?;
        program.attach(first.as_fd()).map_err(|error| EbpfError::Attach {
            program: PROGRAM,
            place: "the listeners".to_owned(),
            reason: reason(&error),
        })
    }

    /// What it counted.
    pub fn counts(&self) -> Result<Counts, EbpfError> {
        let each = table("COUNTS", self.counts.get(&0, 0))?;
        let sum = each.iter().fold(Counts::default(), |sum, counts| Counts {
            steered: sum.steered + counts.steered,
            hashed: sum.hashed + counts.hashed,
        });
        Ok(sum)
    }
}
