//! What people say of a tenant: clusters, members, endpoints, destinations, flows, policies, credentials.
//!
//! Enters: JSON objects, each known by its kind and name. Leaves: checked values, from which [`mod@crate::compile`] makes what
//! nodes run by. Refused: unknown fields, names and URLs that are none, settings that nodes do not have or that a field of the
//! object says already, and credentials that are not ciphertext. Whether one object fits another is asked when they are compiled.

mod cluster;
mod credential;
mod delivery_flow;
mod destination;
mod endpoint;
mod fields;
mod member;
mod policy;
mod settings;

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

pub use self::cluster::Cluster;
pub use self::credential::Credential;
pub use self::delivery_flow::{DeliveryFlow, Output};
pub use self::destination::Destination;
pub use self::endpoint::{Endpoint, Scheme};
pub use self::fields::SecretPlace;
pub use self::member::{Link, Member, Role};
pub use self::policy::{Policy, PolicyScope};
pub use self::settings::Settings;

/// Something that people say of a tenant.
pub trait Object: Serialize + DeserializeOwned + ToSchema + Send + 'static {
    /// Its kind, as paths have it.
    const KIND: &'static str;

    /// Whether each field is as it must be, for an object of this name; other objects are not looked at.
    fn check(&self, name: &str) -> Result<(), FieldFault>;
}

/// A field that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct FieldFault {
    /// Which field: a JSON pointer (RFC 6901) into the object, empty for the whole of it or its name.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

impl FieldFault {
    /// A fault of the field that `pointer` leads to.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// All objects of a tenant, by kind and name.
#[derive(Clone, Debug, Default)]
pub struct TenantObjects {
    /// The tenant's name.
    pub tenant: String,
    /// Clusters.
    pub clusters: BTreeMap<String, Cluster>,
    /// Members.
    pub members: BTreeMap<String, Member>,
    /// Endpoints; the name is the id in the URL.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Destinations.
    pub destinations: BTreeMap<String, Destination>,
    /// Flows.
    pub delivery_flows: BTreeMap<String, DeliveryFlow>,
    /// Policies.
    pub policies: BTreeMap<String, Policy>,
    /// Credentials.
    pub credentials: BTreeMap<String, Credential>,
}

#[cfg(test)]
mod tests;
