//! The requests of the device flow (RFC 8628): a device's are answered with JSON, a person's with pages.

use std::sync::{Arc, PoisonError};

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, HeaderValue};
use axum::http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use zen_audit::Outcome;

use super::devices::{Asked, Confirmed, DEVICE_INTERVAL_MS, DEVICE_LIFE_MS};
use super::form::{FORM_BYTES_MAX, encoded, form};
use super::local::act;
use super::pages::{Answered, FORM_TIMEOUT, address_of, done, forward, posted, refused, rendered};
use super::sessions::{csrf_token, may_post, session_id};
use super::{SignIn, secret};
use crate::ControlError;
use crate::audit::{append, new_request_id};
use crate::database::{begin, integer};
use crate::listener::now_ms;
use crate::people::{self, Caller, Person};

/// How long a token is good, ms.
pub(crate) const TOKEN_LIFE_MS: u64 = 3600 * 1000;
/// Most tokens of one person; then the one that ends first goes.
pub(crate) const PERSON_TOKENS_MAX: i64 = 16;
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage<'a> {
    error: &'a str,
    notice: &'a str,
    person: &'a str,
    user_code: &'a str,
    csrf: &'a str,
}

/// A device begins.
pub(super) async fn code(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let now = now_ms();
    if !sign_in.rates.begin_address(address_of(&request), now) {
        return json_answer(StatusCode::TOO_MANY_REQUESTS, &json!({"error": "slow_down"}));
    }
    let begun = sign_in.devices.lock().unwrap_or_else(PoisonError::into_inner).begin(now);
    let Some((code, user_code)) = begun else {
        return json_answer(StatusCode::TOO_MANY_REQUESTS, &json!({"error": "slow_down"}));
    };
    let at = format!("https://{host}/device");
    json_answer(
        StatusCode::OK,
        &json!({
            "device_code": *code,
            "user_code": user_code,
            "verification_uri_complete": format!("{at}?user_code={user_code}"),
            "verification_uri": at,
            "expires_in": DEVICE_LIFE_MS / 1000,
            "interval": DEVICE_INTERVAL_MS / 1000,
        }),
    )
}

