//! What holds targets back: counted, told to operators, and changed by them.

use zen_core::deliver::{Hold as Gate, TargetState};

use super::Deliveries;
use crate::egress::condition::TargetOrder;

impl Deliveries {
    /// An operator asks about targets, or pauses or resumes one.
    pub fn handle_order(&mut self, order: TargetOrder) {
        let steady_ms = self.clock.steady_ms;
        // Who asked may have gone away: then nobody wants to know.
        match order {
            TargetOrder::List { answer } => {
                drop(answer.send(self.owners.values().map(|owner| owner.condition(steady_ms)).collect()));
            }
            TargetOrder::Show { target, answer } => {
                let owner = self.owners.get(&target);
                let told = owner.map(|owner| (owner.condition(steady_ms), owner.last_failure().cloned()));
                drop(answer.send(told));
            }
            TargetOrder::Hold { target, hold, answer } => {
                let condition = self.owners.get_mut(&target).map(|owner| {
                    owner.handle_hold(hold, steady_ms);
                    owner.condition(steady_ms)
                });
                drop(answer.send(condition));
            }
        }
    }

    /// Targets by what holds them back now.
    pub(super) fn observe_holds(&self) {
        let steady_ms = self.clock.steady_ms;
        let (mut throttled, mut open, mut limited, mut cap) = (0, 0, 0, 0);
        let (mut disabled, mut paused) = (0, 0);
        for owner in self.owners.values() {
            cap += u64::from(owner.queue.in_flight_cap());
            disabled += u64::from(owner.is_disabled());
            paused += u64::from(owner.queue.state() == TargetState::Paused);
            match owner.queue.hold(steady_ms) {
                Some(Gate::Throttled { .. }) => throttled += 1,
                Some(Gate::BreakerOpen { .. } | Gate::BreakerHalfOpen) => open += 1,
                Some(Gate::RateLimited { .. }) if owner.queue.waiting() > 0 => limited += 1,
                Some(Gate::RateLimited { .. }) | None => {}
            }
        }
        let metrics = &self.metrics;
        metrics.targets_disabled.set(disabled);
        metrics.targets_paused.set(paused);
        metrics.targets_throttled.set(throttled);
        metrics.targets_breaker_open.set(open);
        metrics.targets_rate_limited.set(limited);
        metrics.attempts_cap.set(cap);
    }
}
