//! Outputs: what a flow's target name stands for at the egress, a target with its standbys and its transform.

use serde::{Deserialize, Serialize};

use crate::condition::not_empty;
use crate::failover::{Failover, FailoverPolicy};
use crate::rule_error::{RuleError, RuleFault};
use crate::{RawTransform, Transform};

/// Most standbys of one output.
pub const STANDBY_MAX: usize = 3;

/// One output as configured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawOutput {
    /// What flows call it.
    pub name: String,
    /// The target that is used while it is healthy.
    pub primary: String,
    /// Targets used while it is not, in this order.
    #[serde(default)]
    pub standby: Vec<String>,
    /// When to switch.
    #[serde(default)]
    pub failover: FailoverPolicy,
    /// What its targets get instead of the body as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<RawTransform>,
}

/// One compiled output.
#[derive(Clone, Debug)]
pub struct Output {
    name: Box<str>,
    targets: Box<[Box<str>]>,
    policy: FailoverPolicy,
    transform: Option<Transform>,
}

impl Output {
    /// Compiles one output. That its targets exist is for the node to check.
    pub fn compile(raw: &RawOutput) -> Result<Self, RuleError> {
        let name = not_empty(&raw.name, "output.name")?;
        let at = |key: &str| format!("output \"{name}\".{key}");
        RuleFault::check_bound(raw.standby.len(), 0, STANDBY_MAX).map_err(|fault| fault.at(at("standby")))?;
        let mut targets = vec![not_empty(&raw.primary, &at("primary"))?];
        for (index, standby) in raw.standby.iter().enumerate() {
            let place = at(&format!("standby[{index}]"));
            let standby = not_empty(standby, &place)?;
            if targets.contains(&standby) {
                return Err(RuleFault::Twice.at(place));
            }
            targets.push(standby);
        }
        raw.failover.check(&at("failover"))?;
        let transform =
            raw.transform.as_ref().map(|raw| Transform::compile(raw, &at("transform"))).transpose()?;
        Ok(Self { targets: targets.into(), policy: raw.failover, transform, name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Primary first, then standbys: what [`Failover::active`] goes by.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().map(|target| &**target)
    }

    /// What its targets get instead of the body as it came.
    pub const fn transform(&self) -> Option<&Transform> {
        self.transform.as_ref()
    }

    /// Whether another has the same targets and the same policy: what was learned of them still holds.
    pub fn stands_alike(&self, other: &Self) -> bool {
        self.targets == other.targets && self.policy == other.policy
    }

    /// Longest body that its transform makes, bytes; 0 without one.
    pub fn transformed_bytes_max(&self) -> usize {
        self.transform.as_ref().map_or(0, Transform::output_bytes_max)
    }

    /// How many regular expressions its transform holds, at most.
    pub fn patterns(&self) -> usize {
        self.transform.as_ref().map_or(0, Transform::patterns)
    }

    /// A machine for its targets; none if it has no standby.
    pub fn failover(&self) -> Option<Failover> {
        (self.targets.len() > 1).then(|| Failover::new(self.policy, self.targets.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Result<Output, String> {
        let raw: RawOutput = toml::from_str(text).map_err(|error| error.to_string())?;
        Output::compile(&raw).map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_stands_for_a_primary_and_its_standbys() {
        let plain = output("name = 'a'\nprimary = 'b'").unwrap();
        assert!(plain.failover().is_none() && plain.transform().is_none());
        let pair = output("name = 'a'\nprimary = 'b'\nstandby = ['c', 'd']\nfailover = { cooldown_ms = 7 }")
            .unwrap();
        assert_eq!((pair.name(), pair.targets().collect::<Vec<_>>()), ("a", vec!["b", "c", "d"]));
        assert_eq!(pair.failover().unwrap().active(), 0);
    }

    #[test]
    fn faults_name_their_place() {
        let cases = [
            ("name = ''\nprimary = 'b'", "output.name: is empty"),
            ("name = 'a'\nprimary = ''", "output \"a\".primary: is empty"),
            ("name = 'a'\nprimary = 'b'\nstandby = ['c', 'b']", "output \"a\".standby[1]: is there twice"),
            (
                "name = 'a'\nprimary = 'b'\nstandby = ['c','d','e','f']",
                "output \"a\".standby: is 4; it must be 0 to 3",
            ),
            (
                "name = 'a'\nprimary = 'b'\nfailover = { switches_per_hour_max = 0 }",
                ".failover.switches_per_hour_max:",
            ),
            ("name = 'a'\nprimary = 'b'\nsecondary = 'c'", "unknown field `secondary`"),
            ("name = 'a'\nprimary = 'b'\nfailover = { cooldown = 1 }", "unknown field `cooldown`"),
        ];
        for (text, expected) in cases {
            let error = output(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
