//! From a request to an answer: what it is, who asks, and that it is well-formed; then [`Server::perform`], where it may block.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION};
use axum::http::{Response, StatusCode};
use axum::{RequestExt as _, Router, routing};
use http_body_util::BodyExt as _;
use zen_control_api::{Hex16, is_name};

use super::idempotency::Key;
use super::problem::{Fault, Kind};
use super::resources::routes;
use super::route::{Conditional, Route, Verb};
use super::unit::{Answer, Call};
use super::{Server, head, json};
use crate::Refusal;
use crate::listener::now_ms;
use crate::people::Caller;

/// Longest body, bytes.
pub(crate) const PERSON_BODY_BYTES_MAX: usize = 512 * 1024;
/// How much more than that is read and dropped before the connection ends, bytes.
const PERSON_EXCESS_BYTES_MAX: usize = 512 * 1024;
/// How long a body may take.
const PERSON_BODY_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The router of all routes, and a problem for everything else.
pub(super) fn router(server: &Arc<Server>) -> Router {
    let nowhere = server.clone();
    paths(server).fallback(move |request: Request| self::nowhere(nowhere.clone(), request))
}

/// A problem: there is no such route.
pub(crate) async fn nowhere(server: Arc<Server>, request: Request) -> Response<Body> {
    answer(server, None, request).await
}

/// The router of all routes, without anything for others.
pub(crate) fn paths(server: &Arc<Server>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let (path, verb) = (route.path.clone(), route.verb);
        let (server, route) = (server.clone(), Arc::new(route));
        let handler = move |request: Request| answer(server.clone(), Some(route.clone()), request);
        router = router.route(
            &path,
            match verb {
                Verb::Get => routing::get(handler),
                Verb::Put => routing::put(handler),
                Verb::Post => routing::post(handler),
                Verb::Delete => routing::delete(handler),
            },
        );
    }
    router.method_not_allowed_fallback(|request: Request| ready(refuse(&request)))
}

/// Another method of a path that is there.
fn refuse(request: &Request) -> Response<Body> {
    refusal(Fault::Method, &new_id(), caller(request).as_ref())
}

async fn answer(server: Arc<Server>, route: Option<Arc<Route>>, request: Request) -> Response<Body> {
    let request_id = new_id();
    let caller = caller(&request);
    let answered = match (route, caller.clone()) {
        (Some(route), Some(caller)) => done(server, route, caller, request, &request_id).await,
        _ => Err(Fault::Route),
    };
    match answered {
        Ok(answer) => response(answer, &request_id),
        Err(fault) => refusal(fault, &request_id, caller.as_ref()),
    }
}

async fn done(
    server: Arc<Server>,
    route: Arc<Route>,
    caller: Caller,
    request: Request,
    request_id: &str,
) -> Result<Answer, Fault> {
    let _turn = server.turn().await?;
    let call = read(&route, caller, request, request_id).await?;
    let working = server.clone();
    let work = move || {
        let _run = call.key.as_ref().map(|key| working.running.begin(&call.caller.key(), key)).transpose()?;
        working.perform(&route, &call, now_ms())
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Ending)?
}

async fn read(route: &Route, caller: Caller, mut request: Request, request_id: &str) -> Result<Call, Fault> {
    let names = request.extract_parts::<RawPathParams>().await;
    let names = names.map_err(|_| Fault::Malformed("the path is not percent-encoded UTF-8".to_owned()))?;
    let names = names.iter().map(|(name, value)| {
        let is_good = is_name(value);
        let named = is_good.then(|| (name.to_owned(), value.to_owned()));
        named.ok_or_else(|| Fault::Malformed(format!("the path's {name} is no name")))
    });
    let names = names.collect::<Result<_, _>>()?;
    let (parts, body) = request.into_parts();
    if !head::accepts_json(&parts.headers) {
        return Err(Fault::Accept);
    }
    let query = head::query(parts.uri.query(), route.query)?;
    let conditions = head::Conditions::read(&parts.headers)?;
    if route.conditional == Conditional::No && !conditions.is_empty() {
        return Err(Fault::Malformed("If-Match and If-None-Match are for objects only".to_owned()));
    }
    let key = match route.verb {
        Verb::Post => head::idempotency_key(&parts.headers)?,
        _ => None,
    };
    let bytes = whole(body).await?;
    let body = match &route.body {
        None if bytes.is_empty() => None,
        None => return Err(Fault::Malformed("this route takes no body".to_owned())),
        Some(_) if !head::is_json(&parts.headers) => return Err(Fault::ContentType),
        Some(_) => Some(json::parse(&bytes)?),
    };
    let target = parts.uri.path_and_query().map_or(String::new(), ToString::to_string);
    let key = key.map(|key| Key::new(key, parts.method.as_str(), &target, &bytes));
    let request_id = request_id.to_owned();
    Ok(Call { request_id, caller, target, names, query, conditions, key, body })
}

/// A body, in time.
pub(crate) async fn whole(body: Body) -> Result<Vec<u8>, Refusal> {
    tokio::time::timeout(PERSON_BODY_TIMEOUT, collect(body)).await.map_err(|_| Refusal::BodyLost)?
}

/// What is too long is read on for a while, so that the client gets to the answer.
async fn collect(mut body: Body) -> Result<Vec<u8>, Refusal> {
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refusal::BodyLost)?.into_data() else { continue };
        length += data.len();
        if length <= PERSON_BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        }
        if length > PERSON_BODY_BYTES_MAX + PERSON_EXCESS_BYTES_MAX {
            break;
        }
    }
    if length > PERSON_BODY_BYTES_MAX {
        return Err(Refusal::BodyLength { max: PERSON_BODY_BYTES_MAX });
    }
    Ok(bytes)
}

fn response(answer: Answer, request_id: &str) -> Response<Body> {
    let mut response = Response::new(answer.body.map_or_else(Body::empty, Body::from));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !matches!(answer.status, 204 | 304) {
        let media = answer.media.unwrap_or("application/json");
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    let tag = answer.revision.map(|revision| format!("\"{revision}\""));
    for (name, value) in [(ETAG, tag), (LOCATION, answer.location), (REQUEST_ID, Some(request_id.to_owned()))]
    {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

fn refusal(fault: Fault, request_id: &str, caller: Option<&Caller>) -> Response<Body> {
    let who = caller.map_or("nobody".to_owned(), Caller::key);
    match fault.kind() {
        Kind::Internal => tracing::error!(who, request_id, ?fault, "a request failed"),
        kind => tracing::info!(who, request_id, ?kind, "a request was refused"),
    }
    let is_last = matches!(&fault, Fault::Refused(Refusal::Denied | Refusal::Client(_)));
    let mut response = fault.problem(request_id).response();
    if is_last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Ok(id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn caller(request: &Request) -> Option<Caller> {
    request.extensions().get::<Caller>().cloned()
}

fn new_id() -> String {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("aws-lc-rs aborts by itself when it has no randomness");
    Hex16(random).to_string()
}
