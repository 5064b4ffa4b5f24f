//! How long ago the deny list was confirmed: the time of its file in, an alarm out, and handshakes refused if that is wanted.
//!
//! Whoever brings the list sets its file's time when it is known to be the newest; an agent does whenever the control plane
//! says that there is nothing newer. Both times are of this host's wall clock; a file of the future counts as new.

use std::path::Path;
use std::time::{Duration, SystemTime};

use zen_identity::{Handshakes, SvidStore};

use crate::config::NodeSettings;
use crate::metrics::NodeMetrics;

/// What was found last.
#[derive(Debug, Default)]
pub struct DenyListAge {
    is_stale: bool,
}

impl DenyListAge {
    /// Looks at the file; a line for `/status`, empty where nobody said how old it may be.
    pub fn handle_time(
        &mut self,
        node: &NodeSettings,
        (svid, metrics): (&SvidStore, &NodeMetrics),
        now: SystemTime,
    ) -> String {
        let Some((file, max)) = node.deny_list_file.as_deref().zip(node.deny_list_age_max) else {
            self.is_stale = false;
            svid.set_handshakes(Handshakes::Judged);
            metrics.deny_list_age_seconds.set(0);
            metrics.deny_list_stale.set(0);
            return String::new();
        };
        let age = age_of(file, now);
        let was_stale = std::mem::replace(&mut self.is_stale, age > max);
        let refuses = self.is_stale && node.deny_list_fail_closed;
        svid.set_handshakes(if refuses { Handshakes::Refused } else { Handshakes::Judged });
        metrics.deny_list_age_seconds.set(age.as_secs());
        metrics.deny_list_stale.set(u64::from(self.is_stale));
        let (age_s, max_s) = (age.as_secs(), max.as_secs());
        let then = if refuses { "handshakes are refused" } else { "who was denied since is not denied here" };
        match (was_stale, self.is_stale) {
            (false, true) => {
                tracing::error!(
                    age_s,
                    max_s,
                    "ALARM: the deny list has not been confirmed for too long: {then}; see the agent's status"
                );
            }
            (true, false) => tracing::info!(age_s, "the deny list is confirmed again"),
            _ => {}
        }
        if self.is_stale {
            format!("deny list not confirmed for {age_s} s, {max_s} s are allowed: {then}\n")
        } else {
            format!("deny list confirmed {age_s} s ago\n")
        }
    }
}

/// A file that cannot be looked at is as old as can be.
fn age_of(file: &Path, now: SystemTime) -> Duration {
    match std::fs::metadata(file).and_then(|metadata| metadata.modified()) {
        Ok(confirmed) => now.duration_since(confirmed).unwrap_or_default(),
        Err(_) => now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
    }
}
