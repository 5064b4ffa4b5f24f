//! Dead letters over the admin socket: list, show, send again, send elsewhere, throw away.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;
use zen_core::deliver::{DeadReason, FaultKind, LetterKey};
use zen_core::id::EventId;

use super::answer::{Problem, json_answer, malformed, parameters, parse_body};
use super::{Admin, Peer};
use crate::control::Shared;
use crate::egress::{
    Answer, Chosen, Filter, LETTERS_PAGE_MAX, Letter, Order, OrderRefused, Page, Tally, Work,
};
use crate::mesh::Message;

/// A worker that takes longer to list its letters is stuck.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// An order that takes longer goes on by itself.
pub(super) const ORDER_WAIT: Duration = Duration::from_secs(5);
const LIMIT_DEFAULT: usize = 100;
/// A page as one worker finds it, bytes.
pub const FOUND_BYTES: usize = LETTERS_PAGE_MAX * size_of::<Letter>();
/// The page that is answered, as values and as text, bytes.
pub const PAGE_BYTES: usize = LETTERS_PAGE_MAX * (size_of::<Shown>() + 512);

/// A place in the letters of all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cursor {
    died_ms: u64,
    worker: u16,
    handle: u64,
    target: u8,
}

/// What an order is about: some letters by name, or all that match.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    ids: Option<Vec<String>>,
    filter: Option<RawFilter>,
    to: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFilter {
    target: Option<String>,
    reason: Option<String>,
    kind: Option<String>,
    event: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

/// A page of dead letters.
#[derive(Debug, Serialize)]
struct Shows {
    letters: Vec<Shown>,
    next: Option<String>,
}

/// A dead letter as it is shown: no body, and nothing of its headers.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    event: Option<String>,
    target: String,
    reason: Option<&'static str>,
    kind: Option<&'static str>,
    status: Option<u16>,
    attempts: u32,
    replays: u8,
    died_ms: u64,
    bytes: u32,
}

/// `GET /dead-letters`
pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (mut raw, mut limit, mut after) = (RawFilter::default(), LIMIT_DEFAULT, None);
    for (name, value) in parameters(query.as_deref())? {
        let number = || value.parse().map_err(|_| malformed(name, "a number"));
        match name {
            "target" => raw.target = Some(value.to_owned()),
            "reason" => raw.reason = Some(value.to_owned()),
            "kind" => raw.kind = Some(value.to_owned()),
            "event" => raw.event = Some(value.to_owned()),
            "since_ms" => raw.since_ms = Some(number()?),
            "until_ms" => raw.until_ms = Some(number()?),
            "limit" => limit = number()? as usize,
            "after" => after = Some(value.parse::<Cursor>()?),
            _ => return Err(Problem::Request(format!("{name}: no such parameter"))),
        }
    }
    if limit == 0 || limit > LETTERS_PAGE_MAX {
        return Err(malformed("limit", "1 to 1000"));
    }
    let filter = raw.parse()?;
    let _place = admin.pages.acquire().await.expect("it is never closed");
    let mut letters = Vec::new();
    for worker in workers(&admin.shared)? {
        letters.extend(list_of(&admin.shared, worker, &filter, after, limit).await?);
    }
    letters.sort_unstable_by_key(Cursor::of);
    let has_more = letters.len() >= limit;
    letters.truncate(limit);
    let next = letters.last().filter(|_| has_more).map(|letter| Cursor::of(letter).to_string());
    let letters: Vec<Shown> = letters.iter().map(Shown::of).collect();
    Ok(json_answer(StatusCode::OK, &Shows { letters, next }))
}

/// `GET /dead-letters/{id}`
pub(super) async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let (worker, handle, target) = parse_id(&id)?;
    if !workers(&admin.shared)?.any(|known| known == worker) {
        return Err(Problem::NotFound(id));
    }
    let find = |answer| Order::Find { handle, target, answer };
    let found = ask(&admin.shared, worker, find)?.await_for(LIST_TIMEOUT).await?;
    let letter = found.ok_or(Problem::NotFound(id))?;
    Ok(json_answer(StatusCode::OK, &Shown::of(&letter)))
}

