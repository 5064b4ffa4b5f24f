//! Which peers the configuration knows, and whether a link's peer is still one of them.

use zen_identity::{Decision, SpiffeId};

use super::session::{Link, Machine};
use crate::config::{EgressPeer, IngesterPeer, Snapshot};

pub fn egress_peer<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a EgressPeer> {
    snapshot.ingester.as_ref()?.egresses.iter().find(|peer| peer.name == name)
}

pub fn ingester_peer<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a IngesterPeer> {
    snapshot.egress.as_ref()?.ingesters.iter().find(|peer| peer.name == name)
}

/// Whether the configuration still names the link's peer, with the SPIFFE id that it showed.
pub fn is_admitted(snapshot: &Snapshot, link: &Link) -> bool {
    let policy = match &link.machine {
        Machine::Sending { egress, .. } => egress_peer(snapshot, egress).map(|peer| &peer.policy),
        Machine::Receiving { ingester, .. } => ingester_peer(snapshot, ingester).map(|peer| &peer.policy),
        Machine::AwaitHello | Machine::Dialling | Machine::Moving(_) => return true,
    };
    // A peer that is not known yet is checked by its handshake, against the configuration of now.
    policy.is_some_and(|policy| link.peer().is_none_or(|peer| admits(policy, Some(&peer))))
}

pub fn admits(policy: &zen_identity::Policy, peer: Option<&SpiffeId>) -> bool {
    peer.is_some_and(|peer| policy.decide(peer) == Decision::Allowed)
}
