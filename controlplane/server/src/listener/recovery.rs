//! The two requests of an agent whose certificate has ended, on a connection that its binding key made.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use zen_control_api::{RecoveryRequest, is_name};

use super::Server;
use super::connection::Peer;
use super::routes::{REQUEST_BYTES_MAX, Success, body, json};
use crate::{Attempt, Control, Refusal};

const CLIENT: Refusal = Refusal::Client("holders of a binding key");

pub(super) async fn nonce(
    server: &Arc<Server>,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Result<Success, Refusal> {
    let Peer::Bundle { key, .. } = *peer else { return Err(CLIENT) };
    let cluster = request.uri().query().and_then(|query| query.strip_prefix("cluster="));
    let cluster = cluster.filter(|cluster| is_name(cluster)).ok_or(Refusal::Query("cluster=its name"))?;
    let cluster = cluster.to_owned();
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).expect("aws-lc-rs aborts by itself when it has no randomness");
    let given = server.work(move |control, now| control.recovery_nonce(&key, &cluster, random, now)).await?;
    Ok(json(StatusCode::OK, &given))
}

pub(super) async fn recover(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let Peer::Bundle { key, exporter, ref source } = *peer else { return Err(CLIENT) };
    let source = source.clone();
    let request: RecoveryRequest = body(request, REQUEST_BYTES_MAX).await?;
    let step = move |control: &Control, now| {
        control.recover(Attempt { client: &key, exporter: &exporter, source: &source }, &request, now)
    };
    Ok(json(StatusCode::CREATED, &server.work(step).await?))
}
