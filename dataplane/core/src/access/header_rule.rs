//! Rules about headers of a verified request: present, one of some values, with a prefix, or of a pattern.
//!
//! Values are compared as bytes. A header that a rule compares must come once: which of two counts
//! would be a guess. Regular expressions are not for this crate: a [`HeaderPattern`] brings them.

use alloc::string::String;
use alloc::vec::Vec;

use crate::verify::RequestView;

/// Most rules of an endpoint.
pub const HEADER_RULES_MAX: usize = 16;
/// Most values of one rule.
pub const HEADER_VALUES_MAX: usize = 64;
/// Longest value or prefix, bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 256;
/// Longest value of a request that a pattern is tried on, bytes; a longer one does not match.
pub const PATTERN_VALUE_BYTES_MAX: usize = 1024;

/// A test of a value that is not done here.
pub trait HeaderPattern {
    /// Whether `value`, of [`PATTERN_VALUE_BYTES_MAX`] at most, matches.
    fn is_match(&self, value: &str) -> bool;
}

/// What a header must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderTest<P> {
    /// There, whatever its value.
    Present,
    /// One of these values.
    OneOf(Vec<String>),
    /// Of a value that begins like this.
    Prefix(String),
    /// Of a value that matches.
    Pattern(P),
}

/// What happens to a request that fails a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderAction {
    /// It is refused.
    Reject,
    /// It is taken, and its event is held back at the egress as a dead letter.
    Quarantine,
    /// It is counted and taken.
    Log,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule<P> {
    /// The header's name in lower case.
    pub name: String,
    /// What it must be.
    pub test: HeaderTest<P>,
    /// What happens else.
    pub action: HeaderAction,
}

/// What all rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderVerdict<'r> {
    /// None is broken.
    Passed,
    /// One is, which is only counted.
    Logged,
    /// One is, about this header: the event is to be held back.
    Quarantined(&'r str),
    /// One is.
    Rejected,
}

/// The strictest verdict of `rules`.
pub fn check_headers<'r, P: HeaderPattern>(
    rules: &'r [HeaderRule<P>],
    request: &impl RequestView,
) -> HeaderVerdict<'r> {
    let broken = rules.iter().filter(|rule| !rule.holds(request));
    broken.fold(HeaderVerdict::Passed, |worst, rule| match (rule.action, worst) {
        (HeaderAction::Reject, _) | (_, HeaderVerdict::Rejected) => HeaderVerdict::Rejected,
        (_, quarantined @ HeaderVerdict::Quarantined(_)) => quarantined,
        (HeaderAction::Quarantine, _) => HeaderVerdict::Quarantined(&rule.name),
        (HeaderAction::Log, _) => HeaderVerdict::Logged,
    })
}

impl<P: HeaderPattern> HeaderRule<P> {
    fn holds(&self, request: &impl RequestView) -> bool {
        let count = request.header_count(&self.name);
        let value = || request.header(&self.name).filter(|_| count == 1);
        match &self.test {
            HeaderTest::Present => count > 0,
            HeaderTest::OneOf(values) => value().is_some_and(|value| values.iter().any(|one| one == value)),
            HeaderTest::Prefix(prefix) => value().is_some_and(|value| value.starts_with(prefix.as_str())),
            HeaderTest::Pattern(pattern) => {
                value().is_some_and(|value| value.len() <= PATTERN_VALUE_BYTES_MAX && pattern.is_match(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned;
    use alloc::vec;

    use super::*;
    use crate::verify::fuzz::Headers;

    #[derive(Clone, Debug)]
    struct Ending(&'static str);

    impl HeaderPattern for Ending {
        fn is_match(&self, value: &str) -> bool {
            value.ends_with(self.0)
        }
    }

    #[test]
    fn the_strictest_broken_rule_decides() {
        use HeaderAction::{Log, Quarantine, Reject};
        use HeaderVerdict::{Logged, Passed, Quarantined, Rejected};
        let rule = |test: HeaderTest<Ending>, action| HeaderRule { name: "x-event".to_owned(), test, action };
        let present = |action| rule(HeaderTest::Present, action);
        let one_of = |action| rule(HeaderTest::OneOf(vec!["push".to_owned(), "ping".to_owned()]), action);
        let prefix = |action| rule(HeaderTest::Prefix("order.".to_owned()), action);
        let pattern = |action| rule(HeaderTest::Pattern(Ending("paid")), action);
        let longest = "a".repeat(PATTERN_VALUE_BYTES_MAX - 4) + "paid";
        let too_long = "a".repeat(PATTERN_VALUE_BYTES_MAX - 3) + "paid";
        for (rules, lines, expected) in [
            (vec![], &[][..], Passed),
            (vec![present(Reject)], &[], Rejected),
            (vec![present(Log)], &[], Logged),
            (vec![present(Reject)], &[""], Passed),
            (vec![present(Reject)], &["a", "b"], Passed),
            (vec![one_of(Reject)], &[], Rejected),
            (vec![one_of(Reject)], &["push"], Passed),
            (vec![one_of(Reject)], &["ping"], Passed),
            (vec![one_of(Reject)], &["Push"], Rejected),
            (vec![one_of(Reject)], &["push "], Rejected),
            (vec![one_of(Reject)], &["push", "push"], Rejected),
            (vec![one_of(Log)], &["fork"], Logged),
            (vec![prefix(Reject)], &["order.paid"], Passed),
            (vec![prefix(Reject)], &["order"], Rejected),
            (vec![prefix(Reject)], &["order.a", "order.b"], Rejected),
            (vec![pattern(Reject)], &["order.paid"], Passed),
            (vec![pattern(Reject)], &["order.sent"], Rejected),
            (vec![pattern(Reject)], &[], Rejected),
            (vec![pattern(Reject)], &["paid", "paid"], Rejected),
            (vec![pattern(Log)], &["order.sent"], Logged),
            (vec![pattern(Reject)], &[&*longest], Passed),
            (vec![pattern(Reject)], &[&*too_long], Rejected),
            (vec![one_of(Log), prefix(Reject)], &["fork"], Rejected),
            (vec![prefix(Reject), one_of(Log)], &["fork"], Rejected),
            (vec![prefix(Log), one_of(Reject)], &["push"], Logged),
            (vec![present(Quarantine)], &["push"], Passed),
            (vec![one_of(Quarantine)], &["fork"], Quarantined("x-event")),
            (vec![one_of(Quarantine), prefix(Log)], &["fork"], Quarantined("x-event")),
            (vec![prefix(Log), one_of(Quarantine)], &["fork"], Quarantined("x-event")),
            (vec![one_of(Quarantine), prefix(Reject)], &["fork"], Rejected),
            (vec![prefix(Reject), one_of(Quarantine)], &["fork"], Rejected),
        ] {
            let lines = lines.iter().map(|value| ("x-event".to_owned(), value.as_bytes().to_vec()));
            let request = Headers(lines.collect());
            assert_eq!(check_headers(&rules, &request), expected, "{rules:?} {request:?}");
        }
    }
}
