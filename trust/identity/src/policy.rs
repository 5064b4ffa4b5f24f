//! Which SPIFFE ids may speak to us: ids in, a decision out.
//!
//! A pattern is an exact id, or a prefix of whole path segments written `spiffe://domain/a/b/*`,
//! which needs at least one segment more. Deny beats allow; what no pattern names is not allowed.
//! Refused: wildcards anywhere else, and exact patterns without a path (no SVID has such an id).
//!
//! A place where several peers are expected has a policy for each, and lets in whom one of them allows. A [`Trial`] is asked
//! beside them, and refuses nobody.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{SpiffeId, SpiffeIdError};

/// Allowed and denied ids of one listener or target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    allow: Vec<SpiffePattern>,
    deny: Vec<SpiffePattern>,
}

impl Policy {
    /// A policy of these patterns; the empty one allows nobody.
    pub fn new(allow: Vec<SpiffePattern>, deny: Vec<SpiffePattern>) -> Self {
        Self { allow, deny }
    }

    /// What this policy says about `id`.
    pub fn decide(&self, id: &SpiffeId) -> Decision {
        if self.deny.iter().any(|pattern| pattern.matches(id)) {
            return Decision::Denied;
        }
        if self.allow.iter().any(|pattern| pattern.matches(id)) {
            return Decision::Allowed;
        }
        Decision::NotListed
    }
}

/// What a [`Policy`] says about one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// An allow pattern matches and no deny pattern does.
    Allowed,
    /// A deny pattern matches.
    Denied,
    /// No pattern matches; treated as a refusal.
    NotListed,
}

impl Decision {
    /// All of them, as they are numbered.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Denied, Self::NotListed];

    /// A label for counting.
    pub fn label(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::NotListed => "not_listed",
        }
    }
}

/// An exact id or a whole-segment prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffePattern {
    prefix: SpiffeId,
    tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Nothing,
    Segments,
}

impl SpiffePattern {
    /// Reads `spiffe://domain/a/b` or `spiffe://domain/a/b/*`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (prefix, tail) = match text.strip_suffix("/*") {
            Some(prefix) => (prefix, Tail::Segments),
            None => (text, Tail::Nothing),
        };
        if prefix.contains('*') {
            return Err(PatternError::Wildcard);
        }
        let prefix = SpiffeId::parse(prefix)?;
        if tail == Tail::Nothing && prefix.path().is_empty() {
            return Err(PatternError::NoPath);
        }
        Ok(Self { prefix, tail })
    }

    /// Whether `id` is the exact id, or lies below the prefix.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        let Some(rest) = id.as_str().strip_prefix(self.prefix.as_str()) else {
            return false;
        };
        match self.tail {
            Tail::Nothing => rest.is_empty(),
            Tail::Segments => rest.starts_with('/'),
        }
    }
}

impl FromStr for SpiffePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl fmt::Display for SpiffePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = if self.tail == Tail::Segments { "/*" } else { "" };
        write!(f, "{}{tail}", self.prefix)
    }
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// What remains without `/*` is not a SPIFFE id.
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
    /// A `*` that is not the whole last segment.
    #[error("the only wildcard is a last segment of *, as in spiffe://domain/a/*")]
    Wildcard,
    /// An exact trust domain without a path, which no SVID can have.
    #[error("a pattern needs a path; for a whole trust domain write spiffe://domain/*")]
    NoPath,
}

/// What any of several policies says: allowed beats denied, for each peer has its own; nobody is allowed by none.
fn decide_by_any(policies: &[Policy], id: &SpiffeId) -> Decision {
    let decisions = policies.iter().map(|policy| policy.decide(id));
    decisions.min().unwrap_or(Decision::NotListed)
}

/// The policies of one place, which can be replaced while connections are being accepted.
#[derive(Debug)]
pub struct SharedPolicy {
    in_force: ArcSwap<Vec<Policy>>,
    trial: Option<Trial>,
}

/// Policies that are not in force: what they would say is observed, and nothing follows from it.
#[derive(Debug)]
pub struct Trial {
    /// One for each peer that is expected.
    pub policies: Vec<Policy>,
    /// Is told.
    pub observer: Arc<dyn TrialObserver>,
}

/// Learns what a trial came to.
pub trait TrialObserver: fmt::Debug + Send + Sync {
    /// `id` has a valid SVID; `in_force` is what became of it, `tried` what would have.
    fn handle_verdict(&self, id: &SpiffeId, in_force: Decision, tried: Decision);
}

impl SharedPolicy {
    /// Shares `policy`.
    pub fn new(policy: Policy) -> Arc<Self> {
        Self::any_of(vec![policy], None)
    }

    /// Lets in whom one of these allows.
    pub fn any_of(policies: Vec<Policy>, trial: Option<Trial>) -> Arc<Self> {
        Arc::new(Self { in_force: ArcSwap::from_pointee(policies), trial })
    }

    /// Takes effect with the next handshake.
    pub fn replace(&self, policy: Policy) {
        self.in_force.store(Arc::new(vec![policy]));
    }

