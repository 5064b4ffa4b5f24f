//! CPU of an event with receipts of its outcome, beside none, at half load.
//!
//! Two meshes run side by side, of which one has the load; what the idle one uses is no part of the figures. Receipts are
//! written by a thread of the egress, whose CPU is the process's and counts.

use std::path::Path;

use super::costs::{half_load, measure, plan};
use super::{Options, Rounds, goal};
use crate::bench::{Contender, Kind, Programs};
use crate::error::LabError;
use crate::lab::{Shape, Tuning};
use crate::receipts::SECTION;

const CPU_RATIO_MAX: f64 = 1.03;
/// The plain endpoint of [`Shape::COSTS`].
const PLAIN: usize = 0;

/// Prints both and their ratio; whether the goal was met.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let programs = Programs { node: program.to_owned() };
    let mut meshes = Vec::new();
    for (name, sections) in [("off", ""), ("on", SECTION)] {
        let tuning = Tuning { sections: ["", sections], ..Tuning::NONE };
        let directory = options.dir.join(name);
        let mesh =
            Contender::start_tuned(Kind::Uring, &directory, options.workers, &programs, Shape::COSTS, tuning)
                .await?;
        meshes.push(mesh);
    }
    let rate = match options.rate {
        Some(rate) => rate,
        None => half_load(&mut meshes[1], options, PLAIN).await?,
    };
    println!(
        "receipts: realistic GitHub events, {rate} events/s; CPU µs per event of both nodes and the kernel"
    );
    let (mut off, mut on, mut ratios) = (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..options.rounds {
        let mut us = [0.0; 2];
        for turn in 0..2 {
            let at = (round + turn) % 2;
            let load = plan(&meshes[at], options, PLAIN, rate)?;
            us[at] = measure(&mut meshes[at], load, 1, options.length()).await?;
        }
        eprintln!("round {}: off {:.1} µs, on {:.1} µs", round + 1, us[0], us[1]);
        off.0.push(us[0]);
        on.0.push(us[1]);
        ratios.0.push(us[1] / us[0]);
    }
    for mesh in &mut meshes {
        mesh.stop().await;
    }
    println!("CPU µs per event: off {}, on {}", off.text(1), on.text(1));
    Ok(goal("receipts-cpu", &ratios, CPU_RATIO_MAX))
}
