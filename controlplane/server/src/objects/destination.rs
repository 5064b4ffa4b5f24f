//! Destinations: where webhooks are delivered. A node's configuration calls them targets.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{SecretPlace, check_description, check_name, check_patterns, check_url};
use super::settings::DESTINATION;
use super::{FieldFault, Object, Settings};

/// Where an egress delivers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Whose egress delivers.
    #[schema(example = "inside")]
    pub cluster: String,
    /// Which of them; not needed where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Where to POST: `https://host[:port]/path`; `http://localhost/path` with the setting `unix_socket`.
    #[schema(example = "https://billing.example/hooks", max_length = 2368)]
    pub url: String,
    /// Names the key, as `k` of `zen-signature`.
    #[schema(example = "billing-1")]
    pub key_id: String,
    /// What signs its deliveries.
    pub secret: SecretPlace,
    /// Signs too, while the target changes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret: Option<SecretPlace>,
    /// SPIFFE patterns: who it may be. Without any, its certificate's name counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub spiffe_ids: Vec<String>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
    /// Other keys of the target's table in the node's configuration.
    #[serde(default)]
    pub settings: Settings,
}

impl Object for Destination {
    const KIND: &'static str = "destinations";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        check_name(name, "")?;
        check_name(&self.cluster, "/cluster")?;
        if let Some(member) = &self.member {
            check_name(member, "/member")?;
        }
        check_url(&self.url, self.settings.0.contains_key("unix_socket"), "/url")?;
        check_name(&self.key_id, "/key_id")?;
        self.secret.check("/secret")?;
        if let Some(secret) = &self.previous_secret {
            secret.check("/previous_secret")?;
        }
        check_patterns(&self.spiffe_ids, "/spiffe_ids")?;
        check_description(&self.description)?;
        self.settings.check(&DESTINATION)
    }
}
