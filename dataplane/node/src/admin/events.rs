//! Events over the admin socket: the life of one as this node's journals tell it, and its body for who gives a reason.
//!
//! Journals are walked beside their workers, on a thread of the blocking pool, one walk at a time. What is shown is
//! names, numbers and times; a body leaves only where `admin.bodies` allows it, and behind its audit line.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use zen_core::deliver::DeadReason;
use zen_core::event::{Event, QUARANTINE_LINE};
use zen_core::id::EventId;
use zen_core::journal::{Kind, Record};
use zen_core::record::{HeldEvent, OutcomeRecord, RetryRecord, decode_egresses, decode_key, decode_routes};

use super::answer::{Problem, json_answer, malformed, parse_body};
use super::{Admin, Peer};
use crate::config::Snapshot;
use crate::journal::{self, Scan};
use crate::mesh::JournalRole;
use crate::receipts;

/// Steps of one event that are shown.
const STEPS_MAX: usize = 512;
/// A step in memory, and its share of the answer, bytes.
const STEP_BYTES: usize = 2048;
/// What a walk for one event takes beside its buffer, bytes.
pub const LIFE_BYTES: usize = STEPS_MAX * STEP_BYTES;
/// Longest reason that is logged, bytes.
const REASON_BYTES_MAX: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyRequest {
    reason: String,
}

/// `GET /events/{id}`
pub(super) async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse_event(&id)?;
    let (snapshot, place) = (admin.shared.snapshot.load_full(), admin.walk_place().await);
    let node = snapshot.node.name.clone();
    let life = walk(move || {
        let _place = place;
        life_of(&snapshot, id)
    });
    let Life { steps, more } = life.await?;
    let body = json!({ "event": id.to_string(), "node": node, "steps": steps, "more": more });
    Ok(json_answer(StatusCode::OK, &body))
}

/// `POST /events/{id}/body`
pub(super) async fn body(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    request: Bytes,
) -> Result<Response, Problem> {
    let snapshot = admin.shared.snapshot.load_full();
    if !snapshot.raw.admin.bodies {
        return Err(Problem::Forbidden("bodies are not shown: admin.bodies is false"));
    }
    let (id, BodyRequest { reason }) = (parse_event(&id)?, parse_body(&request)?);
    let is_said = !reason.trim().is_empty() && reason.len() <= REASON_BYTES_MAX;
    if !is_said || reason.chars().any(char::is_control) {
        return Err(malformed("reason", "why the body is looked at, in 1 to 256 bytes"));
    }
    let Some(uid) = peer.uid else {
        return Err(Problem::Forbidden("the kernel does not say who asks"));
    };
    let place = admin.walk_place().await;
    let found = walk(move || {
        let _place = place;
        body_of(&snapshot, id)
    });
    let found = found.await?.ok_or_else(|| Problem::NotFound(format!("event {id}")))?;
    tracing::warn!(uid, pid = peer.pid, event = %id, reason, "audit: a body is shown");
    admin.tell(peer, "events.show-body", &format!("events/{id}"), Some(1))?;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/octet-stream")], found).into_response())
}

/// An event's id in a path or a body.
pub(super) fn parse_event(text: &str) -> Result<EventId, Problem> {
    text.parse().map_err(|_| malformed("event", "an event's id"))
}

/// Unix ms at which an event's id was made.
pub(super) fn made_ms(id: EventId) -> u64 {
    id.0[..6].iter().fold(0, |time_ms, &byte| time_ms << 8 | u64::from(byte))
}

/// Runs a walk where it stops nothing else.
pub(super) async fn walk<T: Send + 'static>(
    walk: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let walked = tokio::task::spawn_blocking(walk).await;
    let walked = walked.map_err(|_| Problem::Unavailable("the node is stopping".to_owned()))?;
    walked.map_err(|error| Problem::Unavailable(format!("a journal cannot be read: {error}")))
}

/// A journal of this node.
struct Source {
    role: JournalRole,
    name: String,
    directory: PathBuf,
}

/// What is known of an event.
#[derive(Default)]
struct Life {
    steps: Vec<Value>,
    more: bool,
}

fn sources(snapshot: &Snapshot) -> Vec<Source> {
    let has_role = |role| match role {
        JournalRole::Ingester => snapshot.ingester.is_some(),
        JournalRole::Egress => snapshot.egress.is_some(),
        JournalRole::Index => false,
    };
    let roles = [(JournalRole::Ingester, "ingester"), (JournalRole::Egress, "egress")];
    let workers = 0..snapshot.node.workers;
    let source = |(role, name, worker)| Source {
        role,
        name: format!("{name}/worker-{worker}"),
        directory: journal::directory(&snapshot.node.data_dir, role, worker),
    };
    let roles = roles.into_iter().filter(|(role, _)| has_role(*role));
    let all = roles.flat_map(|(role, name)| workers.clone().map(move |worker| (role, name, worker)));
    all.map(source).collect()
}

fn life_of(snapshot: &Snapshot, id: EventId) -> io::Result<Life> {
    let mut life = Life::default();
    for source in sources(snapshot) {
        let mut scan = Scan::new(&source.directory, snapshot.journal.commit_bytes_max, made_ms(id)..)?;
        let mut handles = BTreeMap::new();
        while scan.read(&mut |record| {
            let step = match source.role {
                JournalRole::Ingester => accepted(&record, id),
                JournalRole::Egress => held(&record, id, &mut handles),
                JournalRole::Index => None,
            };
            life.push(&source, &record, step);
        })? {}
    }
    life.push_receipts(snapshot, id)?;
    life.steps.sort_by_key(|step| step["time_ms"].as_u64());
    Ok(life)
}

