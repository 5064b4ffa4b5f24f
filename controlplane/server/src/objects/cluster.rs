//! Clusters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{check_description, check_name};
use super::{FieldFault, Object};

/// First segments of SPIFFE ids that are not members'.
const RESERVED: [&str; 3] = ["agent", "control", "people"];

/// Members that one agent looks after: often a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
}

impl Object for Cluster {
    const KIND: &'static str = "clusters";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        check_name(name, "")?;
        if RESERVED.contains(&name) {
            return Err(FieldFault::new(
                "",
                "agent, control and people are no names of clusters: SPIFFE ids begin so",
            ));
        }
        check_description(&self.description)
    }
}
