//! The four roles.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ControlError;

/// What a person may do in a tenant, roughly; the table of permissions says it exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PersonRole)]
pub enum Role {
    /// To look.
    Viewer,
    /// Destinations too.
    Editor,
    /// All objects too.
    Admin,
    /// Everything: people and billing too.
    Owner,
}

impl Role {
    /// All, from the one that may most.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Editor, Self::Viewer];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
        }
    }

    /// The sentence that it stands for.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Owner => "Full access to tenant, including billing and user management",
            Self::Admin => "Manage clusters, destinations, adapters",
            Self::Editor => "Create and modify destinations, view deliveries",
            Self::Viewer => "Read-only access to dashboards and delivery logs",
        }
    }
}

impl FromStr for Role {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or(ControlError::Argument("a role is owner, admin, editor or viewer"))
    }
}
