//! Which target of an output is in use: the primary, or a standby while the primary is unhealthy.
//!
//! What is known of each target's health enters with its time; switches leave. A switch away needs the target
//! in use to have been unhealthy for `switch_after_ms`; a switch back needs an earlier target to have been
//! healthy for `require_healthy_for_ms`. No switch goes to an unhealthy target, comes before `cooldown_ms` since
//! the last are over, or is one more than `switches_per_hour_max` within any hour. Times are steady
//! milliseconds; one that steps back counts as standing still.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::rule_error::{RuleError, RuleFault};

/// Most switches within an hour that a policy may allow.
pub const SWITCHES_PER_HOUR_CEILING: u32 = 60;
/// Longest of the three times of a policy: a day.
pub const POLICY_MS_MAX: u64 = 24 * HOUR_MS;
/// One hour.
pub const HOUR_MS: u64 = 3_600_000;

/// When to switch, as configured; the defaults are the policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailoverPolicy {
    /// How long the target in use must have been unhealthy.
    pub switch_after_ms: u64,
    /// How long nothing is switched after a switch.
    pub cooldown_ms: u64,
    /// How long an earlier target must have been healthy before it is used again.
    pub require_healthy_for_ms: u64,
    /// Most switches within any hour.
    pub switches_per_hour_max: u32,
}

impl Default for FailoverPolicy {
    fn default() -> Self {
        Self {
            switch_after_ms: 30_000,
            cooldown_ms: 300_000,
            require_healthy_for_ms: 60_000,
            switches_per_hour_max: 10,
        }
    }
}

impl FailoverPolicy {
    /// Refuses what is out of bounds.
    pub fn check(&self, place: &str) -> Result<(), RuleError> {
        let times = [
            ("switch_after_ms", self.switch_after_ms),
            ("cooldown_ms", self.cooldown_ms),
            ("require_healthy_for_ms", self.require_healthy_for_ms),
        ];
        for (key, time) in times {
            RuleFault::check_bound(time as usize, 0, POLICY_MS_MAX as usize)
                .map_err(|fault| fault.at(format!("{place}.{key}")))?;
        }
        RuleFault::check_bound(self.switches_per_hour_max as usize, 1, SWITCHES_PER_HOUR_CEILING as usize)
            .map_err(|fault| fault.at(format!("{place}.switches_per_hour_max")))
    }
}

/// What the node knows of a target: its circuit breaker, or a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// The output uses another target from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Switch {
    /// Used until now: 0 is the primary, standbys follow in their order.
    pub from: usize,
    /// Used from now on.
    pub to: usize,
    /// Why.
    pub reason: SwitchReason,
}

/// Why an output uses another target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SwitchReason {
    /// The one in use was unhealthy for long enough.
    Unhealthy,
    /// One that comes before it was healthy for long enough.
    Recovered,
}

impl SwitchReason {
    /// A metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::Recovered => "recovered",
        }
    }
}

/// What keeps an output on the target that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Nothing: the target in use is the right one.
    Settled,
    /// Another would be better, but not for long enough yet.
    Waiting,
    /// A switch is due, but the last one is too recent.
    Cooldown,
    /// A switch is due, but there were too many within an hour.
    SwitchesPerHour,
    /// The target in use is unhealthy, and so are all others.
    NoHealthyTarget,
}

/// What is known of one target, and since when.
#[derive(Clone, Copy, Debug)]
enum Known {
    Unknown,
    Healthy { since_ms: u64 },
    Unhealthy { since_ms: u64 },
}

/// The targets of one output, and the one in use. It begins with the primary, and forgets at a restart.
#[derive(Clone, Debug)]
pub struct Failover {
    policy: FailoverPolicy,
    targets: Box<[Known]>,
    active: usize,
    /// The newest switches, at most as many as an hour may have.
    switched_ms: VecDeque<u64>,
    now_ms: u64,
}

/// A switch that health asks for, and the earliest time for it.
#[derive(Clone, Copy)]
struct Wanted {
    switch: Switch,
    at_ms: u64,
}

impl Failover {
    /// A machine for a primary and its standbys, of which nothing is known.
    ///
    /// # Panics
    /// If there is no target.
    pub fn new(policy: FailoverPolicy, targets: usize) -> Self {
        assert!(targets > 0, "an output has a primary");
        assert!(policy.switches_per_hour_max > 0, "a policy that was checked");
        Self {
            policy,
            targets: vec![Known::Unknown; targets].into(),
            active: 0,
            switched_ms: VecDeque::with_capacity(policy.switches_per_hour_max as usize),
            now_ms: 0,
        }
    }

