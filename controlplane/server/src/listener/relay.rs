//! What agents tell beside their reports: as witnesses of the audit log, of orders, and of what nodes did.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use zen_control_api::{
    DeadLetterReport, DeliveryReport, DigestReport, ORDER_BYTES_MAX, SYNC_ORDERS_MAX, SyncAnswer, SyncRequest,
};

use super::connection::Peer;
use super::routes::{Success, agent, body, json};
use super::{Server, now_ms};
use crate::control::Note;
use crate::{Refusal, SessionKey};

/// Longest request about log and orders, bytes.
const SYNC_BODY_BYTES_MAX: usize = 128 * 1024;
/// Longest report of what nodes did, bytes.
const RELAY_BODY_BYTES_MAX: usize = 512 * 1024;

const _: () = assert!(SYNC_ORDERS_MAX * ORDER_BYTES_MAX < 1 << 20, "agents take an answer of 1 MiB");

/// The log as it is now and that it continues what the agent saw, its cosignature kept; orders, and what came of them.
pub(super) async fn sync(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let key: SessionKey = agent(peer)?;
    let SyncRequest { witness, last_order, results } =
        bounded(request, SYNC_BODY_BYTES_MAX, SyncRequest::is_bounded).await?;
    let size = witness.as_ref().map_or(0, |witness| witness.size);
    let session = server.look(|control, now| control.session(&key, now))?;
    if let Some(witness) = &witness
        && server.look(|control, _| control.is_other_alarm(&session.cluster, witness.alarm.as_deref()))?
    {
        let (key, alarm) = (key.clone(), witness.alarm.clone());
        server.work(move |control, now| control.keep_witness_alarm(&key, alarm.as_deref(), now)).await?;
    }
    if !results.is_empty() {
        let key = key.clone();
        server.work(move |control, now| control.end_orders(&key, &results, now)).await?;
    }
    if let Some(cosigned) = witness.as_ref().and_then(|witness| witness.cosigned.clone()) {
        let witness_key = witness.map(|witness| witness.key).unwrap_or_default();
        let cluster = session.cluster.clone();
        server.notes.keep(Note::Cosigned { cluster, witness_key, cosigned, at_ms: now_ms() }).await?;
    }
    let log = server.look(|control, _| control.log_report(size))?;
    let has_orders = server.look(|control, now| control.has_orders(&session.cluster, last_order, now))?;
    let orders = if has_orders {
        server.work(move |control, now| control.hand_out(&key, last_order, now)).await?
    } else {
        Vec::new()
    };
    Ok(json(StatusCode::OK, &SyncAnswer { log, orders }))
}

/// Digests of receipts.
pub(super) async fn digests(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let key = agent(peer)?;
    let report = bounded(request, RELAY_BODY_BYTES_MAX, DigestReport::is_bounded).await?;
    let answer = server.work(move |control, now| control.keep_digests(&key, &report, now)).await?;
    Ok(json(StatusCode::OK, &answer))
}

/// Metadata of deliveries.
pub(super) async fn deliveries(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let key = agent(peer)?;
    let report = bounded(request, RELAY_BODY_BYTES_MAX, DeliveryReport::is_bounded).await?;
    let answer = server.work(move |control, now| control.keep_deliveries(&key, &report, now)).await?;
    Ok(json(StatusCode::OK, &answer))
}

/// A list of dead letters.
pub(super) async fn letters(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let key = agent(peer)?;
    let report = bounded(request, RELAY_BODY_BYTES_MAX, DeadLetterReport::is_bounded).await?;
    let answer = server.work(move |control, now| control.keep_letters(&key, &report, now)).await?;
    Ok(json(StatusCode::OK, &answer))
}

/// A body whose names and numbers are within their bounds as well.
async fn bounded<T: serde::de::DeserializeOwned>(
    request: Request<Incoming>,
    bytes_max: usize,
    is_bounded: fn(&T) -> bool,
) -> Result<T, Refusal> {
    let read: T = body(request, bytes_max).await?;
    let fault = Refusal::Field("a name is none, or a list, a text or a number is over its bounds");
    if is_bounded(&read) { Ok(read) } else { Err(fault) }
}
