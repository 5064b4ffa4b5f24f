//! Pages of sign-in: requests in, pages or the way to the next one out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::form::{self, FORM_BYTES_MAX, Form, is_same_origin};
use super::local::{NotSignedIn, Typed, act};
use super::sessions::{self, SESSION_COOKIE, may_post, session_id, set_cookie};
use super::{HASH_TIMEOUT, SIGN_IN_PATH, SignIn};
use crate::ControlError;
use crate::audit::{append, new_request_id};
use crate::database::begin;
use crate::listener::now_ms;

/// How long a form may take to come.
pub(super) const FORM_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    error: &'a str,
    name: &'a str,
    next: &'a str,
    has_provider: bool,
}

#[derive(Template)]
#[template(path = "link.html")]
struct LinkPage<'a> {
    error: &'a str,
    token: &'a str,
    person: &'a str,
    secret: &'a str,
    url: &'a str,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    error: &'a str,
}

/// What a handler gives.
pub(super) type Answered = Response<Body>;

pub(super) async fn sign_in(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let next = next_of(request.uri().query());
    sign_in.page(StatusCode::OK, ("", "", &next))
}

pub(super) async fn password(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let address = address_of(&request);
    let form = match posted(request).await {
        Ok((form, _)) => form,
        Err(refused) => return refused,
    };
    let Some(_turn) = turn(&sign_in).await else { return busy() };
    let working = sign_in.clone();
    let work = move || {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let typed = Typed { name: field("name"), password: field("password"), code: field("code") };
        let result = working.with_password(&typed, (address, &new_request_id()), now_ms());
        match result {
            Ok(cookie) => forward(local_path(field("next")), &[cookie]),
            Err(error) => working.page(status(&error), (&error.to_string(), field("name"), field("next"))),
        }
    };
    done(tokio::task::spawn_blocking(work).await)
}

pub(super) async fn link(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let token = form::form(request.uri().query().unwrap_or_default().as_bytes());
    let token = token.and_then(|mut fields| fields.remove("token")).unwrap_or_default();
    let work = move || sign_in.link_page(StatusCode::OK, "", &token);
    done(tokio::task::spawn_blocking(work).await)
}

pub(super) async fn use_link(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let form = match posted(request).await {
        Ok((form, _)) => form,
        Err(refused) => return refused,
    };
    let Some(_turn) = turn(&sign_in).await else { return busy() };
    let working = sign_in.clone();
    let work = move || {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let result = working.with_link(
            field("token"),
            (field("password"), field("code")),
            &new_request_id(),
            now_ms(),
        );
        match result {
            Ok(cookie) => forward("/", &[cookie]),
            Err(error) => working.link_page(status(&error), &error.to_string(), field("token")),
        }
    };
    done(tokio::task::spawn_blocking(work).await)
}

pub(super) async fn sign_out(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let (form, headers) = match posted(request).await {
        Ok(posted) => posted,
        Err(refused) => return refused,
    };
    let work = move || {
        if !may_post(&headers, form.get("csrf").map_or("", String::as_str)) {
            return refused(
                StatusCode::FORBIDDEN,
                "The page is too old: go back, load it again, and try again.",
            );
        }
        match sign_in.end(&headers) {
            Ok(()) => forward(SIGN_IN_PATH, &[set_cookie(SESSION_COOKIE, "", 0)]),
            Err(error) => failed(&error),
        }
    };
    done(tokio::task::spawn_blocking(work).await)
}

impl SignIn {
    fn end(&self, headers: &HeaderMap) -> Result<(), ControlError> {
        let Some(session) = session_id(headers) else { return Ok(()) };
        let mut database = self.server.database();
        let transaction = begin(&mut database)?;
        if let Some((person, actor)) = sessions::end(&transaction, session)? {
            let (target, request_id) = (format!("people/{person}"), new_request_id());
            let outcome = (zen_audit::Outcome::Done, request_id.as_str());
            append(&transaction, &act(&actor, "people.sign-out", &target, outcome), now_ms())?;
        }
        Ok(transaction.commit()?)
    }

