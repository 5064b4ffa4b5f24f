//! Members: nodes of a cluster, and what else gets an identity there.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{check_address, check_description, check_name};
use super::settings::MEMBER;
use super::{FieldFault, Object, Settings};

/// A node of a cluster. Its SPIFFE id is `spiffe://TRUST-DOMAIN/CLUSTER/NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Whose agent looks after it.
    #[schema(example = "edge")]
    pub cluster: String,
    /// What the node does. Without a role it gets an identity and nothing to do: a target with a certificate of ours, for instance.
    pub roles: Vec<Role>,
    /// Where others reach it for links. Who has none dials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
    /// What the host alone knows: sections of the node's configuration, such as `{"node": {"data_dir": "/var/lib/zen"}}`.
    #[serde(default)]
    pub settings: Settings,
}

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes webhooks in.
    Ingester,
    /// Delivers them.
    Egress,
}

/// Where a member takes links.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where it listens.
    #[schema(example = "0.0.0.0:7443")]
    pub listen: String,
    /// Where others dial it.
    #[schema(example = "edge.example:7443")]
    pub address: String,
}

impl Object for Member {
    const KIND: &'static str = "members";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        check_name(name, "")?;
        check_name(&self.cluster, "/cluster")?;
        check_description(&self.description)?;
        for (index, role) in self.roles.iter().enumerate() {
            if self.roles[..index].contains(role) {
                return Err(FieldFault::new(format!("/roles/{index}"), "is there twice"));
            }
        }
        if let Some(link) = &self.link {
            check_address(&link.listen, "/link/listen")?;
            check_address(&link.address, "/link/address")?;
        }
        self.settings.check(&MEMBER)?;
        if self.roles.is_empty() && !(self.settings.is_empty() && self.link.is_none()) {
            return Err(FieldFault::new("/roles", "a member without roles has no link and no settings"));
        }
        for (section, role) in [("ingester", Role::Ingester), ("egress", Role::Egress)] {
            if self.settings.0.contains_key(section) && !self.roles.contains(&role) {
                return Err(FieldFault::new(format!("/settings/{section}"), "its role is not in /roles"));
            }
        }
        Ok(())
    }
}