fn body_of(snapshot: &Snapshot, id: EventId) -> io::Result<Option<Vec<u8>>> {
    let mut found = None;
    for source in sources(snapshot) {
        let mut scan = Scan::new(&source.directory, snapshot.journal.commit_bytes_max, made_ms(id)..)?;
        while found.is_none()
            && scan.read(&mut |record| {
                let event = event_of(source.role, &record).filter(|event| Event::id_of(event) == Some(id));
                found = found.take().or_else(|| Some(Event::decode(event?).ok()?.body.to_vec()));
            })?
        {}
    }
    Ok(found)
}

fn event_of<'a>(role: JournalRole, record: &Record<'a>) -> Option<&'a [u8]> {
    match (record.kind, role) {
        (Kind::Event, JournalRole::Ingester) => Some(decode_routes(record.payload, "").ok()?.1),
        (Kind::Event, JournalRole::Egress) => Some(HeldEvent::decode(record.payload).ok()?.event),
        _ => None,
    }
}

impl Life {
    /// What is evidence of its outcomes, if this node keeps receipts.
    fn push_receipts(&mut self, snapshot: &Snapshot, id: EventId) -> io::Result<()> {
        let id = id.to_string();
        for mut receipt in
            receipts::scan(&receipts::directory(&snapshot.node.data_dir), |found| found["event"] == id)?
        {
            if self.steps.len() >= STEPS_MAX {
                self.more = true;
                return Ok(());
            }
            receipt["step"] = "receipt".into();
            receipt["journal"] = "receipts".into();
            self.steps.push(receipt);
        }
        Ok(())
    }

    fn push(&mut self, source: &Source, record: &Record<'_>, step: Option<Value>) {
        let Some(mut step) = step else { return };
        if self.steps.len() >= STEPS_MAX {
            self.more = true;
            return;
        }
        step["time_ms"] = record.time_ms.into();
        step["journal"] = source.name.as_str().into();
        step["sequence"] = record.sequence.0.into();
        self.steps.push(step);
    }
}

/// What the ingester's journal tells.
fn accepted(record: &Record<'_>, id: EventId) -> Option<Value> {
    let event = event_of(JournalRole::Ingester, record).filter(|event| Event::id_of(event) == Some(id))?;
    let (egresses, key) = (decode_egresses(record.payload).ok()?, decode_key(record.payload).ok()?);
    let event = Event::decode(event).ok()?;
    Some(json!({
        "step": "accepted",
        "endpoint": event.endpoint.to_string(),
        "generation": event.metadata(":generation"),
        "quarantine": event.metadata(QUARANTINE_LINE),
        "bytes": event.body.len(),
        "has_key": key.is_some(),
        "egresses": egresses,
    }))
}

/// What the egress's journal tells. `handles` are those that the event has had here, with its targets.
fn held(record: &Record<'_>, id: EventId, handles: &mut BTreeMap<u64, Vec<String>>) -> Option<Value> {
    let target_of = |handles: &BTreeMap<u64, Vec<String>>, handle, target: u8| -> Option<String> {
        let names: &Vec<String> = handles.get(&handle)?;
        Some(names.get(usize::from(target)).filter(|name| !name.is_empty()).cloned().unwrap_or_default())
    };
    match record.kind {
        Kind::Event => {
            let held = HeldEvent::decode(record.payload).ok()?;
            (Event::id_of(held.event) == Some(id)).then(|| taken(record, &held, handles))
        }
        Kind::Retry => {
            let retry = RetryRecord::decode(record.payload).ok()?;
            let target = target_of(handles, retry.handle, retry.target)?;
            let RetryRecord { attempt, replay, due_ms, .. } = retry;
            let step = if attempt == 0 { "replayed" } else { "put off" };
            Some(
                json!({ "step": step, "target": target, "attempts": attempt, "replays": replay, "due_ms": due_ms }),
            )
        }
        Kind::Outcome => {
            let outcome = OutcomeRecord::decode(record.payload).ok()?;
            let target = target_of(handles, outcome.handle, outcome.target)?;
            Some(json!({
                "step": outcome.ending.label(),
                "target": target,
                "reason": outcome.reason.map(DeadReason::label),
                "status": (outcome.status > 0).then_some(outcome.status),
                "attempts": outcome.attempts,
            }))
        }
        _ => None,
    }
}

fn taken(record: &Record<'_>, held: &HeldEvent<'_>, handles: &mut BTreeMap<u64, Vec<String>>) -> Value {
    let handle = if held.handle == 0 { record.sequence.0 } else { held.handle };
    let targets: Vec<String> = held.targets.iter().map(str::to_owned).collect();
    let left: Vec<&String> = targets.iter().filter(|name| !name.is_empty()).collect();
    let step = match (held.handle, held.link_sequence) {
        (0, 0) => "sent again",
        (0, _) => "taken",
        _ => "carried forward",
    };
    let shown = json!({ "step": step, "targets": left, "replays": held.replay });
    handles.entry(handle).or_insert(targets);
    shown
}
