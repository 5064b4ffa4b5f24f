//! CPU of an event with receipts of its outcome, beside none, at half load.
//!
//! Receipts are written by a thread of the egress, whose CPU is the process's and counts.

use std::path::Path;

use super::switched::off_and_on;
use super::{Options, goal};
use crate::bench::{Contender, Kind, Programs};
use crate::error::LabError;
use crate::lab::{Shape, Tuning};
use crate::receipts::SECTION;

const CPU_RATIO_MAX: f64 = 1.03;

/// Prints both and their ratio; whether the goal was met.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let programs = Programs { node: program.to_owned() };
    let mut meshes = Vec::with_capacity(2);
    for (name, sections) in [("off", ""), ("on", SECTION)] {
        let tuning = Tuning { sections: ["", sections], ..Tuning::NONE };
        let directory = options.dir.join(name);
        let mesh =
            Contender::start_tuned(Kind::Uring, &directory, options.workers, &programs, Shape::COSTS, tuning)
                .await?;
        meshes.push(mesh);
    }
    let ratios = off_and_on("receipts", &mut meshes, options).await?;
    Ok(goal("receipts-cpu", &ratios, CPU_RATIO_MAX))
}
