//! The CAs while the server runs: steps that are due are taken, those of commands are noticed, and the listener's own
//! certificate follows. Nothing is started anew.

use super::{Server, now_ms};
use crate::{ControlError, Need};

/// From this long before the end on, what a person has to do is an alarm, ms.
const ALARM_MS: u64 = 15 * 24 * 3600 * 1000;

/// Takes over what a command has changed.
pub(super) fn refresh(server: &Server) {
    match server.control.refresh_authority(&server.directory) {
        Ok(false) => {}
        Ok(true) => {
            tracing::info!(not_after_ms = server.control.authority().not_after_ms(), "the CAs were changed");
            renew_listener(server);
        }
        Err(error) => tracing::error!(%error, "the CAs cannot be read; those in use stay"),
    }
}

/// Takes the steps that are due, and says what only a person can do.
pub(super) fn advance(server: &Server) {
    let now = now_ms();
    let advanced = match server.control.advance_authority(&server.directory, now) {
        Ok(advanced) => advanced,
        Err(error) => {
            tracing::error!(%error, "the CAs are not rotated; those in use stay");
            return;
        }
    };
    for step in &advanced.done {
        tracing::info!("{step}");
    }
    if !advanced.done.is_empty() {
        renew_listener(server);
    }
    if let Some(need) = advanced.need {
        say(need, now);
    }
}

/// A certificate of the issuing CA that signs now, and the roots of now.
pub(super) fn renew_listener(server: &Server) {
    let authority = server.control.authority();
    let is_certified = authority.certified_server(&server.directory);
    let made = if is_certified {
        Ok(())
    } else {
        authority.certify_server(&server.directory, server.control.trust_domain(), now_ms())
    };
    match made.and_then(|()| server.store.reload().map_err(ControlError::from)) {
        Ok(_) => tracing::info!("the listener has the certificate and roots of now"),
        Err(error) => tracing::error!(%error, "the listener's certificate could not be renewed"),
    }
}

fn say(need: Need, now_ms: u64) {
    let (by_ms, what) = match need {
        Need::RootKey { by_ms } => (
            by_ms,
            "the next issuing CA needs the root's key, which is not here; run: zen-control authority renew --root-key FILE",
        ),
        Need::Root { by_ms } => {
            (by_ms, "the root ends within a year; run: zen-control authority rotate-root")
        }
    };
    if by_ms < now_ms.saturating_add(ALARM_MS) {
        tracing::error!(by_ms, "ALARM: {what}");
    } else {
        tracing::warn!(by_ms, "{what}");
    }
}
