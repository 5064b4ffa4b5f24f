//! What a node was told, and what it answered.

use zen_control_api::Outcome;

use super::Now;

/// A node that cannot be asked is asked again after this.
const ASK_AGAIN_MS: u64 = 30_000;
/// A node that refused, since what it lacked may have come: it looks by itself, and does not say so.
const ASK_REFUSED_AGAIN_MS: u64 = 300_000;

/// What was published for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of the managed directory.
    pub generation: u64,
    /// Of the configuration.
    pub version: u64,
}

/// One node, as the agent knows it.
#[derive(Clone, Debug, Default)]
pub struct MemberState {
    published: Option<Published>,
    outcome: Option<Outcome>,
    ask_at_ms: u64,
    is_answered: bool,
}

impl MemberState {
    /// A generation is in force for it, which it has to be told.
    pub fn handle_published(&mut self, published: Published, now: Now) {
        let is_new = self.published.is_none_or(|before| before.generation != published.generation);
        self.published = Some(published);
        if is_new {
            self.is_answered = false;
            self.ask_at_ms = now.steady_ms;
        }
        if !is_new
            && let Some(Outcome::Applied { version } | Outcome::Rejected { version, .. }) = &mut self.outcome
        {
            // The files are the same: what was said of them holds.
            *version = published.version;
        }
    }

    /// Nothing could be published for it.
    pub fn handle_refused(&mut self, version: u64, reason: String) {
        self.outcome = Some(Outcome::Rejected { version, reason });
        self.is_answered = true;
    }

    /// It runs by generation `managed`.
    pub fn handle_applied(&mut self, managed: u64, now: Now) {
        let Some(Published { generation, version }) = self.published else { return };
        if managed == generation {
            self.outcome = Some(Outcome::Applied { version });
            self.is_answered = true;
        } else {
            self.handle_unreachable(format!("it runs generation {managed}, not {generation}"), now);
        }
    }

    /// It goes on as before.
    pub fn handle_rejected(&mut self, reason: String, now: Now) {
        let Some(Published { version, .. }) = self.published else { return };
        self.outcome = Some(Outcome::Rejected { version, reason });
        self.is_answered = false;
        self.ask_at_ms = now.steady_ms.saturating_add(ASK_REFUSED_AGAIN_MS);
    }

    /// It cannot be asked; it reads the generation in force when it starts.
    pub fn handle_unreachable(&mut self, reason: String, now: Now) {
        self.outcome = Some(Outcome::Unreachable { reason });
        self.is_answered = false;
        self.ask_at_ms = now.steady_ms.saturating_add(ASK_AGAIN_MS);
    }

    /// Whether to tell it now.
    pub fn poll_ask(&self, now: Now) -> bool {
        self.wait_ms(now) == Some(0)
    }

    /// When it is to be told, ms from now.
    pub fn wait_ms(&self, now: Now) -> Option<u64> {
        let is_due = self.published.is_some() && !self.is_answered;
        is_due.then(|| self.ask_at_ms.saturating_sub(now.steady_ms))
    }

    /// What is in force for it.
    pub fn published(&self) -> Option<Published> {
        self.published
    }

    /// What it said last.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Whether it runs by configuration `version`.
    pub fn runs(&self, version: u64) -> bool {
        self.outcome == Some(Outcome::Applied { version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steady_ms: u64) -> Now {
        Now { wall_ms: 0, steady_ms }
    }

    #[test]
    fn a_node_is_told_once_and_again_until_it_can_be_asked() {
        let mut member = MemberState::default();
        assert_eq!((member.wait_ms(at(0)), member.outcome()), (None, None));
        member.handle_published(Published { generation: 1, version: 7 }, at(0));
        assert!(member.poll_ask(at(0)));
        member.handle_unreachable("no socket".to_owned(), at(0));
        assert!(!member.poll_ask(at(29_999)) && member.poll_ask(at(30_000)));
        member.handle_applied(1, at(30_000));
        assert_eq!((member.wait_ms(at(u64::MAX)), member.runs(7)), (None, true));
        member.handle_published(Published { generation: 2, version: 8 }, at(40_000));
        assert!(member.poll_ask(at(40_000)) && member.runs(7), "it runs by the old one until it answers");
        member.handle_rejected("no".to_owned(), at(40_000));
        assert_eq!(member.outcome(), Some(&Outcome::Rejected { version: 8, reason: "no".to_owned() }));
        assert_eq!(member.wait_ms(at(40_000)), Some(300_000));
        member.handle_applied(2, at(340_000));
        assert!(member.runs(8), "what it lacked has come");
    }

    #[test]
    fn a_node_that_runs_something_else_is_asked_again() {
        let mut member = MemberState::default();
        member.handle_published(Published { generation: 4, version: 7 }, at(0));
        member.handle_applied(3, at(0));
        assert!(matches!(member.outcome(), Some(Outcome::Unreachable { .. })));
        assert_eq!(member.wait_ms(at(0)), Some(30_000));
    }

    #[test]
    fn the_same_files_under_a_new_version_need_no_reload() {
        let mut member = MemberState::default();
        member.handle_published(Published { generation: 4, version: 7 }, at(0));
        member.handle_applied(4, at(0));
        member.handle_published(Published { generation: 4, version: 8 }, at(0));
        assert!(member.runs(8) && member.wait_ms(at(0)).is_none());
    }

    #[test]
    fn what_cannot_be_published_is_reported() {
        let mut member = MemberState::default();
        member.handle_refused(3, "no place for the key".to_owned());
        assert!(matches!(member.outcome(), Some(Outcome::Rejected { version: 3, .. })));
        assert_eq!(member.wait_ms(at(0)), None);
    }
}
