//! Events of a time, done or not, put in once more: read out of the journals and handed to the worker of each.
//!
//! One at a time for a node. A few events are in memory; the next are read when a worker has made those durable,
//! so a target's room sets the pace of the whole walk.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use zen_core::event::{EVENT_BYTES_MAX, Event, QUARANTINE_LINE};
use zen_core::id::{EndpointId, EventId};
use zen_core::journal::{Kind, Record};
use zen_core::record::HeldEvent;

use super::answer::{Problem, malformed, parse_body};
use super::dead_letters::{ORDER_WAIT, ask, configured, tally_answer, workers};
use super::events::{made_ms, parse_event, walk};
use super::{Admin, Peer};
use crate::clock::Clock;
use crate::control::Shared;
use crate::egress::{Copy, Order, Tally};
use crate::journal::{self, Scan};
use crate::mesh::{EventBytes, JournalRole};

/// Events handed to a worker at a time.
const COPIES_MAX: usize = 128;
/// Their bytes, but for the last one's.
const COPIES_BYTES_MAX: usize = 256 << 10;
/// One part is worked off, one waits, one is being read.
pub const COPIES_BYTES: usize = 3 * (COPIES_BYTES_MAX + EVENT_BYTES_MAX + COPIES_MAX * 1024);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    endpoint: Option<String>,
    event: Option<String>,
    to: Option<String>,
}

/// Which events, and where to.
#[derive(Clone, Debug)]
struct Wanted {
    times_ms: RangeInclusive<u64>,
    endpoint: Option<EndpointId>,
    event: Option<EventId>,
    to: Option<Arc<str>>,
}

