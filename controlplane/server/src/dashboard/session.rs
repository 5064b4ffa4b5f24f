//! A browser's session, as its requests show it; whether it lasts is asked with each step.

use axum::http::HeaderMap;

use crate::listener::now_ms;
use crate::people::Caller;
use crate::rest::{Fault, Server};
use crate::sign_in::{csrf_token, may_post, session_id, touch};

/// What the script of a list sends with each reading.
const REFRESH: &str = "zen-refresh";

/// A session that somebody claims to have.
pub(super) struct Session {
    pub(super) caller: Caller,
    /// What forms bring back.
    pub(super) csrf: String,
    /// The page reads itself again: nobody has to be there for that.
    is_refresh: bool,
}

impl Session {
    /// None without a cookie.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (caller, csrf) = (Caller::Session(session_id(headers)?), csrf_token(headers)?);
        Some(Self { caller, csrf, is_refresh: headers.contains_key(REFRESH) })
    }

    /// It is in use, so that it does not end for being idle.
    pub(super) fn touch(&self, server: &Server) -> Result<(), Fault> {
        if let Caller::Session(id) = self.caller
            && !self.is_refresh
        {
            touch(&mut server.database(), id, now_ms())?;
        }
        Ok(())
    }
}

/// Whether a form is of the session, and was sent from a page of ours.
pub(super) fn check_form(headers: &HeaderMap, token: &str) -> Result<(), Fault> {
    let detail = "the form is of another session, or comes from a page of somebody else: load the page again";
    if may_post(headers, token) { Ok(()) } else { Err(Fault::Conflict(detail)) }
}
