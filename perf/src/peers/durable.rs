//! Shows that a baseline's 202 is kept: it is killed under load, and what it answered for must be in its journal.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_rustls::TlsConnector;

use super::{Hops, Peer, Settings, baseline, endpoint, start};
use crate::error::LabError;
use crate::lab::Lab;
use crate::load::{LoadPlan, LoadState, Record, Repeats, run_load};
use crate::random::system_seed;
use crate::samples::{Samples, Sizes};
use crate::tls::{KeyExchange, client_config};

const EVENTS_MIN: u64 = 3_000;
const CONNECTIONS: u32 = 32;
const BODY_BYTES: usize = 1024;
const LOAD_SECONDS_MAX: u64 = 60;
const POLL: Duration = Duration::from_millis(5);

/// How many events were answered with 202 before SIGKILL; an error unless all of them are in the journals.
pub(super) async fn check_durable(peer: Peer, lab: &Lab, threads: u32) -> Result<usize, LabError> {
    let settings = Settings { threads, key_exchange: KeyExchange::X25519, hops: Hops::Ingest };
    let mut processes = start(peer, lab, &settings).await?;
    let state = Arc::new(LoadState::default());
    let sending = tokio::spawn(run_load(plan(lab)?, Arc::clone(&state)));
    let begun = Instant::now();
    while state.accepted.load(Ordering::Relaxed) < EVENTS_MIN {
        processes[0].check()?;
        if begun.elapsed() >= Duration::from_secs(LOAD_SECONDS_MAX) {
            return Err(LabError::Late { what: "events for a kill under load", seconds: LOAD_SECONDS_MAX });
        }
        tokio::time::sleep(POLL).await;
    }
    processes[0].kill();
    state.stop();
    let report = sending.await.expect("the load does not panic");
    let kept: HashSet<String> = baseline::journaled(lab)?.into_iter().collect();
    let lost = report.accepted.iter().filter(|event| !kept.contains(&event.event_id)).count();
    if lost > 0 {
        let (label, all) = (peer.label(), report.accepted.len());
        return Err(LabError::Unequal(format!(
            "{label}: {lost} of {all} events that it took are not in its journal"
        )));
    }
    Ok(report.accepted.len())
}

fn plan(lab: &Lab) -> Result<LoadPlan, LabError> {
    let tls = client_config(&lab.pki.public_ca(), None, KeyExchange::X25519)?;
    Ok(LoadPlan {
        address: lab.public,
        tls: TlsConnector::from(tls),
        endpoints: vec![endpoint(lab)].into(),
        samples: Arc::new(Samples::new(Sizes::Fixed(BODY_BYTES))?),
        connections: CONNECTIONS,
        events_max: u64::MAX,
        rate_per_s: 0,
        record: Record::Events,
        run: system_seed(),
        repeats: Repeats::None,
    })
}
