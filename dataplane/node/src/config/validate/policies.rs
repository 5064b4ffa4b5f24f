//! Who a peer may be: SPIFFE patterns in, a policy out, and one that is only tried beside it.

use std::sync::Arc;

use zen_identity::{Policy, SharedPolicy, SpiffePattern, Trial};

use super::Faults;
use crate::config::raw;
use crate::trials::{TrialPlace, Trials};

/// Most patterns of a list.
const PATTERNS_MAX: usize = 1000;
const REMEDY: &str = "give spiffe://domain/path, or a path ending in /*";

/// The policies of one peer.
#[derive(Clone, Debug)]
pub(super) struct PeerPolicy {
    /// Decides.
    pub(super) in_force: Policy,
    /// Is only asked.
    tried: Option<Policy>,
}

impl PeerPolicy {
    /// As a section has it; `key` is the section's.
    pub(super) fn read(
        key: &str,
        (allow, deny): (&[String], &[String]),
        dry_run: Option<&raw::DryRun>,
        faults: &mut Faults,
    ) -> Self {
        let tried = dry_run.map(|tried| {
            policy(&format!("{key}.dry_run"), (&tried.spiffe_ids, &tried.deny_spiffe_ids), faults)
        });
        Self { in_force: policy(key, (allow, deny), faults), tried }
    }

    /// For handshakes with whoever one of `peers` may be.
    pub(super) fn share(
        peers: &[Self],
        (place, name): (TrialPlace, &str),
        trials: &Arc<Trials>,
    ) -> Arc<SharedPolicy> {
        let in_force = peers.iter().map(|peer| peer.in_force.clone()).collect();
        let is_tried = peers.iter().any(|peer| peer.tried.is_some());
        let trial = is_tried.then(|| Trial {
            policies: peers
                .iter()
                .map(|peer| peer.tried.as_ref().unwrap_or(&peer.in_force).clone())
                .collect(),
            observer: trials.observer(place, name),
        });
        SharedPolicy::any_of(in_force, trial)
    }
}

fn policy(key: &str, (allow, deny): (&[String], &[String]), faults: &mut Faults) -> Policy {
    if allow.is_empty() {
        faults.push(
            format_args!("{key}.spiffe_ids"),
            "is empty, so nobody is allowed",
            "name the peer's SPIFFE id",
        );
    }
    let mut read = |list: &str, ids: &[String]| -> Vec<SpiffePattern> {
        let key = format!("{key}.{list}");
        faults.bound(format_args!("{key} (count)"), ids.len(), 0, PATTERNS_MAX);
        ids.iter().filter_map(|id| faults.parse(&key, id, REMEDY)).collect()
    };
    let allow = read("spiffe_ids", allow);
    Policy::new(allow, read("deny_spiffe_ids", deny))
}
