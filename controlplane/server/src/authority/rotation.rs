//! When CAs follow each other: a list, a time and what agents know in, the next step out.
//!
//! An issuing CA's successor is prepared at half of its life, waits a day at least, and signs when a sixth of the life is
//! left; what it replaced goes a day after its end. So a verifier whose clock is hours behind finds no CA that has not begun.
//! A new root's first issuing CA signs as soon as everybody knows the root.

use super::ISSUING_LIFE_MS;
use super::LEAF_LIFE_MS;
use super::ledger::{Issuing, Ledger};

/// Between the preparation of a CA and its first signature, ms; and between its end and its removal.
pub(crate) const SETTLING_MS: u64 = 24 * 3600 * 1000;
/// A root's end is said this long before, ms.
const ROOT_WARNING_MS: u64 = 365 * 24 * 3600 * 1000;

/// One change of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make an issuing CA under this root.
    Prepare { root: u64 },
    /// Let this issuing CA sign from now on.
    Use { number: u64 },
    /// Forget this issuing CA.
    Remove { number: u64 },
}

/// Whether everybody knows the newest root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    /// All agents and nodes that count have said so.
    Everywhere,
    /// Somebody has not.
    Partly,
}

/// What a person has to do, and by when, Unix ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The root's key is needed for the next issuing CA before the present one ends.
    RootKey {
        /// When nothing can be issued any more.
        by_ms: u64,
    },
    /// The root ends, and has no successor.
    Root {
        /// When it ends.
        by_ms: u64,
    },
}

impl Issuing {
    /// When its successor is prepared.
    fn half_ms(&self) -> u64 {
        self.ends_at_ms - self.life_ms() / 2
    }

    /// When its successor signs.
    fn last_sixth_ms(&self) -> u64 {
        self.ends_at_ms - self.life_ms() / 6
    }

    fn life_ms(&self) -> u64 {
        self.ends_at_ms.saturating_sub(self.prepared_at_ms).min(ISSUING_LIFE_MS)
    }

    fn has_settled(&self, now_ms: u64) -> bool {
        now_ms >= self.prepared_at_ms.saturating_add(SETTLING_MS)
    }
}

impl Ledger {
    /// What is to be done now.
    pub(crate) fn poll_step(&self, now_ms: u64, spread: Spread) -> Option<Step> {
        let (active, newest) = (self.active(), self.newest_root());
        if active.root != newest.number {
            match self.waiting(newest.number, now_ms) {
                None => return Some(Step::Prepare { root: newest.number }),
                Some(next) if spread == Spread::Everywhere && next.has_settled(now_ms) => {
                    return Some(Step::Use { number: next.number });
                }
                Some(_) => {}
            }
        }
        match self.waiting(active.root, now_ms) {
            None if now_ms >= active.half_ms() && self.can_be_longer(active) => {
                return Some(Step::Prepare { root: active.root });
            }
            Some(next) if is_turn(active, next, now_ms) => return Some(Step::Use { number: next.number }),
            _ => {}
        }
        let is_over = |issuing: &&Issuing| {
            issuing.number != active.number && now_ms >= issuing.ends_at_ms.saturating_add(SETTLING_MS)
        };
        self.issuing.iter().find(is_over).map(|over| Step::Remove { number: over.number })
    }

    /// What only a person can do; asked for when [`Step::Prepare`] had no key, or at any time.
    pub(crate) fn poll_need(&self, now_ms: u64) -> Option<Need> {
        let (active, newest) = (self.active(), self.newest_root());
        let is_due = self.waiting(active.root, now_ms).is_none() && now_ms >= active.half_ms();
        if is_due && self.can_be_longer(active) {
            return Some(Need::RootKey { by_ms: active.ends_at_ms });
        }
        let is_late = now_ms.saturating_add(ROOT_WARNING_MS) >= newest.ends_at_ms;
        is_late.then_some(Need::Root { by_ms: newest.ends_at_ms })
    }

    /// The CA under a root that is prepared and has not signed yet.
    pub(crate) fn waiting(&self, root: u64, now_ms: u64) -> Option<&Issuing> {
        let is_waiting = |issuing: &&Issuing| {
            issuing.root == root && issuing.used_from_ms.is_none() && issuing.ends_at_ms > now_ms
        };
        self.issuing.iter().rfind(is_waiting)
    }

    /// Whether another CA under the same root would live longer than this one.
    fn can_be_longer(&self, active: &Issuing) -> bool {
        self.root(active.root).is_some_and(|root| root.ends_at_ms > active.ends_at_ms)
    }
}

/// A CA that cannot give a leaf its whole life makes place at once.
fn is_turn(active: &Issuing, next: &Issuing, now_ms: u64) -> bool {
    let is_short = now_ms.saturating_add(LEAF_LIFE_MS) >= active.ends_at_ms;
    is_short || (now_ms >= active.last_sixth_ms() && next.has_settled(now_ms))
}
