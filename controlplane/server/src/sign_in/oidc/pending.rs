//! Sign-ins that are on their way through a provider: each is known by its state, is of one browser, and comes back once.

use std::collections::HashMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// How long somebody may take at the provider, ms.
pub(crate) const PENDING_LIFE_MS: u64 = 10 * 60 * 1000;
/// Most that are on their way; then the oldest is forgotten.
pub(crate) const PENDING_MAX: usize = 1024;

/// What is remembered of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Hash of the browser's cookie.
    pub(super) browser: [u8; 32],
    pub(super) nonce: String,
    /// Of PKCE (RFC 7636).
    pub(super) verifier: String,
    pub(super) begun_ms: u64,
}

/// All of them, by the hash of their state.
#[derive(Default)]
pub(super) struct AllPending(HashMap<[u8; 32], Pending>);

impl AllPending {
    pub(super) fn add(&mut self, state: [u8; 32], pending: Pending) {
        let now_ms = pending.begun_ms;
        if self.0.len() >= PENDING_MAX {
            self.0.retain(|_, pending| pending.begun_ms + PENDING_LIFE_MS > now_ms);
        }
        if self.0.len() >= PENDING_MAX
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, pending)| pending.begun_ms).map(|(state, _)| *state)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(state, pending);
    }

    /// The one of a state, for its browser only. Whoever else knows the state takes nothing away.
    pub(super) fn take(&mut self, state: &[u8; 32], browser: &[u8; 32], now_ms: u64) -> Option<Pending> {
        let found = self.0.get(state)?;
        let is_theirs = verify_slices_are_equal(&found.browser, browser).is_ok();
        if !is_theirs || found.begun_ms + PENDING_LIFE_MS <= now_ms {
            return None;
        }
        self.0.remove(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(browser: u8, begun_ms: u64) -> Pending {
        Pending { browser: [browser; 32], nonce: String::new(), verifier: String::new(), begun_ms }
    }

    #[test]
    fn each_comes_back_once_in_its_browser_and_in_time() {
        let mut all = AllPending::default();
        all.add([1; 32], pending(7, 0));
        assert_eq!(all.take(&[2; 32], &[7; 32], 1), None, "another state");
        assert_eq!(all.take(&[1; 32], &[8; 32], 1), None, "another browser");
        assert_eq!(all.take(&[1; 32], &[7; 32], PENDING_LIFE_MS), None, "too late");
        assert!(all.take(&[1; 32], &[7; 32], 1).is_some());
        assert_eq!(all.take(&[1; 32], &[7; 32], 1), None, "once");
        for at in 0..2 * PENDING_MAX as u64 {
            let mut state = [0; 32];
            state[..8].copy_from_slice(&at.to_be_bytes());
            all.add(state, pending(7, at));
        }
        assert_eq!(all.0.len(), PENDING_MAX);
    }
}