/// A device asks for its token.
pub(super) async fn token(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let body = Limited::new(request.into_body(), FORM_BYTES_MAX).collect();
    let bytes = match tokio::time::timeout(FORM_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let fields = form(&bytes).unwrap_or_default();
    if fields.get("grant_type").map(String::as_str) != Some(GRANT) {
        return json_answer(StatusCode::BAD_REQUEST, &json!({"error": "unsupported_grant_type"}));
    }
    let code = fields.get("device_code").map_or("", String::as_str);
    let asked = sign_in.devices.lock().unwrap_or_else(PoisonError::into_inner).ask(code, now_ms());
    let confirmed = match asked {
        Ok(confirmed) => confirmed,
        Err(asked) => return json_answer(StatusCode::BAD_REQUEST, &json!({"error": error_of(asked)})),
    };
    let work = move || match sign_in.give_token(&confirmed, now_ms()) {
        Ok(Some(token)) => json_answer(
            StatusCode::OK,
            &json!({"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE_MS / 1000}),
        ),
        Ok(None) => json_answer(StatusCode::BAD_REQUEST, &json!({"error": "access_denied"})),
        Err(error) => super::pages::failed(&error),
    };
    done(tokio::task::spawn_blocking(work).await)
}

/// A person looks at what a device asks for.
pub(super) async fn look(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let fields = form(request.uri().query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let user_code = fields.get("user_code").cloned().unwrap_or_default();
    let headers = request.headers().clone();
    let work = move || match sign_in.person(&headers) {
        Some(person) => page(&headers, StatusCode::OK, ("", ""), (&person.name, &user_code)),
        None => {
            let next = format!("/device?user_code={}", encoded(&user_code));
            forward(&format!("/sign-in?next={}", encoded(&next)), &[])
        }
    };
    done(tokio::task::spawn_blocking(work).await)
}

/// A person says yes or no.
pub(super) async fn decide(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let address = address_of(&request);
    let (fields, headers) = match posted(request).await {
        Ok(posted) => posted,
        Err(refused) => return refused,
    };
    let work = move || {
        let field = |name: &str| fields.get(name).map_or("", String::as_str);
        let person = sign_in.person(&headers).filter(|_| may_post(&headers, field("csrf")));
        let Some(person) = person else {
            return refused(
                StatusCode::FORBIDDEN,
                "The page is too old: go back, load it again, and try again.",
            );
        };
        let (user_code, now) = (field("user_code"), now_ms());
        if !sign_in.rates.begin_address(address, now) {
            return refused(
                StatusCode::TOO_MANY_REQUESTS,
                "There were too many attempts. Wait some minutes.",
            );
        }
        let (name, is_yes) = (person.name.clone(), field("answer") == "allow");
        let verdict = is_yes.then_some(Confirmed { person: person.name, actor: person.actor });
        let decided =
            sign_in.devices.lock().unwrap_or_else(PoisonError::into_inner).decide(user_code, verdict, now);
        if !decided {
            let error = "No device waits with this code: it is over, or was typed wrong.";
            return page(&headers, StatusCode::UNPROCESSABLE_ENTITY, (error, ""), (&name, user_code));
        }
        sign_in.rates.succeed_address(address);
        let notice = if is_yes { "The device gets a token for an hour." } else { "The device gets nothing." };
        page(&headers, StatusCode::OK, ("", notice), (&name, ""))
    };
    done(tokio::task::spawn_blocking(work).await)
}

impl SignIn {
    fn person(&self, headers: &HeaderMap) -> Option<Person> {
        let caller = Caller::Session(session_id(headers)?);
        people::find(&self.server.database(), self.server.trust_domain(), &caller, now_ms()).ok()
    }

    /// A token for whoever said yes, if they still may; its text, which is given once.
    fn give_token(&self, confirmed: &Confirmed, now_ms: u64) -> Result<Option<String>, ControlError> {
        let Confirmed { person, actor } = confirmed;
        let mut database = self.server.database();
        let transaction = begin(&mut database)?;
        if !people::exists(&transaction, person)? || people::roles_of(&transaction, person)?.is_empty() {
            return Ok(None);
        }
        let now = integer(now_ms);
        transaction.execute("DELETE FROM tokens WHERE expires_ms <= ?1", (now,))?;
        let sql = "DELETE FROM tokens WHERE hash IN
            (SELECT hash FROM tokens WHERE person = ?1 ORDER BY expires_ms DESC LIMIT -1 OFFSET ?2)";
        transaction.execute(sql, (person, PERSON_TOKENS_MAX - 1))?;
        let (text, hash) = secret::new();
        let sql = "INSERT INTO tokens (hash, person, actor, expires_ms) VALUES (?1, ?2, ?3, ?4)";
        transaction.execute(sql, (hash, person, actor, now + integer(TOKEN_LIFE_MS)))?;
        let (target, request_id) = (format!("people/{person}"), new_request_id());
        let outcome = (Outcome::Done, request_id.as_str());
        append(&transaction, &act(actor, "tokens.create", &target, outcome), now_ms)?;
        transaction.commit()?;
        Ok(Some(text.to_string()))
    }
}

fn page(
    headers: &HeaderMap,
    status: StatusCode,
    (error, notice): (&str, &str),
    (person, user_code): (&str, &str),
) -> Answered {
    let csrf = csrf_token(headers).unwrap_or_default();
    rendered(status, &DevicePage { error, notice, person, user_code, csrf: &csrf })
}

fn error_of(asked: Asked) -> &'static str {
    match asked {
        Asked::Pending => "authorization_pending",
        Asked::SlowDown => "slow_down",
        Asked::Denied => "access_denied",
        Asked::Expired => "expired_token",
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Answered {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