/// `POST /events/replay`
pub(super) async fn replay(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Problem> {
    let wanted = parse_body::<Request>(&body)?.parse(&admin.shared)?;
    workers(&admin.shared)?;
    let place = Arc::clone(&admin.replays).try_acquire_owned();
    let place = place.map_err(|_| Problem::Busy("a replay of events is under way".to_owned()))?;
    tracing::warn!(uid = peer.uid, pid = peer.pid, ?wanted, "audit: an order about events");
    admin.tell(peer, "events.replay", &wanted.about(), None)?;
    let replay = tokio::spawn(replay_all(Arc::clone(&admin.shared), wanted, place));
    match tokio::time::timeout(ORDER_WAIT, replay).await {
        Err(_) => Ok(tally_answer(Tally::default(), true)),
        Ok(Ok(tally)) => Ok(tally_answer(tally?, false)),
        Ok(Err(_)) => Err(Problem::Unavailable("the node is stopping".to_owned())),
    }
}

impl Request {
    fn parse(self, shared: &Shared) -> Result<Wanted, Problem> {
        let event = self.event.as_deref().map(parse_event).transpose()?;
        let endpoint = self
            .endpoint
            .map(|id| id.parse::<EndpointId>().map_err(|_| malformed("endpoint", "an endpoint's id")));
        let Some(since_ms) = self.since_ms.or_else(|| event.map(|_| 0)) else {
            return Err(Problem::Request("give since_ms, event, or both".to_owned()));
        };
        // What is taken in while the order is worked off is not meant.
        let until_ms = self.until_ms.unwrap_or(u64::MAX).min(Clock::now().wall_ms);
        let to = self.to.map(|to| configured(shared, &to)).transpose()?;
        Ok(Wanted { times_ms: since_ms..=until_ms, endpoint: endpoint.transpose()?, event, to })
    }
}

impl Wanted {
    /// How it is written into its receipt.
    fn about(&self) -> String {
        let to = self.to.as_deref().unwrap_or("their targets");
        match (self.event, self.endpoint) {
            (Some(event), _) => format!("events/{event} to {to}"),
            (None, Some(endpoint)) => format!("endpoints/{endpoint}/events to {to}"),
            (None, None) => format!("events to {to}"),
        }
    }

    /// A record that is what a link brought: what was carried forward or sent again is the same event once more.
    fn copy(&self, record: &Record<'_>) -> Option<Copy> {
        if record.kind != Kind::Event || !self.times_ms.contains(&record.time_ms) {
            return None;
        }
        let held = HeldEvent::decode(record.payload).ok().filter(|held| held.link_sequence > 0)?;
        if self.event.is_some() && self.event != Event::id_of(held.event) {
            return None;
        }
        // A span of time does not lift what a rule holds back: that takes its letter or its name.
        if self.event.is_none() && Event::has_metadata(held.event, QUARANTINE_LINE) {
            return None;
        }
        if self.endpoint.is_some()
            && self.endpoint != Event::decode(held.event).ok().map(|event| event.endpoint)
        {
            return None;
        }
        let targets = match &self.to {
            Some(to) => vec![Arc::clone(to)],
            None => held.targets.iter().map(Arc::from).collect(),
        };
        let (handle, event) = (record.sequence.0, EventBytes::from(held.event));
        Some(Copy { handle, stream: held.stream, replay: 1, targets, event })
    }
}

async fn replay_all(
    shared: Arc<Shared>,
    wanted: Wanted,
    place: OwnedSemaphorePermit,
) -> Result<Tally, Problem> {
    let _place = place;
    let mut sum = Tally::default();
    for worker in workers(&shared)? {
        let tally = replay_of(&shared, worker, &wanted).await.inspect_err(
            |problem| tracing::warn!(%problem, done = sum.done, "a replay of events ends before its end"),
        )?;
        sum.done += tally.done;
        sum.skipped += tally.skipped;
    }
    tracing::info!(done = sum.done, skipped = sum.skipped, "a replay of events is done");
    Ok(sum)
}

async fn replay_of(shared: &Arc<Shared>, worker: u16, wanted: &Wanted) -> Result<Tally, Problem> {
    let (sender, mut parts) = mpsc::channel(1);
    let (walked, wanted) = (Arc::clone(shared), wanted.clone());
    let walk = walk(move || collect(&walked, worker, &wanted, &sender));
    let hand_over = async {
        let mut sum = Tally::default();
        while let Some(copies) = parts.recv().await {
            let asked = ask(shared, worker, |answer| Order::Copies { copies, answer })?;
            let answer = asked.answer.await;
            let tally = answer.map_err(|_| Problem::Unavailable("the node is draining".to_owned()))?;
            let tally = tally.map_err(|refused| Problem::Busy(refused.to_string()))?;
            sum.done += tally.done;
            sum.skipped += tally.skipped;
        }
        // The walk stops when nobody takes its parts.
        Ok::<_, Problem>(sum)
    };
    let (sum, ()) = tokio::try_join!(hand_over, walk)?;
    Ok(sum)
}

fn collect(
    shared: &Shared,
    worker: u16,
    wanted: &Wanted,
    parts: &mpsc::Sender<VecDeque<Copy>>,
) -> io::Result<()> {
    let snapshot = shared.snapshot.load_full();
    let directory = journal::directory(&snapshot.node.data_dir, JournalRole::Egress, worker);
    let since_ms = wanted.event.map_or(*wanted.times_ms.start(), made_ms).max(*wanted.times_ms.start());
    let times_ms = since_ms..=*wanted.times_ms.end();
    let mut scan = Scan::new(&directory, snapshot.journal.commit_bytes_max, times_ms)?;
    let (mut copies, mut bytes) = (VecDeque::new(), 0);
    let mut is_open = true;
    let hand_over = |copies: &mut VecDeque<Copy>| parts.blocking_send(std::mem::take(copies)).is_ok();
    while is_open
        && scan.read(&mut |record| {
            let Some(copy) = wanted.copy(&record).filter(|_| is_open) else { return };
            bytes += copy.event.len();
            copies.push_back(copy);
            if copies.len() >= COPIES_MAX || bytes >= COPIES_BYTES_MAX {
                (is_open, bytes) = (hand_over(&mut copies), 0);
            }
        })?
    {}
    if is_open && !copies.is_empty() {
        hand_over(&mut copies);
    }
    Ok(())
}
