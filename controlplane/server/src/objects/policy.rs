//! Policies: who may be at the other end.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{check_description, check_names, check_patterns};
use super::{FieldFault, Object};

/// Most clusters that an object names.
pub(crate) const CLUSTERS_MAX: usize = 64;

/// Who may be at the other end of a connection, beyond what links and destinations say. Deny beats allow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whose members go by it; all without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub clusters: Vec<String>,
    /// Which connections.
    pub scope: PolicyScope,
    /// SPIFFE patterns of who may be there.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub allow: Vec<String>,
    /// SPIFFE patterns of who may not, whatever allows it.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub deny: Vec<String>,
    /// Whether it is only said what it would do.
    #[serde(default)]
    pub dry_run: bool,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
}

/// Which connections a policy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyScope {
    /// Links, at both ends.
    Links,
    /// What egresses deliver to.
    Destinations,
}

impl Object for Policy {
    const KIND: &'static str = "policies";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        super::fields::check_name(name, "")?;
        check_names(&self.clusters, (0, CLUSTERS_MAX), "/clusters")?;
        check_patterns(&self.allow, "/allow")?;
        check_patterns(&self.deny, "/deny")?;
        if self.allow.is_empty() && self.deny.is_empty() {
            return Err(FieldFault::new("/allow", "a policy has a pattern in /allow or in /deny"));
        }
        check_description(&self.description)
    }
}
