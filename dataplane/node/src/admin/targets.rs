//! Targets over the admin socket: how they are, pause, resume.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::answer::{Problem, empty, json_answer};
use super::dead_letters::{Asked, workers};
use super::{Admin, Peer};
use crate::clock::Clock;
use crate::control::Shared;
use crate::egress::{Condition, EXCERPT_BYTES_MAX, Failure, Hold, TargetOrder};
use crate::mesh::Message;

/// A worker that takes longer is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A target in the answer, as value and as text, bytes.
pub const TARGET_BYTES: usize = size_of::<Condition>() + size_of::<Shown>() + 512;
/// What failed last at a target, bytes.
pub const FAILURE_BYTES: usize = size_of::<Failure>() + EXCERPT_BYTES_MAX;

/// A target as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    state: &'static str,
    held_ms: Option<u64>,
    waiting: usize,
    in_flight: usize,
    in_flight_cap: u32,
    oldest_ms: Option<u64>,
}

impl Shown {
    fn of(condition: &Condition) -> Self {
        let Condition { name, state, held_ms, waiting, in_flight, in_flight_cap, oldest_ms } =
            condition.clone();
        Self { name: name.to_string(), state, held_ms, waiting, in_flight, in_flight_cap, oldest_ms }
    }
}

/// The last attempt that did not deliver, as it is shown.
#[derive(Debug, Serialize)]
struct ShownFailure {
    outcome: &'static str,
    status: Option<u16>,
    age_ms: u64,
    excerpt: Option<String>,
}

impl ShownFailure {
    fn of(failure: &Failure) -> Self {
        let Failure { outcome, status, at_ms, excerpt } = failure;
        Self {
            outcome,
            status: (*status > 0).then_some(*status),
            age_ms: Clock::now().steady_ms.saturating_sub(*at_ms),
            excerpt: (!excerpt.is_empty()).then(|| excerpt.escape_ascii().to_string()),
        }
    }
}

/// `GET /targets`
pub(super) async fn list(State(admin): State<Admin>) -> Result<Response, Problem> {
    let _place = admin.pages.acquire().await.expect("it is never closed");
    let mut conditions = Vec::new();
    for worker in workers(&admin.shared)? {
        let asked = ask(&admin.shared, worker, |answer| TargetOrder::List { answer })?;
        conditions.extend(asked.await_for(ANSWER_TIMEOUT).await?);
    }
    conditions.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    let targets: Vec<Shown> = conditions.iter().map(Shown::of).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "targets": targets })))
}

/// `GET /targets/{name}`
pub(super) async fn show(State(admin): State<Admin>, Path(name): Path<String>) -> Result<Response, Problem> {
    let target = configured(&admin.shared, &name)?;
    let worker = admin.shared.mesh.owner_of(&name);
    let asked = ask(&admin.shared, worker, |answer| TargetOrder::Show { target, answer })?;
    let found = asked.await_for(ANSWER_TIMEOUT).await?;
    let (condition, failure) = found.ok_or(Problem::NotFound(name))?;
    let mut shown = json!(Shown::of(&condition));
    shown["last_failure"] = json!(failure.as_ref().map(ShownFailure::of));
    Ok(json_answer(StatusCode::OK, &shown))
}

/// `POST /targets/{name}/pause`
pub(super) async fn pause(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    empty(&body)?;
    let target = configured(&admin.shared, &name)?;
    hold(&admin, peer, target, Hold::Pause).await
}

/// `POST /targets/{name}/resume`
pub(super) async fn resume(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    empty(&body)?;
    // A target that was paused and is not configured now may come back.
    let target = match configured(&admin.shared, &name) {
        Err(_) if admin.shared.paused.contains(&name) => Arc::from(name),
        target => target?,
    };
    hold(&admin, peer, target, Hold::Resume).await
}

async fn hold(admin: &Admin, peer: Peer, target: Arc<str>, hold: Hold) -> Result<Response, Problem> {
    tracing::warn!(
        uid = peer.uid,
        pid = peer.pid,
        target = &*target,
        ?hold,
        "audit: an order about a target"
    );
    let act = match hold {
        Hold::Pause => "targets.pause",
        Hold::Resume => "targets.resume",
    };
    admin.tell(peer, act, &format!("targets/{target}"), None)?;
    // One at a time up to its end: the file and the worker are told in the same order.
    let _place = admin.holds.acquire().await.expect("it is never closed");
    let (shared, name) = (Arc::clone(&admin.shared), Arc::clone(&target));
    let changed = tokio::task::spawn_blocking(move || shared.paused.change(&name, hold)).await;
    let changed = changed.map_err(|_| Problem::Unavailable("the node is stopping".to_owned()))?;
    changed.map_err(|error| Problem::Unavailable(error.to_string()))?;
    let worker = admin.shared.mesh.owner_of(&target);
    let name = Arc::clone(&target);
    let asked = ask(&admin.shared, worker, |answer| TargetOrder::Hold { target, hold, answer })?;
    let condition = asked.await_for(ANSWER_TIMEOUT).await?;
    let shown = condition.as_ref().map(|condition| json!(Shown::of(condition)));
    Ok(json_answer(
        StatusCode::OK,
        &shown.unwrap_or_else(|| json!({ "name": &*name, "state": "not configured" })),
    ))
}

/// A body that is not read breaks the connection in the middle of the answer, so it is, and holds nothing.
/// A target or an output that this egress has.
fn configured(shared: &Shared, name: &str) -> Result<Arc<str>, Problem> {
    let snapshot = shared.snapshot.load();
    let has = snapshot.egress.as_ref().is_some_and(|egress| egress.queue(name).is_some());
    if has {
        Ok(Arc::from(name))
    } else {
        Err(Problem::NotFound(format!("target \"{}\"", name.escape_default())))
    }
}

fn ask<T>(
    shared: &Shared,
    worker: u16,
    order: impl FnOnce(oneshot::Sender<T>) -> TargetOrder,
) -> Result<Asked<T>, Problem> {
    let place = Arc::clone(&shared.order_places).try_acquire_owned();
    let place = place.map_err(|_| Problem::Busy("too many orders wait for a worker".to_owned()))?;
    let (sender, answer) = oneshot::channel();
    shared.mesh.send(worker, Message::Target { order: Box::new(order(sender)), place });
    Ok(Asked { answer })
}
