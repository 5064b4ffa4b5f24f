//! Names of targets become addresses that policy allows.

use std::io;
use std::net::IpAddr;

use zen_core::deliver::{ConnectFailure, Outcome};

use super::Deliveries;

impl Deliveries {
    /// Addresses of `host` that may be dialled; and what an attempt comes to if there is none.
    pub(super) fn permitted(
        &self,
        host: &str,
        found: Result<Vec<IpAddr>, io::Error>,
    ) -> (Vec<IpAddr>, Outcome) {
        let mut outcome = Outcome::ConnectFailed(ConnectFailure::NameNotFound);
        let mut addresses = found.unwrap_or_default();
        addresses.retain(|&address| match self.settings().destinations.check(host, address) {
            Ok(()) => true,
            Err(refused) => {
                tracing::warn!(host, %address, "not dialled: {refused}; see egress.target_networks");
                self.metrics.destinations_refused.add(refused.label());
                outcome = Outcome::ConnectFailed(ConnectFailure::Forbidden);
                false
            }
        });
        (addresses, outcome)
    }
}
