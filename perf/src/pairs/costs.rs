//! CPU of a condition, a transform and a fan-out of three, for one event at half load, beside the plain path.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Options, Rounds};
use crate::bench::{Contender, Kind, Programs};
use crate::error::LabError;
use crate::lab::{COSTS, Shape};
use crate::load::{LoadPlan, LoadState, run_load};
use crate::random::system_seed;
use crate::samples::{Samples, Sizes};

const WARM_UP: Duration = Duration::from_secs(1);
const FULL: Duration = Duration::from_secs(3);

/// Prints a table; there is no goal.
pub(super) async fn run(options: &Options, program: &Path) -> Result<bool, LabError> {
    let programs = Programs { node: program.to_owned() };
    let mut contender =
        Contender::start_shaped(Kind::Uring, &options.dir, options.workers, &programs, Shape::COSTS).await?;
    let rate = match options.rate {
        Some(rate) => rate,
        // The dearest of them must still be below what the machine can do.
        None => half_load(&mut contender, options, COSTS.len() - 1).await?,
    };
    println!(
        "costs: realistic GitHub events of 1 to 30 KB, {rate} events/s; CPU µs per event of both nodes and the kernel"
    );
    let mut us: Vec<Rounds> = COSTS.iter().map(|_| Rounds::default()).collect();
    for round in 0..options.rounds {
        for turn in 0..COSTS.len() {
            let at = (round + turn) % COSTS.len();
            let load = plan(&contender, options, at, rate)?;
            us[at].0.push(measure(&mut contender, load, COSTS[at].1, options.length()).await?);
        }
        let texts: Vec<String> = us.iter().map(|one| format!("{:.1}", one.0[round])).collect();
        eprintln!("round {}: {} µs", round + 1, texts.join(", "));
    }
    contender.stop().await;
    println!("\n| | µs per event | beside the plain path |\n|---|---|---|");
    for ((name, _), own) in COSTS.iter().zip(&us) {
        let ratios = Rounds(own.0.iter().zip(&us[0].0).map(|(own, plain)| own / plain).collect());
        println!("| {name} | {} | {} |", own.text(1), ratios.text(2));
    }
    Ok(true)
}

/// Half of the most events a second that come through an endpoint of [`COSTS`].
pub(super) async fn half_load(
    contender: &mut Contender,
    options: &Options,
    endpoint: usize,
) -> Result<u32, LabError> {
    let plan = plan(contender, options, endpoint, 0)?;
    let state = Arc::new(LoadState::default());
    let before = contender.delivered().await;
    let begun = std::time::Instant::now();
    let sending = tokio::spawn(run_load(plan, Arc::clone(&state)));
    tokio::time::sleep(FULL).await;
    state.stop();
    sending.await.expect("the load does not panic");
    let accepted = state.accepted.load(Ordering::Relaxed) as f64;
    contender.await_delivered(before + accepted * f64::from(COSTS[endpoint].1)).await?;
    Ok((accepted / begun.elapsed().as_secs_f64() / 2.0) as u32)
}

/// CPU microseconds per event until its last delivery.
pub(super) async fn measure(
    contender: &mut Contender,
    plan: LoadPlan,
    deliveries: u32,
    length: Duration,
) -> Result<f64, LabError> {
    let warm =
        LoadPlan { events_max: (WARM_UP.as_secs() * u64::from(plan.rate_per_s)).max(1), ..plan.clone() };
    let events = (length.as_secs_f64() * f64::from(plan.rate_per_s)) as u64;
    carry(contender, warm, deliveries).await?;
    let before = contender.cpu();
    let all = LoadPlan { events_max: events, run: system_seed(), ..plan };
    carry(contender, all, deliveries).await?;
    Ok(contender.cpu().since(&before).per(events as f64).machine())
}

async fn carry(contender: &mut Contender, plan: LoadPlan, deliveries: u32) -> Result<(), LabError> {
    let state = Arc::new(LoadState::default());
    let (before, events) = (contender.delivered().await, plan.events_max);
    let report = run_load(plan, Arc::clone(&state)).await;
    if !report.refused.is_empty() {
        return Err(LabError::Unequal(format!("events were refused, by status: {:?}", report.refused)));
    }
    contender.await_delivered(before + events as f64 * f64::from(deliveries)).await
}

pub(super) fn plan(
    contender: &Contender,
    options: &Options,
    endpoint: usize,
    rate: u32,
) -> Result<LoadPlan, LabError> {
    Ok(LoadPlan {
        endpoints: contender.lab.endpoints[endpoint..=endpoint].into(),
        samples: Arc::new(Samples::new(Sizes::Realistic)?),
        connections: options.connections,
        rate_per_s: rate,
        ..contender.load_plan(Vec::new().into(), 0)?
    })
}
