//! Orders, each begun once: its number is on disk before the node is asked, and what is not known to have ended is not
//! begun again, but said to be unknown.

use serde::{Deserialize, Serialize};
use zen_control_api::{Order, OrderEnd, OrderError, OrderResult, SYNC_ORDERS_MAX, SignedOrder};

use super::{EnrolledWith, Now};

/// What is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderState {
    /// The highest number that was begun.
    last: u64,
    /// It is under way.
    begun: Option<u64>,
    /// What the control plane has not heard.
    ends: Vec<OrderResult>,
}

impl OrderState {
    /// The number that was begun last.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What is to be said.
    pub fn ends(&self) -> &[OrderResult] {
        &self.ends
    }

    /// The agent has started: what was under way then has an end that nobody knows. Whether there was something.
    pub fn handle_start(&mut self) -> bool {
        let begun = self.begun.take();
        self.ends.extend(begun.map(|number| OrderResult { number, end: OrderEnd::Unknown }));
        begun.is_some()
    }

    /// Whether another order can be taken: not while one is under way, or too many ends were not heard.
    pub fn has_place(&self) -> bool {
        self.begun.is_none() && self.ends.len() < SYNC_ORDERS_MAX
    }

    /// Takes an order, or says why not; it is carried out once this is on disk.
    ///
    /// # Panics
    ///
    /// Without a place.
    pub fn handle_order(
        &mut self,
        signed: &SignedOrder,
        enrolled: &EnrolledWith,
        now: Now,
    ) -> Result<Order, OrderError> {
        assert!(self.has_place(), "one order is done at a time");
        let whose = (enrolled.tenant.as_str(), enrolled.cluster.as_str());
        match signed.verify(&enrolled.configuration_key, whose, self.last, now.wall_ms) {
            Ok(order) => {
                self.last = order.number;
                self.begun = Some(order.number);
                Ok(order)
            }
            Err(error) => {
                if let OrderError::Over { number, .. } = error {
                    self.last = number;
                    let end = OrderEnd::Failed { reason: error.to_string() };
                    self.ends.push(OrderResult { number, end });
                }
                Err(error)
            }
        }
    }

    /// The order that is under way has ended so.
    pub fn handle_end(&mut self, end: OrderEnd) {
        let number = self.begun.take().expect("only what was begun ends");
        self.ends.push(OrderResult { number, end });
    }

    /// The control plane has heard these.
    pub fn handle_heard(&mut self, heard: &[OrderResult]) {
        self.ends.retain(|end| !heard.contains(end));
    }
}