    /// Takes in what is known of a target from now on; the same again changes nothing.
    pub fn handle_health(&mut self, target: usize, health: Health, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let since_ms = self.now_ms;
        let known = &mut self.targets[target];
        match (&*known, health) {
            (Known::Healthy { .. }, Health::Healthy) | (Known::Unhealthy { .. }, Health::Unhealthy) => {}
            (_, Health::Healthy) => *known = Known::Healthy { since_ms },
            (_, Health::Unhealthy) => *known = Known::Unhealthy { since_ms },
        }
    }

    /// Switches if it is time.
    pub fn poll_switch(&mut self, now_ms: u64) -> Option<Switch> {
        self.now_ms = self.now_ms.max(now_ms);
        let Wanted { switch, at_ms } = self.wanted()?;
        if self.now_ms < at_ms.max(self.allowed_ms()) {
            return None;
        }
        assert!(!matches!(self.targets[switch.to], Known::Unhealthy { .. }), "never to an unhealthy target");
        if self.switched_ms.len() == self.policy.switches_per_hour_max as usize {
            self.switched_ms.pop_front();
        }
        self.switched_ms.push_back(self.now_ms);
        self.active = switch.to;
        Some(switch)
    }

    /// When a switch is due, as far as it is known now; to poll before is no use.
    pub fn poll_deadline(&self) -> Option<u64> {
        self.wanted().map(|wanted| wanted.at_ms.max(self.allowed_ms()))
    }

    /// The target in use: 0 is the primary.
    pub const fn active(&self) -> usize {
        self.active
    }

