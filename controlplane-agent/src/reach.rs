//! Whether the control plane answers, as status and metrics say it, and logged when it changes.

use crate::core::Now;
use crate::status::ReachSnapshot;

/// What the last exchange came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reach {
    last: Option<ReachSnapshot>,
}

impl Reach {
    /// An answer came, whatever it said.
    pub(crate) fn handle_answer(&mut self, now: Now) {
        if self.last.as_ref().is_none_or(|last| !last.is_reachable) {
            tracing::info!("the control plane answers");
            self.last = Some(ReachSnapshot { is_reachable: true, since_ms: now.wall_ms, reason: None });
        }
    }

    /// None came.
    pub(crate) fn handle_silence(&mut self, reason: String, now: Now) {
        match &mut self.last {
            Some(last) if !last.is_reachable => last.reason = Some(reason),
            _ => {
                tracing::warn!(reason, "the control plane does not answer; what is in force stays");
                let reason = Some(reason);
                self.last = Some(ReachSnapshot { is_reachable: false, since_ms: now.wall_ms, reason });
            }
        }
    }

    /// None before the first exchange.
    pub(crate) fn snapshot(&self) -> Option<ReachSnapshot> {
        self.last.clone()
    }
}