    /// What the policies in force say about `id`; a trial is told of it.
    pub fn decide(&self, id: &SpiffeId) -> Decision {
        let in_force = decide_by_any(&self.in_force.load(), id);
        if let Some(Trial { policies, observer }) = &self.trial {
            observer.handle_verdict(id, in_force, decide_by_any(policies, id));
        }
        in_force
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> SpiffePattern {
        SpiffePattern::parse(text).unwrap()
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let prefix = pattern("spiffe://td/ns/foo/*");
        for (id, matches) in [
            ("spiffe://td/ns/foo/sa/x", true),
            ("spiffe://td/ns/foo/x", true),
            ("spiffe://td/ns/foo", false),
            ("spiffe://td/ns/foobar", false),
            ("spiffe://td/ns/foobar/x", false),
            ("spiffe://td/ns/fo/x", false),
            ("spiffe://td2/ns/foo/x", false),
            ("spiffe://td", false),
        ] {
            assert_eq!(prefix.matches(&SpiffeId::parse(id).unwrap()), matches, "{id}");
        }
        let whole = pattern("spiffe://td/*");
        assert!(whole.matches(&SpiffeId::parse("spiffe://td/a").unwrap()));
        assert!(!whole.matches(&SpiffeId::parse("spiffe://td2/a").unwrap()));
        assert!(!whole.matches(&SpiffeId::parse("spiffe://td").unwrap()));
    }

    #[test]
    fn malformed_patterns_are_refused_by_name() {
        for (text, error) in [
            ("spiffe://td", PatternError::NoPath),
            ("spiffe://*", PatternError::Id(SpiffeIdError::Scheme)),
            ("spiffe://*/a", PatternError::Wildcard),
            ("spiffe://td/a*", PatternError::Wildcard),
            ("spiffe://td/*/a", PatternError::Wildcard),
            ("spiffe://td/*/*", PatternError::Wildcard),
            ("spiffe://td/**", PatternError::Wildcard),
            ("*", PatternError::Wildcard),
            ("/*", PatternError::Id(SpiffeIdError::Scheme)),
            ("spiffe:///*", PatternError::Id(SpiffeIdError::TrustDomainEmpty)),
            ("spiffe://td//*", PatternError::Id(SpiffeIdError::TrailingSlash)),
            ("spiffe://TD/a", PatternError::Id(SpiffeIdError::TrustDomainCharacter)),
        ] {
            assert_eq!(SpiffePattern::parse(text), Err(error), "{text}");
        }
    }

    /// Decides from the texts alone, segment by segment.
    fn reference(allow: &[String], deny: &[String], id: &str) -> Decision {
        let named = |patterns: &[String]| {
            patterns.iter().any(|pattern| {
                let pattern: Vec<&str> = pattern.split('/').collect();
                let id: Vec<&str> = id.split('/').collect();
                for (at, segment) in pattern.iter().enumerate() {
                    if *segment == "*" {
                        return id.len() > at;
                    }
                    if id.get(at) != Some(segment) {
                        return false;
                    }
                }
                id.len() == pattern.len()
            })
        };
        match (named(deny), named(allow)) {
            (true, _) => Decision::Denied,
            (false, true) => Decision::Allowed,
            (false, false) => Decision::NotListed,
        }
    }

    fn ids() -> impl Strategy<Value = String> {
        "spiffe://(td|t|td2)(/(a|ab|b)){1,4}"
    }

    fn patterns() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("spiffe://(td|t|td2)((/(a|ab|b)){1,3}|(/(a|ab|b)){0,3}/\\*)", 0..4)
    }

    #[derive(Debug, Default)]
    struct Observed(std::sync::Mutex<Vec<(Decision, Decision)>>);

    impl TrialObserver for Observed {
        fn handle_verdict(&self, _id: &SpiffeId, in_force: Decision, tried: Decision) {
            self.0.lock().unwrap().push((in_force, tried));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn decides_as_the_reference_does(allow in patterns(), deny in patterns(), id in ids()) {
            let read = |texts: &[String]| texts.iter().map(|text| pattern(text)).collect();
            let policy = Policy::new(read(&allow), read(&deny));
            let id_read = SpiffeId::parse(&id).unwrap();
            prop_assert_eq!(policy.decide(&id_read), reference(&allow, &deny, &id));
        }

        /// Whom one policy allows is let in, whatever the others say; a trial is told what it would say, and changes nothing.
        #[test]
        fn several_policies_decide_as_the_reference_does(
            written in prop::collection::vec((patterns(), patterns()), 0..3),
            tried in prop::collection::vec((patterns(), patterns()), 0..3),
            id in ids(),
        ) {
            let read = |texts: &[String]| texts.iter().map(|text| pattern(text)).collect();
            let policies = |written: &[(Vec<String>, Vec<String>)]| {
                written.iter().map(|(allow, deny)| Policy::new(read(allow), read(deny))).collect::<Vec<_>>()
            };
            let expected = |written: &[(Vec<String>, Vec<String>)]| {
                let said: Vec<Decision> = written.iter().map(|(allow, deny)| reference(allow, deny, &id)).collect();
                let has = |decision| said.contains(&decision);
                match (has(Decision::Allowed), has(Decision::Denied)) {
                    (true, _) => Decision::Allowed,
                    (false, true) => Decision::Denied,
                    (false, false) => Decision::NotListed,
                }
            };
            let observer = Arc::new(Observed::default());
            let trial = Trial { policies: policies(&tried), observer: observer.clone() };
            let (with, without) =
                (SharedPolicy::any_of(policies(&written), Some(trial)), SharedPolicy::any_of(policies(&written), None));
            let id_read = SpiffeId::parse(&id).unwrap();
            prop_assert_eq!(with.decide(&id_read), expected(&written));
            prop_assert_eq!(without.decide(&id_read), expected(&written));
            prop_assert_eq!(&*observer.0.lock().unwrap(), &[(expected(&written), expected(&tried))]);
        }
    }
}
