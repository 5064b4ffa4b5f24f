//! Policies as nodes have them: for each peer who it may be, who not, and what is only tried.
//!
//! A peer is allowed if its own patterns and those of all policies together allow it: of two patterns that meet, the narrower.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::Faults;
use crate::objects::{Object as _, Policy, PolicyScope, TenantObjects};

/// Most patterns of one list, as nodes take them.
pub(crate) const POLICY_PATTERNS_MAX: usize = 1000;

/// What the policies of one cluster say of one kind of connections.
#[derive(Debug, Default)]
pub(super) struct Rules {
    in_force: Lists,
    /// With what is only tried; none if nothing is.
    tried: Option<Lists>,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    /// None while no policy allows anything: then nobody is kept out by that.
    allow: Option<BTreeSet<String>>,
    deny: BTreeSet<String>,
}

impl Rules {
    pub(super) fn of(
        objects: &TenantObjects,
        (cluster, scope): (&str, PolicyScope),
        faults: &mut Faults,
    ) -> Self {
        let mut rules = Self::default();
        let is_own = |policy: &Policy| {
            policy.scope == scope
                && (policy.clusters.is_empty() || policy.clusters.iter().any(|own| own == cluster))
        };
        let own: Vec<_> = objects.policies.iter().filter(|(_, policy)| is_own(policy)).collect();
        for (name, policy) in own.iter().filter(|(_, policy)| !policy.dry_run) {
            rules.in_force.add(name, policy, faults);
        }
        for (name, policy) in own.iter().filter(|(_, policy)| policy.dry_run) {
            rules.tried.get_or_insert_with(|| rules.in_force.clone()).add(name, policy, faults);
        }
        rules
    }

    /// Writes who a peer may be; false if by these policies it may be nobody.
    pub(super) fn write(&self, table: &mut Table, patterns: &[String]) -> bool {
        let allowed = self.in_force.allowed(patterns);
        if let Some(tried) = &self.tried {
            let mut own = Table::new();
            let mut would = tried.allowed(patterns);
            if would.is_empty() {
                // Nodes want a pattern: these are none of the peer's.
                would = tried.allow.iter().flatten().cloned().collect();
            }
            put(&mut own, "spiffe_ids", would);
            put(&mut own, "deny_spiffe_ids", tried.deny.iter().cloned().collect());
            table.insert("dry_run".to_owned(), own.into());
        }
        put(table, "deny_spiffe_ids", self.in_force.deny.iter().cloned().collect());
        let is_somebody = !allowed.is_empty();
        put(table, "spiffe_ids", allowed);
        is_somebody
    }
}

impl Lists {
    fn add(&mut self, name: &str, policy: &Policy, faults: &mut Faults) {
        if !policy.allow.is_empty() {
            self.allow.get_or_insert_default().extend(policy.allow.iter().cloned());
        }
        self.deny.extend(policy.deny.iter().cloned());
        let longest = self.deny.len().max(self.allow.as_ref().map_or(0, BTreeSet::len));
        if longest > POLICY_PATTERNS_MAX {
            let detail = format!("with it there are over {POLICY_PATTERNS_MAX} patterns for one connection");
            faults.push((Policy::KIND, name, ""), detail);
        }
    }

    fn allowed(&self, patterns: &[String]) -> Vec<String> {
        let Some(allow) = &self.allow else { return patterns.to_vec() };
        let pairs = patterns.iter().flat_map(|own| allow.iter().map(move |other| (own, other)));
        let met: BTreeSet<&str> = pairs.filter_map(|(own, other)| narrower(own, other)).collect();
        met.into_iter().map(str::to_owned).collect()
    }
}

/// What both patterns have: one of them, since they are prefixes of whole segments.
fn narrower<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    if covers(one, other) { Some(other) } else { covers(other, one).then_some(one) }
}

fn covers(wide: &str, narrow: &str) -> bool {
    let below = wide.strip_suffix('*').is_some_and(|prefix| narrow.starts_with(prefix));
    wide == narrow || below
}

fn put(table: &mut Table, key: &str, patterns: Vec<String>) {
    if !patterns.is_empty() {
        table.insert(key.to_owned(), Value::Array(patterns.into_iter().map(Value::String).collect()));
    }
}

#[cfg(test)]
mod tests {
    use zen_identity::{SpiffeId, SpiffePattern};

    use super::*;

    #[test]
    fn what_two_patterns_have_is_what_both_match() {
        let domain = "spiffe://td";
        let paths = ["/a", "/a/b", "/a/b/c", "/ab", "/b"];
        let patterns: Vec<String> = paths
            .iter()
            .flat_map(|path| [format!("{domain}{path}"), format!("{domain}{path}/*")])
            .chain([format!("{domain}/*")])
            .collect();
        let matches = |pattern: &str, path: &str| {
            let id = SpiffeId::parse(&format!("{domain}{path}")).unwrap();
            SpiffePattern::parse(pattern).unwrap().matches(&id)
        };
        for one in &patterns {
            for other in &patterns {
                for path in paths {
                    let both = matches(one, path) && matches(other, path);
                    let met = narrower(one, other).is_some_and(|pattern| matches(pattern, path));
                    assert_eq!(met, both, "{one} {other} {path}");
                }
            }
        }
    }
}