    fn page(&self, status: StatusCode, (error, name, next): (&str, &str, &str)) -> Answered {
        rendered(
            status,
            &SignInPage { error, name, next: local_path(next), has_provider: self.has_provider() },
        )
    }

    fn link_page(&self, status: StatusCode, error: &str, token: &str) -> Answered {
        match self.welcome(token, now_ms()) {
            Ok(welcome) => {
                let (person, secret, url) = (&welcome.person, &welcome.secret, &welcome.url);
                rendered(status, &LinkPage { error, token, person, secret, url })
            }
            Err(error) => refused(self::status(&error), &error.to_string()),
        }
    }
}

/// A form of a page of ours.
pub(super) async fn posted(request: Request) -> Result<(Form, HeaderMap), Answered> {
    let (parts, body) = request.into_parts();
    if !is_same_origin(&parts.headers) {
        return Err(refused(StatusCode::FORBIDDEN, "The form comes from another site."));
    }
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = kind
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    if !is_form {
        return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "This is for forms of a browser."));
    }
    let body = Limited::new(body, FORM_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(FORM_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => {
            return Err(refused(StatusCode::BAD_REQUEST, "The form is too long or too slow."));
        }
    };
    let form =
        form::form(&bytes).ok_or_else(|| refused(StatusCode::BAD_REQUEST, "The form is not whole."))?;
    Ok((form, parts.headers))
}

/// Somewhere else, with these cookies.
pub(super) fn forward(to: &str, cookies: &[HeaderValue]) -> Answered {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let to = HeaderValue::try_from(to).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, to);
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie.clone());
    }
    response
}

/// A page.
pub(super) fn rendered(status: StatusCode, page: &impl Template) -> Answered {
    let text = page.render().unwrap_or_else(|error| {
        tracing::error!(%error, "a page could not be written");
        String::new()
    });
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// A page that says why not.
pub(super) fn refused(status: StatusCode, error: &str) -> Answered {
    rendered(status, &RefusedPage { error })
}

pub(super) fn failed(error: &ControlError) -> Answered {
    tracing::error!(%error, "sign-in failed");
    refused(StatusCode::INTERNAL_SERVER_ERROR, "Something failed here; try again later.")
}

pub(super) fn done(answer: Result<Answered, tokio::task::JoinError>) -> Answered {
    answer.unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR, "Something failed here."))
}

pub(super) fn address_of(request: &Request) -> IpAddr {
    let address = request.extensions().get::<SocketAddr>();
    address.map_or(Ipv4Addr::UNSPECIFIED.into(), SocketAddr::ip)
}

/// A path of ours to go to, or the first page.
pub(super) fn local_path(next: &str) -> &str {
    let is_ours = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_ours { next } else { "/" }
}

fn next_of(query: Option<&str>) -> String {
    let fields = form::form(query.unwrap_or_default().as_bytes());
    fields.and_then(|mut fields| fields.remove("next")).unwrap_or_default()
}

async fn turn(sign_in: &SignIn) -> Option<tokio::sync::SemaphorePermit<'_>> {
    tokio::time::timeout(HASH_TIMEOUT, sign_in.hashing.acquire()).await.ok()?.ok()
}

fn busy() -> Answered {
    refused(StatusCode::TOO_MANY_REQUESTS, "Many sign in at this moment; try again.")
}

fn status(error: &NotSignedIn) -> StatusCode {
    match error {
        NotSignedIn::Wrong | NotSignedIn::Password | NotSignedIn::Code => StatusCode::UNPROCESSABLE_ENTITY,
        NotSignedIn::TooMany => StatusCode::TOO_MANY_REQUESTS,
        NotSignedIn::Link => StatusCode::GONE,
        NotSignedIn::Failed(error) => {
            tracing::error!(%error, "sign-in failed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
