//! Receipts over the admin socket: lines and signed digests for the agent; and the line of each order that is given here.

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::answer::{Problem, json_answer, malformed, parameters};
use super::events::walk;
use super::{Admin, Peer};
use crate::clock::Clock;
use crate::receipts::{self, Act, Page};

/// Most lines, or digests, of an answer.
pub const LINES_PAGE_MAX: usize = 1000;
/// As many where the query does not say.
const LINES_PAGE: usize = 100;

/// `GET /receipts`
pub(super) async fn list(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (after, limit) = parse(query.as_deref())?;
    let (directory, _, next) = place(&admin)?;
    let walked = admin.walk_place().await;
    let read = walk(move || {
        let _place = walked;
        receipts::page(&directory, after.map_or(0, |after| after.saturating_add(1)), next, limit)
    });
    let Page { first, lines } = read.await?;
    // The lines are JSON as they are on disk, and stay so: their hashes are of these bytes.
    let body = format!("{{\"first\":{first},\"next\":{next},\"receipts\":[{}]}}\n", lines.join(","));
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// `GET /receipts/digests`
pub(super) async fn digests(
    State(admin): State<Admin>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (after, limit) = parse(query.as_deref())?;
    let (directory, ..) = place(&admin)?;
    let walked = admin.walk_place().await;
    let read = walk(move || {
        let _place = walked;
        receipts::digests_behind(&directory, after, limit)
    });
    let shown = read.await?.into_iter().map(|(digest, note)| {
        json!({
            "segment": digest.segment,
            "first": digest.first,
            "count": digest.count,
            "hash": digest.hash().to_string(),
            "note": note.to_string(),
        })
    });
    Ok(json_answer(StatusCode::OK, &json!({ "digests": shown.collect::<Vec<Value>>() })))
}

/// `GET /receipts/key`
pub(super) async fn key(State(admin): State<Admin>) -> Result<Response, Problem> {
    let (_, key, _) = place(&admin)?;
    Ok(json_answer(StatusCode::OK, &json!({ "origin": key.name(), "key": key.to_string() })))
}

impl Admin {
    /// An order gets its line before it is carried out; one that would have none is not.
    pub(super) fn tell(
        &self,
        peer: Peer,
        action: &'static str,
        target: &str,
        count: Option<u64>,
    ) -> Result<(), Problem> {
        let snapshot = self.shared.snapshot.load();
        let Some(receipts) = snapshot.egress.as_ref().and_then(|egress| egress.receipts.as_ref()) else {
            return Ok(());
        };
        let (time_ms, uid, target) = (Clock::now().wall_ms, peer.uid, target.to_owned());
        if receipts.handle_act(Act { time_ms, action, uid, target, count }) {
            return Ok(());
        }
        Err(Problem::Unavailable(
            "no receipt of the order can be written: look at the disk of node.data_dir".to_owned(),
        ))
    }
}

fn place(admin: &Admin) -> Result<(std::path::PathBuf, zen_audit::LogKey, u64), Problem> {
    let snapshot = admin.shared.snapshot.load();
    let receipts = snapshot.egress.as_ref().and_then(|egress| egress.receipts.as_ref());
    let none = || Problem::NotFound("a receipt (egress.receipts.bytes_max is 0)".to_owned());
    receipts.and_then(|receipts| receipts.place()).ok_or_else(none)
}

fn parse(query: Option<&str>) -> Result<(Option<u64>, usize), Problem> {
    let (mut after, mut limit) = (None, LINES_PAGE);
    for (name, value) in parameters(query)? {
        let number = value.parse::<u64>().map_err(|_| malformed(name, "a number"))?;
        match name {
            "after" => after = Some(number),
            "limit" if (1..=LINES_PAGE_MAX as u64).contains(&number) => limit = number as usize,
            "limit" => return Err(malformed("limit", "1 to 1000")),
            _ => return Err(malformed(name, "after or limit")),
        }
    }
    Ok((after, limit))
}
