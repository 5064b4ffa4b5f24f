//! CPU of an event with all BPF programs on, beside all off, at half load.
//!
//! Workers are pinned in both, since steering needs that.

use std::path::Path;

use super::switched::off_and_on;
use super::{Options, goal};
use crate::bench::{Contender, Kind, Programs};
use crate::error::LabError;
use crate::lab::{Shape, Tuning};

const CPU_RATIO_MAX: f64 = 1.03;
/// Workers of each node at least: one for each core that steering tells apart.
const WORKERS: u32 = 2;
/// Budgets that are charged for each packet and never used up.
const ALL_ON: &str = "[ebpf.guard]\nmode = \"enforce\"\ndeny = [\"192.0.2.0/24\", \"2001:db8::/32\"]\n\
    syn_per_second = 1000000\npackets_per_second = 100000000\n[ebpf.fence]\nmode = \"enforce\"\n[ebpf.steer]\n\
    [ebpf.observe]\n";

/// Prints both and their ratio; whether the goal was met.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let programs = Programs { node: program.to_owned() };
    let workers = options.workers.max(WORKERS);
    let mut meshes = Vec::with_capacity(2);
    for (name, sections) in [("off", ""), ("on", ALL_ON)] {
        let tuning = Tuning { pin_workers: true, sections: [sections; 2], ..Tuning::NONE };
        let directory = options.dir.join(name);
        let mesh =
            Contender::start_tuned(Kind::Uring, &directory, workers, &programs, Shape::COSTS, tuning).await?;
        meshes.push(mesh);
    }
    let ratios = off_and_on("ebpf", &mut meshes, options).await?;
    Ok(goal("ebpf-cpu", &ratios, CPU_RATIO_MAX))
}
