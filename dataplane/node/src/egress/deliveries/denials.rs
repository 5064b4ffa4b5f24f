//! Connections to targets that a new deny list names.

use zen_uring::Reactor;

use super::Deliveries;

impl Deliveries {
    /// They end; an attempt under way goes on by its schedule, as if the connection had broken.
    pub(super) fn end_denied(&mut self, reactor: &mut Reactor) {
        let list = self.snapshot.svid.deny_list();
        for socket in self.connections.sockets() {
            let connection = self.connections.get_mut(socket).expect("listed just now");
            let Some(denial) = connection.handle_deny_list(&list, self.clock) else { continue };
            let (target, denied) = (&*connection.target, denial.label());
            tracing::warn!(target, denied, "a connection ends: its target is on the deny list");
            self.metrics.peers_denied.add(denied);
            self.step(socket, reactor, |connection, _, _| connection.give_up());
        }
    }
}
