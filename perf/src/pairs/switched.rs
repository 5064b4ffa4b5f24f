//! CPU of an event with something on, beside the same with it off, at half load.
//!
//! Two meshes run side by side, of which one has the load; what the idle one uses is no part of the figures.

use super::costs::{half_load, measure, plan};
use super::{Options, Rounds};
use crate::bench::Contender;
use crate::error::LabError;

/// The plain endpoint of [`Shape::COSTS`](crate::lab::Shape::COSTS).
const PLAIN: usize = 0;

/// Measures the first mesh, which has it off, and the second in turns, stops both, and prints each; the ratios on to off.
pub(super) async fn off_and_on(
    name: &str,
    meshes: &mut [Contender],
    options: &Options,
) -> Result<Rounds, LabError> {
    let rate = match options.rate {
        Some(rate) => rate,
        None => half_load(&mut meshes[1], options, PLAIN).await?,
    };
    println!(
        "{name}: realistic GitHub events, {rate} events/s; CPU µs per event of both nodes and the kernel"
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
    for mesh in meshes {
        mesh.stop().await;
    }
    println!("CPU µs per event: off {}, on {}", off.text(1), on.text(1));
    Ok(ratios)
}