/// `POST /dead-letters/replay`
pub(super) async fn replay(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Problem> {
    let request: Request = parse_body(&body)?;
    let work = match &request.to {
        None => Work::Replay,
        Some(to) => Work::Move(configured(&admin.shared, to)?),
    };
    order(&admin, peer, request, &work).await
}

/// `POST /dead-letters/discard`
pub(super) async fn discard(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Problem> {
    let request: Request = parse_body(&body)?;
    if request.to.is_some() {
        return Err(Problem::Request("to: nothing is discarded to a target".to_owned()));
    }
    order(&admin, peer, request, &Work::Discard).await
}

async fn order(admin: &Admin, peer: Peer, request: Request, work: &Work) -> Result<Response, Problem> {
    let about = request.about();
    let count = request.ids.as_ref().map(|ids| ids.len() as u64);
    let chosen = request.chosen(&admin.shared)?;
    tracing::warn!(uid = peer.uid, pid = peer.pid, ?work, about, "audit: an order about dead letters");
    let (act, to) = match work {
        Work::Replay => ("dead-letters.replay", ""),
        Work::Move(to) => ("dead-letters.move", &**to),
        Work::Discard => ("dead-letters.discard", ""),
    };
    let target = format!("dead-letters {about} {to}");
    admin.tell(peer, act, target.trim_end(), count)?;
    let mut asked = Vec::new();
    for (worker, chosen) in chosen {
        let work = work.clone();
        asked.push(ask(&admin.shared, worker, |answer| Order::Work { work, chosen, answer })?);
    }
    let (until, mut sum, mut goes_on) = (Instant::now() + ORDER_WAIT, Tally::default(), false);
    for asked in asked {
        match tokio::time::timeout_at(until, asked.answer).await {
            Err(_) => goes_on = true,
            Ok(Err(_)) => return Err(Problem::Unavailable("the node is draining".to_owned())),
            Ok(Ok(Err(refused @ OrderRefused::Busy))) => return Err(Problem::Busy(refused.to_string())),
            Ok(Ok(Ok(tally))) => {
                sum.done += tally.done;
                sum.skipped += tally.skipped;
            }
        }
    }
    Ok(tally_answer(sum, goes_on))
}

/// 200 when all is done and durable, 202 when it goes on; `done` is then what is known to be done.
pub(super) fn tally_answer(tally: Tally, goes_on: bool) -> Response {
    let status = if goes_on { StatusCode::ACCEPTED } else { StatusCode::OK };
    let state = if goes_on { "under way" } else { "done" };
    json_answer(status, &json!({ "state": state, "done": tally.done, "skipped": tally.skipped }))
}

/// The workers of an egress.
pub(super) fn workers(shared: &Shared) -> Result<std::ops::Range<u16>, Problem> {
    if shared.snapshot.load().egress.is_none() {
        return Err(Problem::NotFound("an egress".to_owned()));
    }
    Ok(0..shared.mesh.workers())
}

/// A target or an output that this egress has.
pub(super) fn configured(shared: &Shared, name: &str) -> Result<Arc<str>, Problem> {
    let snapshot = shared.snapshot.load();
    let has = snapshot.egress.as_ref().is_some_and(|egress| egress.queue(name).is_some());
    if has { Ok(Arc::from(name)) } else { Err(malformed("to", "the name of a target of this egress")) }
}

/// What a worker was asked.
pub(super) struct Asked<T> {
    pub answer: oneshot::Receiver<T>,
}

impl<T> Asked<T> {
    /// Its answer.
    pub async fn await_for(self, timeout: Duration) -> Result<T, Problem> {
        match tokio::time::timeout(timeout, self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Problem::Unavailable("the node is draining".to_owned())),
            Err(_) => Err(Problem::Unavailable("a worker does not answer in time".to_owned())),
        }
    }
}

/// Puts an order into a worker's inbox, if there is a place for it.
pub(super) fn ask<T>(
    shared: &Shared,
    worker: u16,
    order: impl FnOnce(Answer<T>) -> Order,
) -> Result<Asked<T>, Problem> {
    let place = Arc::clone(&shared.order_places).try_acquire_owned();
    let place = place.map_err(|_| Problem::Busy("too many orders wait for a worker".to_owned()))?;
    let (sender, answer) = oneshot::channel();
    shared.mesh.send(worker, Message::Order { order: Box::new(order(sender)), place });
    Ok(Asked { answer })
}

async fn list_of(
    shared: &Shared,
    worker: u16,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Vec<Letter>, Problem> {
    let mut letters = Vec::new();
    let mut after = after.map(|cursor| cursor.behind(worker));
    loop {
        let (filter, left) = (filter.clone(), limit - letters.len());
        let asked = ask(shared, worker, |answer| Order::List { filter, after, limit: left, answer })?;
        let Page { letters: found, more_after } = asked.await_for(LIST_TIMEOUT).await?;
        letters.extend(found);
        if more_after.is_none() || letters.len() >= limit {
            return Ok(letters);
        }
        after = more_after;
    }
}

/// `<worker>-<handle>-<target>`
fn parse_id(id: &str) -> Result<(u16, u64, u8), Problem> {
    let parse = || {
        let mut parts = id.split('-');
        let parsed = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(parsed)
    };
    parse().ok_or_else(|| malformed("id", "an id of a dead letter, such as 0-1234-0"))
}

impl Shown {
    fn of(letter: &Letter) -> Self {
        let Letter { worker, key, event_id, target, died, replay, bytes } = letter;
        Self {
            id: format!("{worker}-{}-{}", key.handle, key.target),
            event: event_id.map(|id| id.to_string()),
            target: target.to_string(),
            reason: died.reason.map(DeadReason::label),
            kind: died.reason.map(|reason| reason.kind().label()),
            status: (died.status > 0).then_some(died.status),
            attempts: died.attempts,
            replays: *replay,
            died_ms: key.died_ms,
            bytes: *bytes,
        }
    }
}

impl Request {
    /// How it is written into the log: a thousand ids are a number.
    fn about(&self) -> String {
        match (&self.ids, &self.filter) {
            (Some(ids), _) if ids.len() == 1 => format!("letter {}", ids[0]),
            (Some(ids), _) => format!("{} letters", ids.len()),
            (None, filter) => format!("{filter:?}"),
        }
    }

    /// By worker.
    fn chosen(self, shared: &Shared) -> Result<Vec<(u16, Chosen)>, Problem> {
        let workers = workers(shared)?;
        match (self.ids, self.filter) {
            (None, Some(filter)) => {
                let filter = filter.parse()?;
                Ok(workers.map(|worker| (worker, Chosen::Matching(filter.clone()))).collect())
            }
            (Some(ids), None) if !ids.is_empty() && ids.len() <= LETTERS_PAGE_MAX => {
                let mut by_worker: BTreeMap<u16, VecDeque<(u64, u8)>> = BTreeMap::new();
                for id in &ids {
                    let (worker, handle, target) = parse_id(id)?;
                    if !workers.contains(&worker) {
                        return Err(Problem::NotFound(id.clone()));
                    }
                    by_worker.entry(worker).or_default().push_back((handle, target));
                }
                Ok(by_worker.into_iter().map(|(worker, ids)| (worker, Chosen::Letters(ids))).collect())
            }
            _ => Err(Problem::Request("give either ids, 1 to 1000 of them, or a filter".to_owned())),
        }
    }
}

impl RawFilter {
    fn parse(self) -> Result<Filter, Problem> {
        let reason = self.reason.map(|label| {
            DeadReason::from_label(&label)
                .ok_or_else(|| malformed("reason", "a reason of docs/operations.md"))
        });
        let kind = self.kind.map(|label| match label.as_str() {
            "destination" => Ok(FaultKind::Destination),
            "pipeline" => Ok(FaultKind::Pipeline),
            _ => Err(malformed("kind", "destination or pipeline")),
        });
        let event =
            self.event.map(|id| id.parse::<EventId>().map_err(|_| malformed("event", "an event's id")));
        Ok(Filter {
            target: self.target.map(Arc::from),
            reason: reason.transpose()?,
            kind: kind.transpose()?,
            event: event.transpose()?,
            since_ms: self.since_ms.unwrap_or(0),
            until_ms: self.until_ms.unwrap_or(u64::MAX),
        })
    }
}

impl Cursor {
    fn of(letter: &Letter) -> Self {
        let LetterKey { died_ms, handle, target } = letter.key;
        Self { died_ms, worker: letter.worker, handle, target }
    }

    /// The place in one worker's letters behind which those come that come behind this one.
    fn behind(self, worker: u16) -> LetterKey {
        let Self { died_ms, handle, target, .. } = self;
        match worker.cmp(&self.worker) {
            std::cmp::Ordering::Less => LetterKey { died_ms, handle: u64::MAX, target: u8::MAX },
            std::cmp::Ordering::Equal => LetterKey { died_ms, handle, target },
            std::cmp::Ordering::Greater => LetterKey { died_ms, handle: 0, target: 0 },
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}-{}", self.died_ms, self.worker, self.handle, self.target)
    }
}

impl std::str::FromStr for Cursor {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let malformed = || malformed("after", "what `next` said");
        let (died_ms, id) = text.split_once('-').ok_or_else(malformed)?;
        let (worker, handle, target) = parse_id(id).map_err(|_| malformed())?;
        Ok(Self { died_ms: died_ms.parse().map_err(|_| malformed())?, worker, handle, target })
    }
}