    /// Why no other target is in use.
    pub fn hold(&self, now_ms: u64) -> Hold {
        let now_ms = self.now_ms.max(now_ms);
        match self.wanted() {
            None if matches!(self.targets[self.active], Known::Unhealthy { .. }) => Hold::NoHealthyTarget,
            None => Hold::Settled,
            Some(wanted) if now_ms < wanted.at_ms => Hold::Waiting,
            Some(_) if now_ms < self.cooled_ms() => Hold::Cooldown,
            Some(_) if now_ms < self.allowed_ms() => Hold::SwitchesPerHour,
            Some(_) => Hold::Waiting,
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        match self.targets[self.active] {
            Known::Unhealthy { since_ms } => {
                let to = self.best_standby()?;
                let switch = Switch { from: self.active, to, reason: SwitchReason::Unhealthy };
                Some(Wanted { switch, at_ms: since_ms + self.policy.switch_after_ms })
            }
            Known::Healthy { .. } | Known::Unknown => self.recovered(),
        }
    }

    /// The first target that is known to be healthy, else the first of which nothing is known.
    fn best_standby(&self) -> Option<usize> {
        let others = || (0..self.targets.len()).filter(|target| *target != self.active);
        let healthy = others().find(|target| matches!(self.targets[*target], Known::Healthy { .. }));
        healthy.or_else(|| others().find(|target| matches!(self.targets[*target], Known::Unknown)))
    }

    /// Of the targets that come before the one in use, the one that may be used again first.
    fn recovered(&self) -> Option<Wanted> {
        let earlier = self.targets[..self.active].iter().enumerate();
        let healthy = earlier.filter_map(|(to, known)| match known {
            Known::Healthy { since_ms } => {
                let switch = Switch { from: self.active, to, reason: SwitchReason::Recovered };
                Some(Wanted { switch, at_ms: since_ms + self.policy.require_healthy_for_ms })
            }
            Known::Unhealthy { .. } | Known::Unknown => None,
        });
        // Of those whose time has come, the first in order; before that, the one whose time comes first.
        healthy.min_by_key(|wanted| (wanted.at_ms.max(self.now_ms), wanted.switch.to))
    }

    fn cooled_ms(&self) -> u64 {
        self.switched_ms.back().map_or(0, |last| last + self.policy.cooldown_ms)
    }

    /// When cool-down and the hourly bound allow a switch.
    fn allowed_ms(&self) -> u64 {
        let full = self.switched_ms.len() == self.policy.switches_per_hour_max as usize;
        let oldest = self.switched_ms.front().filter(|_| full);
        self.cooled_ms().max(oldest.map_or(0, |oldest| oldest + HOUR_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn policy() -> FailoverPolicy {
        FailoverPolicy {
            switch_after_ms: 30_000,
            cooldown_ms: 5 * MINUTE_MS,
            require_healthy_for_ms: MINUTE_MS,
            switches_per_hour_max: 2,
        }
    }

    #[test]
    fn away_after_a_while_and_back_after_another() {
        let mut failover = Failover::new(policy(), 2);
        assert_eq!(failover.poll_switch(0), None);
        failover.handle_health(0, Health::Unhealthy, 1000);
        assert_eq!((failover.poll_deadline(), failover.hold(1000)), (Some(31_000), Hold::Waiting));
        assert_eq!(failover.poll_switch(30_999), None);
        let away = Switch { from: 0, to: 1, reason: SwitchReason::Unhealthy };
        assert_eq!(failover.poll_switch(31_000), Some(away));
        assert_eq!((failover.active(), failover.hold(31_000)), (1, Hold::Settled));

        failover.handle_health(0, Health::Healthy, 40_000);
        assert_eq!(failover.hold(99_999), Hold::Waiting);
        assert_eq!(failover.hold(100_000), Hold::Cooldown);
        assert_eq!(failover.poll_deadline(), Some(31_000 + 5 * MINUTE_MS));
        assert_eq!(failover.poll_switch(30_999 + 5 * MINUTE_MS), None);
        let back = Switch { from: 1, to: 0, reason: SwitchReason::Recovered };
        assert_eq!(failover.poll_switch(31_000 + 5 * MINUTE_MS), Some(back));

        failover.handle_health(0, Health::Unhealthy, 32_000 + 5 * MINUTE_MS);
        assert_eq!(failover.hold(31_000 + 20 * MINUTE_MS), Hold::SwitchesPerHour);
        assert_eq!(failover.poll_switch(30_999 + HOUR_MS), None);
        assert_eq!(failover.poll_switch(31_000 + HOUR_MS), Some(away));
    }

    #[test]
    fn recovery_in_between_begins_the_wait_anew() {
        let mut failover = Failover::new(policy(), 2);
        failover.handle_health(0, Health::Unhealthy, 0);
        failover.handle_health(0, Health::Healthy, 29_000);
        failover.handle_health(0, Health::Unhealthy, 29_500);
        assert_eq!(failover.poll_switch(59_499), None);
        assert!(failover.poll_switch(59_500).is_some());
    }

    #[test]
    fn no_switch_goes_to_an_unhealthy_target() {
        let mut failover = Failover::new(policy(), 3);
        for target in 0..3 {
            failover.handle_health(target, Health::Unhealthy, 0);
        }
        assert_eq!(failover.poll_switch(HOUR_MS), None);
        assert_eq!((failover.hold(HOUR_MS), failover.poll_deadline()), (Hold::NoHealthyTarget, None));
        failover.handle_health(2, Health::Healthy, HOUR_MS);
        assert_eq!(failover.poll_switch(HOUR_MS).map(|switch| switch.to), Some(2));
    }

    #[test]
    fn known_health_comes_before_order_and_unknown() {
        let mut failover = Failover::new(policy(), 3);
        failover.handle_health(0, Health::Unhealthy, 0);
        failover.handle_health(2, Health::Healthy, 0);
        assert_eq!(failover.poll_switch(30_000).map(|switch| switch.to), Some(2));
        failover.handle_health(1, Health::Healthy, 31_000);
        failover.handle_health(0, Health::Healthy, 32_000);
        // Both have been healthy for long enough when the cool-down is over: the primary is first.
        assert_eq!(failover.poll_switch(10 * MINUTE_MS).map(|switch| switch.to), Some(0));
    }

    #[test]
    fn policies_out_of_bounds_say_which_key() {
        assert_eq!(FailoverPolicy::default().check("o"), Ok(()));
        let raw = FailoverPolicy { switches_per_hour_max: 0, ..policy() };
        assert_eq!(
            raw.check("o").unwrap_err().to_string(),
            "o.switches_per_hour_max: is 0; it must be 1 to 60"
        );
        let raw = FailoverPolicy { cooldown_ms: POLICY_MS_MAX + 1, ..policy() };
        assert!(raw.check("o").unwrap_err().to_string().starts_with("o.cooldown_ms: is 86400001;"));
    }
}
