//! Requests and answers: which route a method and path are, what its body and query may be, and JSON.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch as channel;
use zen_control_api::{
    CERTIFICATES, CONFIGURATION, CertificateRequest, DEAD_LETTERS, DELIVERIES, ENROLL, EnrollmentRequest,
    Hex16, LINK_KEYS, LINK_STATEMENT_BYTES_MAX, LinkStatement, NONCE, PROBLEM_CONTENT_TYPE, ProblemType,
    RECEIPTS, RECOVER, RECOVERY_NONCE, STATUS, SYNC, StatusReport,
};

use super::connection::{Peer, ended};
use super::{Server, recovery, relay};
use crate::database::integer;
use crate::metrics::Counter;
use crate::news::News;
use crate::{AgentSession, Attempt, Refusal, SessionKey};

/// Longest body of an enrollment or a request for a certificate, bytes.
pub(super) const REQUEST_BYTES_MAX: usize = 32 * 1024;
/// Longest report, bytes.
const STATUS_BYTES_MAX: usize = 256 * 1024;
/// Longest statement about link keys, as JSON, which may double it, bytes.
const LINK_BODY_BYTES_MAX: usize = 2 * LINK_STATEMENT_BYTES_MAX;
/// How much more than that is read and dropped before the connection ends, bytes.
const EXCESS_BYTES_MAX: usize = 512 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const HEALTH: &str = "/healthz";

pub(super) type Body = Full<Bytes>;

/// An answer that is a success.
pub(super) enum Success {
    Json(StatusCode, Vec<u8>),
    /// And the connection ends: the next one is made with the new certificate.
    LastJson(Vec<u8>),
    Nothing,
}

/// Answers one request, whatever it is.
pub(super) async fn answer(
    server: Arc<Server>,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<Body> {
    let name = name(request.method(), request.uri().path());
    match route(&server, &peer, request).await {
        Ok(success) => {
            server.metrics.count_request(name, "ok");
            success.into()
        }
        Err(refusal) => {
            count(&server, name, &refusal);
            problem(&peer, &refusal)
        }
    }
}

/// What metrics call a route.
fn name(method: &Method, path: &str) -> &'static str {
    match (method, path) {
        (&Method::GET, HEALTH) => "health",
        (&Method::GET, NONCE) => "nonce",
        (&Method::POST, ENROLL) => "enroll",
        (&Method::GET, RECOVERY_NONCE) => "recovery_nonce",
        (&Method::POST, RECOVER) => "recover",
        (&Method::GET, CONFIGURATION) => "configuration",
        (&Method::POST, CERTIFICATES) => "certificates",
        (&Method::POST, STATUS) => "status",
        (&Method::POST, LINK_KEYS) => "link_keys",
        (&Method::POST, SYNC) => "sync",
        (&Method::POST, RECEIPTS) => "receipts",
        (&Method::POST, DELIVERIES) => "deliveries",
        (&Method::POST, DEAD_LETTERS) => "dead_letters",
        _ => "none",
    }
}

fn count(server: &Server, name: &'static str, refusal: &Refusal) {
    let kind = refusal.kind();
    server.metrics.count_request(name, kind.label());
    if matches!(kind, ProblemType::BundleConsumed | ProblemType::CloneSuspected) {
        server.metrics.count_as(Counter::Alarms, kind.label());
    }
    if matches!((kind, refusal), (ProblemType::Internal, Refusal::Database(_))) {
        server.metrics.count(Counter::DatabaseErrors);
    }
}

