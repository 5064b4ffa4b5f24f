//! The dashboard: what the API has, as pages that work without a script.
//!
//! Enters: requests of a browser with a session. Leaves: HTML, or a redirection once something was done (303). Refused: whoever
//! is not signed in, forms without the session's token or of another origin, and all that the API refuses.
//!
//! Pages have no way of their own to the database: they ask the API's routes as the person whose session it is, so that roles,
//! tenants and the log of acts are decided in one place.

mod ask;
mod assets;
mod audit;
mod clusters;
mod deliveries;
mod difference;
mod fields;
mod form;
mod frame;
mod kinds;
mod objects;
mod overview;
mod people;
mod publish;
mod session;
mod shown;
mod visit;

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, LOCATION};
use axum::http::{Method, Response, StatusCode};
use axum::{RequestExt as _, Router, routing};

use self::ask::query_of;
use self::form::Form;
use self::frame::Frame;
use self::session::{Session, check_form};
use self::visit::{Reply, Step, Visit};
use crate::listener::now_ms;
use crate::rest::{Fault, Kind, Route, Server, routes, whole};
use crate::{Refusal, audit as log_of_acts};

/// What pages share.
#[derive(Clone)]
pub(crate) struct Dashboard {
    server: Arc<Server>,
    routes: Arc<[Route]>,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    detail: String,
    request_id: String,
}

impl Dashboard {
    pub(crate) fn new(server: &Arc<Server>) -> Self {
        Self { server: server.clone(), routes: routes().into() }
    }

    fn trust_domain(&self) -> &str {
        self.server.trust_domain()
    }

    /// There is no such page.
    pub(crate) async fn nowhere(&self, request: Request) -> Response<Body> {
        let nowhere: Step = |_| Err(Fault::NotFound("page"));
        self.answer(nowhere, request).await
    }

    async fn answer(&self, step: Step, request: Request) -> Response<Body> {
        let request_id = log_of_acts::new_request_id();
        let next = if *request.method() == Method::GET { request.uri().path() } else { "" };
        let sign_in = format!("/sign-in{}", query_of([("next", next.trim_end_matches('/'))]));
        let Some(session) = Session::of(request.headers()) else { return redirection(&sign_in) };
        let answered = self.done(step, session, request, request_id.clone()).await;
        match answered {
            Ok(reply) => response(reply),
            Err(Fault::Refused(Refusal::Client(_))) => redirection(&sign_in),
            Err(fault) => refusal(Frame::default(), fault, &request_id),
        }
    }

    async fn done(
        &self,
        step: Step,
        session: Session,
        mut request: Request,
        request_id: String,
    ) -> Result<Reply, Fault> {
        let _turn = self.server.turn().await?;
        let names = request.extract_parts::<RawPathParams>().await;
        let names = names.map_err(|_| Fault::NotFound("page"))?;
        let names: BTreeMap<String, String> =
            names.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (parts, body) = request.into_parts();
        let query = Form::of_query(parts.uri.query())?;
        let form = if parts.method == Method::POST {
            let form = Form::read(&parts.headers, &whole(body).await?)?;
            check_form(&parts.headers, form.text("csrf"))?;
            form
        } else {
            Form::default()
        };
        let is_post = parts.method == Method::POST;
        let dashboard = self.clone();
        let work = move || {
            let mut visit = Visit::begin(&dashboard, session, (names, query, form), request_id, is_post)?;
            match step(&mut visit) {
                Err(Fault::Refused(refusal @ Refusal::Client(_))) => Err(Fault::Refused(refusal)),
                Err(fault) => Ok(Reply::Refused(Box::new(visit.frame("")), fault, visit.request_id)),
                Ok(reply) => Ok(reply),
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Ending)?
    }
}

/// All pages.
pub(crate) fn router(dashboard: &Dashboard) -> Router {
    let mut router = assets::router();
    let pages = [
        overview::PAGES,
        clusters::PAGES,
        publish::PAGES,
        objects::PAGES,
        deliveries::PAGES,
        people::PAGES,
        audit::PAGES,
    ];
    for (method, path, step) in pages.into_iter().flatten() {
        let (dashboard, step) = (dashboard.clone(), *step);
        let handler = move |request: Request| {
            let dashboard = dashboard.clone();
            async move { dashboard.answer(step, request).await }
        };
        let served = if *method == "GET" { routing::get(handler) } else { routing::post(handler) };
        router = router.route(path, served);
    }
    router
}

fn response(reply: Reply) -> Response<Body> {
    let (status, kind, text) = match reply {
        Reply::Page(status, text) => (status, "text/html; charset=utf-8", text),
        Reply::To(path) => return redirection(&path),
        Reply::Refused(frame, fault, request_id) => return refusal(*frame, fault, &request_id),
        Reply::File(name, kind, text) => {
            let mut response = Response::new(Body::from(text));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let name = format!("attachment; filename=\"{name}\"");
            headers
                .insert(CONTENT_DISPOSITION, HeaderValue::try_from(name).expect("names of files are ours"));
            return response;
        }
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn redirection(path: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let path = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, path);
    response
}

fn refusal(frame: Frame, fault: Fault, request_id: &str) -> Response<Body> {
    if fault.kind() == Kind::Internal {
        tracing::error!(request_id, ?fault, "a page failed");
    }
    let problem = fault.problem(request_id);
    let errors = problem.errors.iter().map(|error| format!("{}: {}", error.pointer, error.detail));
    let detail =
        if problem.errors.is_empty() { problem.detail } else { errors.collect::<Vec<_>>().join("; ") };
    let frame = Frame { title: problem.title.to_owned(), ..frame };
    let page = ProblemPage { frame, detail, request_id: request_id.to_owned() };
    response(visit::page(problem.status, &page))
}

/// Milliseconds since 1970, for pages.
fn now() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}
