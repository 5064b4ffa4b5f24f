//! The two requests of a browser that signs in with a provider: there, and back.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::HeaderValue;
use zen_audit::Outcome;

use super::people::{actor, person_of};
use super::provider::{NotLetIn, Provider};
use super::token::Identity;
use crate::audit::{append, new_request_id};
use crate::database::begin;
use crate::listener::now_ms;
use crate::people;
use crate::sign_in::SignIn;
use crate::sign_in::form::{cookie, form};
use crate::sign_in::local::act;
use crate::sign_in::pages::{Answered, address_of, done, forward, refused};
use crate::sign_in::sessions::{self, set_cookie};
use crate::{ControlError, Refusal};

/// Binds a way there to the browser that went.
const BROWSER_COOKIE: &str = "__Host-zen-provider";
/// As long as a sign-in may take, s.
const BROWSER_COOKIE_SECONDS: u64 = 600;

/// To the provider.
pub(in crate::sign_in) async fn there(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let Some(provider) = &sign_in.provider else { return nowhere() };
    let address = address_of(&request);
    match provider.begin(now_ms()).await {
        Ok(way) => forward(&way.url, &[set_cookie(BROWSER_COOKIE, &way.browser, BROWSER_COOKIE_SECONDS)]),
        Err(error) => sign_in.not_let_in(&error, address).await,
    }
}

/// From the provider.
pub(in crate::sign_in) async fn back(State(sign_in): State<Arc<SignIn>>, request: Request) -> Answered {
    let Some(provider) = &sign_in.provider else { return nowhere() };
    let (address, now) = (address_of(&request), now_ms());
    if !sign_in.rates.begin_address(address, now) {
        return refused(StatusCode::TOO_MANY_REQUESTS, "There were too many attempts. Wait some minutes.");
    }
    let answer = form(request.uri().query().unwrap_or_default().as_bytes()).unwrap_or_default();
    let identity = match provider.finish(&answer, cookie(request.headers(), BROWSER_COOKIE), now).await {
        Ok(identity) => identity,
        Err(error) => return sign_in.not_let_in(&error, address).await,
    };
    sign_in.rates.succeed_address(address);
    let working = sign_in.clone();
    let work = move || match working.enter_with(&identity, now) {
        Ok(cookie) => forward("/", &[cookie, set_cookie(BROWSER_COOKIE, "", 0)]),
        Err(ControlError::Argument(reason)) => refused(StatusCode::FORBIDDEN, reason),
        Err(error) => crate::sign_in::pages::failed(&error),
    };
    done(tokio::task::spawn_blocking(work).await)
}

impl SignIn {
    fn provider(&self) -> Result<&Provider, ControlError> {
        self.provider.as_ref().ok_or(ControlError::Argument("no provider is configured"))
    }

    fn enter_with(&self, identity: &Identity, now_ms: u64) -> Result<HeaderValue, ControlError> {
        let settings = &self.provider()?.settings;
        let request_id = new_request_id();
        let mut database = self.server.database();
        let transaction = begin(&mut database)?;
        let person = person_of(&transaction, settings, identity, (&request_id, now_ms))?;
        match people::is_denied(&transaction, self.server.trust_domain(), &person, now_ms) {
            Ok(false) => {}
            Ok(true) => return Err(ControlError::Argument("You are denied; ask an owner.")),
            Err(Refusal::Database(error)) => return Err(error.into()),
            Err(_) => return Err(ControlError::Argument("The person's name is none.")),
        }
        let (actor, target) = (actor(&settings.issuer, &identity.subject), format!("people/{person}"));
        let cookie = sessions::make(&transaction, &person, &actor, now_ms)?;
        let outcome = (Outcome::Done, request_id.as_str());
        append(&transaction, &act(&actor, "people.sign-in", &target, outcome), now_ms)?;
        transaction.commit()?;
        Ok(cookie)
    }

    /// The log has the reason; so has the page, for it helps nobody to guess anything.
    async fn not_let_in(self: &Arc<Self>, error: &NotLetIn, address: IpAddr) -> Answered {
        tracing::warn!(%error, %address, "a sign-in with the provider was refused");
        let status = match error {
            NotLetIn::NoAnswer(_) | NotLetIn::Discovery | NotLetIn::Keys => StatusCode::BAD_GATEWAY,
            _ => StatusCode::FORBIDDEN,
        };
        let (working, text) = (self.clone(), format!("You are not signed in: {error}."));
        let work = move || {
            let logged = working.refused(("", address, &new_request_id()), now_ms());
            if let Err(error) = logged {
                return crate::sign_in::pages::failed(&error);
            }
            refused(status, &text)
        };
        done(tokio::task::spawn_blocking(work).await)
    }
}

fn nowhere() -> Answered {
    refused(StatusCode::NOT_FOUND, "No provider is configured: see oidc in docs/people.md.")
}
