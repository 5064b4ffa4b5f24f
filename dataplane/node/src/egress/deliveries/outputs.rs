//! What outputs need beside their deliveries: probes of targets that are not in use, and switches.

use std::sync::Arc;

use zen_core::deliver::{ConnectFailure, Outcome};
use zen_uring::Reactor;

use super::Deliveries;
use crate::egress::probe::Finding;

impl Deliveries {
    /// Asks how those targets are that outputs do not use now.
    pub(super) fn start_probes(&mut self, reactor: &mut Reactor) {
        let steady_ms = self.clock.steady_ms;
        for owner in self.owners.values_mut() {
            let Some(output) = &mut owner.output else { continue };
            for target in output.poll_probes(steady_ms) {
                let host = Arc::clone(&target);
                if self.probes.start(&owner.name, target, reactor, steady_ms) {
                    self.resolver.ask(&host.address.host, self.worker);
                }
            }
        }
    }

    pub(super) fn take_findings(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for Finding { output, target, works } in findings {
            self.metrics.probes.add(if works { "works" } else { "fails" });
            let state = self.owners.get_mut(&output).and_then(|owner| owner.output.as_mut());
            if let Some(state) = state {
                state.handle_health(&target, works, self.clock.steady_ms);
            }
        }
    }

    /// Outputs go over to other targets when it is time; connections to those used before end.
    pub(super) fn switch_outputs(&mut self, reactor: &mut Reactor) {
        for owner in self.owners.values_mut() {
            let (before, steady_ms) = (Arc::clone(&owner.target), self.clock.steady_ms);
            if before.lacks_token(steady_ms) {
                // Its deliveries wait, so no attempt would say so.
                let outcome = Outcome::ConnectFailed(ConnectFailure::NoToken);
                owner.handle_outcome(&before, &outcome, steady_ms);
            }
            let Some(switch) = owner.poll_switch(self.clock.steady_ms) else { continue };
            self.metrics.failovers.add(switch.reason.label());
            tracing::warn!(
                output = &*owner.name,
                from = before.name,
                to = owner.target.name,
                reason = switch.reason.label(),
                "an output uses another target"
            );
            for socket in owner.idle.drain(..) {
                self.connections.remove(socket);
                reactor.close(socket);
            }
        }
    }
}
