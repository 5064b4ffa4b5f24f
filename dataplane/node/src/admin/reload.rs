//! An order to reload, over the admin socket: what a signal does, with an answer.

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::sync::oneshot;

use super::answer::{Problem, empty, json_answer};
use super::{Admin, Peer};
use crate::reload::InForce;

/// `POST /reload`
pub(super) async fn reload(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Response, Problem> {
    empty(&body)?;
    tracing::warn!(uid = peer.uid, pid = peer.pid, "audit: an order to reload");
    admin.tell(peer, "node.reload", "node", None)?;
    let (answer, answered) = oneshot::channel();
    let busy = |_| Problem::Busy("as many orders to reload as may be are waiting".to_owned());
    admin.reloads.try_send(answer).map_err(busy)?;
    let loaded = answered.await.map_err(|_| Problem::Unavailable("the node is stopping".to_owned()))?;
    let InForce { generation, managed } = loaded.map_err(|error| Problem::Rejected(error.to_string()))?;
    Ok(json_answer(StatusCode::OK, &json!({ "applied": generation, "managed": managed })))
}
