//! Delivery flows: which events go where.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{check_description, check_name, check_names};
use super::settings::{FLOW, OUTPUT};
use super::{FieldFault, Object, Settings};

/// Most destinations and outputs of a flow together.
pub(crate) const FLOW_DESTINATIONS_MAX: usize = 10;
/// Most standbys of an output.
pub(crate) const STANDBY_MAX: usize = 3;

/// Which events of an endpoint go to which destinations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeliveryFlow {
    /// Whose events: the name of an endpoint.
    pub endpoint: String,
    /// Where they go, each to all; destinations of one egress.
    #[serde(default)]
    #[schema(max_items = 10)]
    pub destinations: Vec<String>,
    /// Where they go as well: destinations with standbys, or with a body of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10)]
    pub outputs: Vec<Output>,
    /// Which events; all without it. A condition as in the node's configuration.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub when: Settings,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
    /// Other keys of the flow's table in the node's configuration.
    #[serde(default)]
    pub settings: Settings,
}

/// A destination with standbys, or with a body of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// What deliveries and metrics call it; no destination's name.
    pub name: String,
    /// The destination that is used while it works.
    pub primary: String,
    /// Destinations that are used while it does not, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 3)]
    pub standby: Vec<String>,
    /// `failover` and `transform`, as in the node's configuration.
    #[serde(default)]
    pub settings: Settings,
}

impl Object for DeliveryFlow {
    const KIND: &'static str = "delivery-flows";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        check_name(name, "")?;
        check_name(&self.endpoint, "/endpoint")?;
        check_names(&self.destinations, (0, FLOW_DESTINATIONS_MAX), "/destinations")?;
        if !(1..=FLOW_DESTINATIONS_MAX).contains(&(self.destinations.len() + self.outputs.len())) {
            let detail = format!("1 to {FLOW_DESTINATIONS_MAX} destinations and outputs together");
            return Err(FieldFault::new("/destinations", detail));
        }
        for (index, output) in self.outputs.iter().enumerate() {
            output.check(&format!("/outputs/{index}"))?;
        }
        self.when.check_values("/when")?;
        check_description(&self.description)?;
        self.settings.check(&FLOW)
    }
}

impl Output {
    fn check(&self, pointer: &str) -> Result<(), FieldFault> {
        check_name(&self.name, format!("{pointer}/name"))?;
        check_name(&self.primary, format!("{pointer}/primary"))?;
        check_names(&self.standby, (0, STANDBY_MAX), &format!("{pointer}/standby"))?;
        self.settings.check_at(&OUTPUT, &format!("{pointer}/settings"))
    }
}
