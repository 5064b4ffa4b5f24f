//! Sign-in with a password and a code, and with a one-time link: what happens, without HTTP.

use std::net::IpAddr;

use axum::http::header::HeaderValue;
use zen_audit::Outcome;
use zen_control_api::is_name;
use zeroize::Zeroizing;

use super::code::CodeKey;
use super::password::{PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN};
use super::{SignIn, account, password, sessions};
use crate::audit::{Act, append, append_refused};
use crate::database::begin;
use crate::people;
use crate::{ControlError, Refusal};

/// Why somebody is not signed in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSignedIn {
    /// Which of them is not right, or whether there is anybody of that name, is told to nobody.
    #[error("Name, password or code is not right. A code is good once: wait for the next one.")]
    Wrong,
    /// For the account or the address.
    #[error("There were too many attempts. Wait some minutes, or ask for a new link.")]
    TooMany,
    /// There is no such link, or no more.
    #[error("The link is over: it is good once, within an hour. Ask for a new one.")]
    Link,
    /// A password that is none.
    #[error("A password has 12 to 256 bytes, and is not the name.")]
    Password,
    /// The code of a new authenticator.
    #[error("The code is not the one of now: look at the clock of your device.")]
    Code,
    /// Our fault.
    #[error("Something failed here; try again later.")]
    Failed(#[from] ControlError),
}

/// What somebody typed.
pub(super) struct Typed<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
    pub(super) code: &'a str,
}

/// What an authenticator is to be told.
pub(super) struct Welcome {
    pub(super) person: String,
    pub(super) secret: Zeroizing<String>,
    pub(super) url: Zeroizing<String>,
}

impl SignIn {
    /// With password and code; the session's cookie.
    pub(super) fn with_password(
        &self,
        typed: &Typed<'_>,
        (address, request_id): (IpAddr, &str),
        now_ms: u64,
    ) -> Result<HeaderValue, NotSignedIn> {
        let name = if is_name(typed.name) { typed.name } else { "" };
        if !self.rates.begin(name, address, now_ms) {
            return Err(NotSignedIn::TooMany);
        }
        let found = account::find(&self.server.database(), name)?;
        let kept = found.as_ref().map(|account| account.password.as_str());
        let password = if typed.password.len() > PASSWORD_BYTES_MAX { "" } else { typed.password };
        let is_right = password::is_right(&self.key, kept, password);
        let salt = found.as_ref().map_or(&[][..], |account| &account.code_salt);
        let used = found.as_ref().map_or(0, |account| account.code_step);
        let step = CodeKey::derive(&self.key, salt).step(typed.code, used, now_ms);
        let signed_in = match (found, step) {
            (Some(account), Some(step)) if is_right => {
                self.enter(name, (&account, step), request_id, now_ms)?
            }
            _ => None,
        };
        let Some(cookie) = signed_in else {
            self.refused((name, address, request_id), now_ms)?;
            return Err(NotSignedIn::Wrong);
        };
        self.rates.succeed(name, address);
        Ok(cookie)
    }

    fn enter(
        &self,
        name: &str,
        (account, step): (&account::Account, i64),
        request_id: &str,
        now_ms: u64,
    ) -> Result<Option<HeaderValue>, NotSignedIn> {
        let mut database = self.server.database();
        let transaction = begin(&mut database)?;
        if people::is_denied(&transaction, self.server.trust_domain(), name, now_ms)?
            || !account::use_code(&transaction, name, account, step)?
        {
            return Ok(None);
        }
        let actor = format!("person:{name}");
        let cookie = sessions::make(&transaction, name, &actor, now_ms)?;
        let target = format!("people/{name}");
        let act = act(&actor, "people.sign-in", &target, (Outcome::Done, request_id));
        append(&transaction, &act, now_ms)?;
        transaction.commit()?;
        Ok(Some(cookie))
    }

    /// Puts a refusal into the log of acts.
    pub(super) fn refused(
        &self,
        (name, address, request_id): (&str, IpAddr, &str),
        now_ms: u64,
    ) -> Result<(), ControlError> {
        let (actor, target) = (format!("address:{address}"), format!("people/{name}"));
        let target = target.trim_end_matches('/');
        let act = act(&actor, "people.sign-in", target, (Outcome::Refused, request_id));
        append_refused(&mut self.server.database(), &act, now_ms).map(drop)
    }

    /// What the page of a link shows.
    pub(super) fn welcome(&self, token: &str, now_ms: u64) -> Result<Welcome, NotSignedIn> {
        let link = account::find_link(&self.server.database(), token, now_ms)?;
        let link = link.ok_or(NotSignedIn::Link)?;
        let key = CodeKey::derive(&self.key, &link.code_salt);
        Ok(Welcome { secret: key.text(), url: key.url(&link.person), person: link.person })
    }

    /// With a link, a new password and the first code; the session's cookie.
    pub(super) fn with_link(
        &self,
        token: &str,
        (password, code): (&str, &str),
        request_id: &str,
        now_ms: u64,
    ) -> Result<HeaderValue, NotSignedIn> {
        let link = account::find_link(&self.server.database(), token, now_ms)?;
        let person = link.ok_or(NotSignedIn::Link)?.person;
        if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&password.len()) || password == person {
            return Err(NotSignedIn::Password);
        }
        let hashed = password::hashed(&self.key, password);
        let mut database = self.server.database();
        let transaction = begin(&mut database)?;
        // Meanwhile somebody else may have used it.
        let link = account::find_link(&transaction, token, now_ms)?.ok_or(NotSignedIn::Link)?;
        if people::is_denied(&transaction, self.server.trust_domain(), &link.person, now_ms)? {
            return Err(NotSignedIn::Link);
        }
        let step = CodeKey::derive(&self.key, &link.code_salt).step(code, 0, now_ms);
        account::use_link(&transaction, &link, (&hashed, step.ok_or(NotSignedIn::Code)?))?;
        let (actor, target) = (format!("person:{person}"), format!("people/{person}"));
        let cookie = sessions::make(&transaction, &person, &actor, now_ms)?;
        let act = act(&actor, "people.use-link", &target, (Outcome::Done, request_id));
        append(&transaction, &act, now_ms)?;
        transaction.commit()?;
        tracing::error!(person, "ALARM: a one-time link let somebody in; ask who made it unless you know");
        Ok(cookie)
    }
}

/// An act of sign-in; it is no tenant's alone.
pub(super) fn act<'a>(
    actor: &'a str,
    action: &'a str,
    target: &'a str,
    (outcome, request_id): (Outcome, &'a str),
) -> Act<'a> {
    Act { tenant: "", actor, action, target, outcome, request_id }
}

impl From<rusqlite::Error> for NotSignedIn {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Refusal> for NotSignedIn {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Database(error) => error.into(),
            _ => Self::Wrong,
        }
    }
}
