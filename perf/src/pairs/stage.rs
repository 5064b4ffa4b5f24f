//! A lab with both nodes and its targets, and loads through it whose deliveries are timed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::TlsConnector;

use super::Options;
use super::flights::{Flights, Window};
use super::targets::{Mood, Moody, serve_fast};
use crate::bench::CpuTimes;
use crate::error::LabError;
use crate::faults::process::{Memory, memory_bound_kib};
use crate::lab::{Lab, Metrics, Process, Shape, TARGET_IDENTITY, Tuning, wait_ready};
use crate::load::{LoadPlan, LoadReport, LoadState, Record, Repeats, run_load};
use crate::random::system_seed;
use crate::samples::{Endpoint, Samples, Sizes};
use crate::tls::{source_config, target_config};

const BODY_BYTES: usize = 1024;
/// Before and behind what is measured, under the same load.
const WARM_UP_S: u64 = 2;
const COOL_DOWN_S: u64 = 1;
/// As fast as the answers come, to see what the lab carries.
const FULL_S: u64 = 4;
/// How long a rate is tried, and how often another, until the machine is half busy.
const BUSY_S: u64 = 2;
const HALF_TRIES: u32 = 5;
const HALF_ERROR: f64 = 0.03;
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);

/// Everything that runs.
pub(super) struct Stage {
    pub(super) lab: Lab,
    ingester: Process,
    egress: Process,
    /// In the order of the tuning's relayed names.
    pub(super) moody: Vec<Moody>,
    flights: Arc<Flights>,
    connections: u32,
}

impl Stage {
    /// Starts it below `options.dir`; what the tuning calls relayed are the targets with moods.
    pub(super) async fn start(
        options: &Options,
        program: &Path,
        shape: Shape,
        tuning: Tuning,
        mood: Mood,
    ) -> Result<Self, LabError> {
        let lab = Lab::make_tuned(&options.dir, shape, options.workers, tuning)?;
        let (certificate, key) = (lab.pki.certificate(TARGET_IDENTITY), lab.pki.key(TARGET_IDENTITY));
        let tls = TlsAcceptor::from(target_config(&certificate, &key, &lab.pki.bundle())?);
        let flights = Arc::new(Flights::default());
        serve_fast(lab.target, tls.clone(), Arc::clone(&flights)).await?;
        let moody = lab.routes.iter().map(|route| Moody::start(route.listen, tls.clone(), mood)).collect();
        let mut egress = lab.start(&lab.egresses[0], program)?;
        let mut ingester = lab.start(&lab.ingester, program)?;
        wait_ready(&lab.egresses[0], &mut egress).await?;
        wait_ready(&lab.ingester, &mut ingester).await?;
        Ok(Self { lab, ingester, egress, moody, flights, connections: options.connections })
    }

    /// The events per second through `endpoints` that keep the machine half busy, or what was asked for.
    pub(super) async fn half_load(
        &mut self,
        options: &Options,
        endpoints: &[Endpoint],
        is_healthy: impl Fn(usize) -> bool + Copy,
    ) -> Result<u32, LabError> {
        if let Some(rate) = options.rate {
            return Ok(rate);
        }
        let before = self.delivered().await;
        let (plan, state) = (self.plan(endpoints, 0)?, Arc::new(LoadState::default()));
        let begun = Instant::now();
        let sending = tokio::spawn(run_load(plan, Arc::clone(&state)));
        tokio::time::sleep(Duration::from_secs(FULL_S)).await;
        state.stop();
        let report = sending.await.expect("the load does not panic");
        check_answers(&report)?;
        let accepted = state.accepted.load(std::sync::atomic::Ordering::Relaxed) as f64;
        self.await_metric("all that was accepted is delivered", async |metrics| {
            delivered(metrics) >= before + accepted
        })
        .await?;
        // Until the last delivery: what only piles up is not carried.
        let mut rate = accepted / begun.elapsed().as_secs_f64() / 2.0;
        for _ in 0..HALF_TRIES {
            let busy = self.busy(endpoints, is_healthy, rate as u32).await?;
            if (busy - 0.5).abs() < HALF_ERROR {
                break;
            }
            rate *= 0.5 / busy;
        }
        Ok(rate as u32)
    }

    /// How much of the machine's time a rate takes, of 1.
    async fn busy(
        &mut self,
        endpoints: &[Endpoint],
        is_healthy: impl Fn(usize) -> bool,
        rate: u32,
    ) -> Result<f64, LabError> {
        let own = std::process::id();
        let processes = [self.ingester.id(), self.egress.id(), own, own];
        let (before, begun) = (CpuTimes::read(processes), Instant::now());
        self.measure(endpoints, is_healthy, rate, Duration::from_secs(BUSY_S)).await?;
        let us = CpuTimes::read(processes).since(&before).busy;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(us / (begun.elapsed().as_micros() as f64 * cores as f64))
    }