async fn route(server: &Arc<Server>, peer: &Peer, request: Request<Incoming>) -> Result<Success, Refusal> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, HEALTH) => Ok(json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))),
        (&Method::GET, NONCE) => nonce(server, peer, &request).await,
        (&Method::POST, ENROLL) => enroll(server, peer, request).await,
        (&Method::GET, RECOVERY_NONCE) => recovery::nonce(server, peer, &request).await,
        (&Method::POST, RECOVER) => recovery::recover(server, peer, request).await,
        (&Method::GET, CONFIGURATION) => configuration(server, peer, &request).await,
        (&Method::POST, CERTIFICATES) => certificate(server, peer, request).await,
        (&Method::POST, STATUS) => status(server, peer, request).await,
        (&Method::POST, LINK_KEYS) => link_keys(server, peer, request).await,
        (&Method::POST, SYNC) => relay::sync(server, peer, request).await,
        (&Method::POST, RECEIPTS) => relay::digests(server, peer, request).await,
        (&Method::POST, DELIVERIES) => relay::deliveries(server, peer, request).await,
        (&Method::POST, DEAD_LETTERS) => relay::letters(server, peer, request).await,
        _ => Err(Refusal::Route),
    }
}

async fn nonce(server: &Arc<Server>, peer: &Peer, request: &Request<Incoming>) -> Result<Success, Refusal> {
    let Peer::Bundle { key, .. } = *peer else { return Err(Refusal::Client("holders of a bundle")) };
    let expected = Refusal::Query("bundle_id=32 digits of lower-case hex");
    let bundle_id = request.uri().query().and_then(|query| query.strip_prefix("bundle_id="));
    let bundle_id: Hex16 = bundle_id.and_then(|id| id.parse().ok()).ok_or(expected)?;
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).expect("aws-lc-rs aborts by itself when it has no randomness");
    let given = server.work(move |control, now| control.nonce(&key, bundle_id, random, now)).await?;
    Ok(json(StatusCode::OK, &given))
}

async fn enroll(server: &Arc<Server>, peer: &Peer, request: Request<Incoming>) -> Result<Success, Refusal> {
    let Peer::Bundle { key, exporter, ref source } = *peer else {
        return Err(Refusal::Client("holders of a bundle"));
    };
    let source = source.clone();
    let request: EnrollmentRequest = body(request, REQUEST_BYTES_MAX).await?;
    let step = move |control: &crate::Control, now| {
        control.enroll(Attempt { client: &key, exporter: &exporter, source: &source }, &request, now)
    };
    Ok(json(StatusCode::CREATED, &server.work(step).await?))
}

async fn certificate(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let key = agent(peer)?;
    let request: CertificateRequest = body(request, REQUEST_BYTES_MAX).await?;
    let is_own = request.member.is_none();
    let answer = server.work(move |control, now| control.certify(&key, &request, now)).await?;
    let text = serde_json::to_vec(&answer).expect("texts and numbers are JSON");
    Ok(if is_own { Success::LastJson(text) } else { Success::Json(StatusCode::CREATED, text) })
}

async fn configuration(
    server: &Arc<Server>,
    peer: &Peer,
    request: &Request<Incoming>,
) -> Result<Success, Refusal> {
    let key = agent(peer)?;
    let after = request.uri().query().and_then(|query| query.strip_prefix("after="));
    let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let after = after.filter(is_number).and_then(|text| text.parse::<u64>().ok());
    let after = after.ok_or(Refusal::Query("after=the version that is in force"))?;
    let (mut news, mut ending) = (server.news.subscribe(), server.ending.subscribe());
    let end = tokio::time::Instant::now() + jittered(server.long_poll);
    loop {
        let (session, found) = server.look(|control, now| control.configuration(&key, after, now))?;
        if let Some(found) = found {
            return Ok(json(StatusCode::OK, &found));
        }
        // Nothing newer, and the agent asks for orders next.
        let has_order = news.borrow().has_order(&session.cluster);
        if has_order && server.look(|control, now| control.has_open_order(&session.cluster, now))? {
            return Ok(Success::Nothing);
        }
        let is_there = tokio::select! {
            is_there = newer(&mut news, &key, &session, after) => is_there?,
            () = tokio::time::sleep_until(end) => false,
            () = ended(&mut ending) => false,
        };
        if !is_there {
            return Ok(Success::Nothing);
        }
    }
}

