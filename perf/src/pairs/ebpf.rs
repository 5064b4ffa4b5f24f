//! CPU of an event with all BPF programs on, beside all off, at half load.
//!
//! Two meshes run side by side, of which one has the load; what the idle one uses is no part of the figures. Workers are
//! pinned in both, since steering needs that.

use std::path::Path;

use super::costs::{half_load, measure, plan};
use super::{Options, Rounds, goal};
use crate::bench::{Contender, Kind, Programs};
use crate::error::LabError;
use crate::lab::{Shape, Tuning};

const CPU_RATIO_MAX: f64 = 1.03;
/// The plain endpoint of [`Shape::COSTS`].
const PLAIN: usize = 0;
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
    let mut meshes = Vec::new();
    for (name, sections) in [("off", ""), ("on", ALL_ON)] {
        let tuning = Tuning { pin_workers: true, sections: [sections; 2], ..Tuning::NONE };
        let directory = options.dir.join(name);
        let mesh =
            Contender::start_tuned(Kind::Uring, &directory, workers, &programs, Shape::COSTS, tuning).await?;
        meshes.push(mesh);
    }
    let rate = match options.rate {
        Some(rate) => rate,
        None => half_load(&mut meshes[1], options, PLAIN).await?,
    };
    println!("ebpf: realistic GitHub events, {rate} events/s; CPU µs per event of both nodes and the kernel");
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
    Ok(goal("ebpf-cpu", &ratios, CPU_RATIO_MAX))
}
