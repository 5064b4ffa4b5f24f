//! Programs in the kernel over the admin socket: what is attached, and what was refused last.

use std::sync::PoisonError;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::Admin;
use super::answer::{Problem, json_answer, malformed, parameters};

/// `GET /ebpf`
pub(super) async fn status(State(admin): State<Admin>) -> Result<Response, Problem> {
    let programs = admin.shared.programs.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = programs.status().map_err(|error| Problem::Unavailable(error.to_string()))?;
    let programs: Vec<Value> = shown.into_iter().map(|shown| shown.0).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "programs": programs })))
}

/// `GET /drops?after=NUMBER`
pub(super) async fn drops(
    State(admin): State<Admin>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut after = 0;
    for (name, value) in parameters(query.as_deref())? {
        match name {
            "after" => {
                after = value.parse().map_err(|_| malformed("after", "a number of an earlier answer"))?;
            }
            other => return Err(Problem::Request(format!("{other} is no parameter; there is after"))),
        }
    }
    let drops = admin.shared.drops.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(json_answer(StatusCode::OK, &json!({ "last": drops.last(), "drops": drops.after(after) })))
}