/// Waits until the cluster has a newer configuration, or the agent may not speak any more.
async fn newer(
    news: &mut channel::Receiver<Arc<News>>,
    key: &SessionKey,
    session: &AgentSession,
    after: u64,
) -> Result<bool, Refusal> {
    loop {
        news.changed().await.map_err(|_| Refusal::Ending)?;
        let news = news.borrow_and_update().clone();
        news.check(key, session)?;
        if news.is_newer(&session.cluster, integer(after)) || news.has_order(&session.cluster) {
            return Ok(true);
        }
    }
}

async fn status(server: &Arc<Server>, peer: &Peer, request: Request<Incoming>) -> Result<Success, Refusal> {
    let key: SessionKey = agent(peer)?;
    let report: StatusReport = body(request, STATUS_BYTES_MAX).await?;
    let note = server.look(|control, now| control.report(&key, report, now))?;
    server.notes.keep(note).await?;
    Ok(Success::Nothing)
}

async fn link_keys(
    server: &Arc<Server>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Result<Success, Refusal> {
    let key = agent(peer)?;
    let said: LinkStatement = body(request, LINK_BODY_BYTES_MAX).await?;
    server.work(move |control, now| control.state_links(&key, &said, now)).await?;
    Ok(Success::Nothing)
}

pub(super) fn agent(peer: &Peer) -> Result<SessionKey, Refusal> {
    match peer {
        Peer::Svid(key) => Ok(key.clone()),
        Peer::Bundle { .. } => Err(Refusal::Client("agents that have an identity")),
    }
}

/// A body of at most `max` bytes that is this object and nothing else.
pub(super) async fn body<T: DeserializeOwned>(request: Request<Incoming>, max: usize) -> Result<T, Refusal> {
    if request.uri().query().is_some() {
        return Err(Refusal::Query("empty"));
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, collect(request.into_body(), max)).await;
    Ok(serde_json::from_slice(&collected.map_err(|_| Refusal::BodyLost)??)?)
}

/// What is too long is read on for a while, so that the client gets to the answer.
async fn collect(mut body: Incoming, max: usize) -> Result<Vec<u8>, Refusal> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyLost)?.into_data() else { continue };
        length += data.len();
        if length <= max {
            bytes.extend_from_slice(&data);
        }
        if length > max + EXCESS_BYTES_MAX {
            break;
        }
    }
    if length > max { Err(Refusal::BodyLength { max }) } else { Ok(bytes) }
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Success {
    Success::Json(status, serde_json::to_vec(value).expect("texts and numbers are JSON"))
}

impl From<Success> for Response<Body> {
    fn from(success: Success) -> Self {
        match success {
            Success::Json(status, text) => response(status, "application/json", text),
            Success::LastJson(text) => {
                let mut last = response(StatusCode::CREATED, "application/json", text);
                last.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                last
            }
            Success::Nothing => {
                let mut empty = Response::new(Body::default());
                *empty.status_mut() = StatusCode::NO_CONTENT;
                empty
            }
        }
    }
}

fn problem(peer: &Peer, refusal: &Refusal) -> Response<Body> {
    let problem = refusal.problem();
    let who = match peer {
        Peer::Svid(key) => key.id.as_str(),
        Peer::Bundle { source, .. } => source,
    };
    match problem.kind {
        ProblemType::Internal => tracing::error!(who, error = %refusal, "a request failed"),
        ProblemType::CloneSuspected => tracing::error!(who, "ALARM: {refusal}"),
        kind => tracing::info!(who, ?kind, "a request was refused"),
    }
    let status = StatusCode::from_u16(problem.status).expect("problems have a status");
    let text = serde_json::to_vec(&problem).expect("texts and numbers are JSON");
    let mut response = response(status, PROBLEM_CONTENT_TYPE, text);
    if matches!(refusal, Refusal::Denied | Refusal::Locked | Refusal::Superseded) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, text: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A tenth more or less, so that agents do not come back all at once.
fn jittered(wait: Duration) -> Duration {
    let mut random = [0; 2];
    aws_lc_rs::rand::fill(&mut random).expect("aws-lc-rs aborts by itself when it has no randomness");
    wait.mul_f64(0.9 + 0.2 * f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX))
}