    /// Deliveries to healthy targets under a steady load, microseconds from when they were due; `is_healthy` says which
    /// endpoints lead to them.
    pub(super) async fn measure(
        &mut self,
        endpoints: &[Endpoint],
        is_healthy: impl Fn(usize) -> bool,
        rate: u32,
        length: Duration,
    ) -> Result<Histogram<u64>, LabError> {
        let (first, behind) = (WARM_UP_S * u64::from(rate), (length.as_secs_f64() * f64::from(rate)) as u64);
        let numbers = first..first + behind;
        let healthy = numbers.clone().filter(|number| is_healthy((number % endpoints.len() as u64) as usize));
        let expected = healthy.count() as u64;
        let mut plan = self.plan(endpoints, rate)?;
        plan.events_max = numbers.end + COOL_DOWN_S * u64::from(rate);
        self.flights.open(Window { run: plan.run, begun: Instant::now(), rate, numbers });
        check_answers(&run_load(plan, Arc::new(LoadState::default())).await)?;
        let begun = Instant::now();
        while self.flights.count() < expected {
            self.check()?;
            if begun.elapsed() > ARRIVAL_TIMEOUT {
                let seconds = ARRIVAL_TIMEOUT.as_secs();
                return Err(LabError::Late { what: "all events reach the healthy targets", seconds });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(self.flights.close().expect("it was opened above"))
    }

    /// Sends `events` as fast as they are answered.
    pub(super) async fn send(&self, endpoints: &[Endpoint], events: u64) -> Result<(), LabError> {
        let mut plan = self.plan(endpoints, 0)?;
        plan.events_max = events;
        check_answers(&run_load(plan, Arc::new(LoadState::default())).await)
    }

    /// Waits until the egress's metrics are so.
    pub(super) async fn await_metric(
        &mut self,
        what: &'static str,
        is_so: impl AsyncFn(&Metrics) -> bool,
    ) -> Result<(), LabError> {
        const SECONDS: u64 = 600;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(SECONDS) {
            self.check()?;
            if is_so(&Metrics::scrape(self.lab.egresses[0].admin).await).await {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(LabError::Late { what, seconds: SECONDS })
    }

    /// Stops the nodes; the most memory that each took, which must be within its bound.
    pub(super) async fn stop(mut self, program: &Path) -> Result<String, LabError> {
        let mut texts = Vec::new();
        let nodes = [&self.lab.ingester, &self.lab.egresses[0]];
        for (process, node) in [&mut self.ingester, &mut self.egress].into_iter().zip(nodes) {
            let peak_kib = Memory::of(process.id()).peak_kib;
            let bound_kib = memory_bound_kib(program, &node.config)?;
            if peak_kib == 0 || peak_kib > bound_kib {
                return Err(LabError::Unequal(format!("{} took {peak_kib} KiB of {bound_kib}", node.name)));
            }
            texts.push(format!("{} {} of {} MiB", node.name, peak_kib.div_ceil(1024), bound_kib / 1024));
            if process.stop(STOP_TIMEOUT).await.is_none() {
                eprintln!("{} had to be killed", process.name);
            }
        }
        Ok(texts.join(", "))
    }

    fn check(&mut self) -> Result<(), LabError> {
        self.ingester.check()?;
        self.egress.check()
    }

    async fn delivered(&self) -> f64 {
        delivered(&Metrics::scrape(self.lab.egresses[0].admin).await)
    }

    fn plan(&self, endpoints: &[Endpoint], rate_per_s: u32) -> Result<LoadPlan, LabError> {
        Ok(LoadPlan {
            address: self.lab.public,
            tls: TlsConnector::from(source_config(&self.lab.pki.public_ca())?),
            endpoints: endpoints.into(),
            samples: Arc::new(Samples::new(Sizes::Fixed(BODY_BYTES))?),
            connections: self.connections,
            events_max: u64::MAX,
            rate_per_s,
            record: Record::Counts,
            run: system_seed(),
            repeats: Repeats::None,
        })
    }
}

fn delivered(metrics: &Metrics) -> f64 {
    metrics.sum("zen_deliveries_total", "=\"delivered\"")
}

/// A refused event was not carried.
fn check_answers(report: &LoadReport) -> Result<(), LabError> {
    if report.refused.is_empty() {
        return Ok(());
    }
    Err(LabError::Unequal(format!("events were refused, by status: {:?}", report.refused)))
}
