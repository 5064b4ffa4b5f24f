//! From what people say to what a cluster runs by.
//!
//! Enters: all objects of a tenant. Leaves: for one cluster each member's `node.toml`, the secrets that they name, and the links
//! whose keys agents make; or everything that is wrong with it, by object and field. The same objects come to the same texts,
//! byte for byte. Refused: references that lead nowhere, members that nobody can dial, secrets that no credential brings.

pub(crate) mod fuzz;
mod links;
mod node;
mod policies;
mod routes;
mod secrets;

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use zen_control_api::Member;

use self::policies::Rules;
use crate::ConfigurationInput;
use crate::objects::{Cluster, Object as _, PolicyScope, TenantObjects};

/// Most faults that are told at once.
pub const COMPILE_FAULTS_MAX: usize = 100;

/// Something that keeps a cluster's objects from becoming a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CompileFault {
    /// The kind of the object, as paths have it.
    pub kind: &'static str,
    /// The object's name.
    pub name: String,
    /// The field: a JSON pointer (RFC 6901), empty for the object itself.
    pub pointer: String,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// What a cluster runs by, from the objects of its tenant; or up to [`COMPILE_FAULTS_MAX`] faults, in order of what was looked at.
pub fn compile(
    objects: &TenantObjects,
    cluster: &str,
    trust_domain: &str,
) -> Result<ConfigurationInput, Vec<CompileFault>> {
    let mut faults = Faults::default();
    if !objects.clusters.contains_key(cluster) {
        faults.push((Cluster::KIND, cluster, ""), "there is no such cluster: make it first");
        return Err(faults.0);
    }
    let routes = routes::of(objects, cluster, &mut faults);
    let links = links::of(objects, cluster, &routes, &mut faults);
    let [linked, delivered] = [PolicyScope::Links, PolicyScope::Destinations]
        .map(|scope| Rules::of(objects, (cluster, scope), &mut faults));
    let view = View {
        objects,
        trust_domain,
        routes: &routes,
        links: &links,
        linked: &linked,
        delivered: &delivered,
    };
    let mut members = BTreeMap::new();
    for (name, member) in objects.members.iter().filter(|(_, member)| member.cluster == cluster) {
        let node = node::text(&view, name, member, &mut faults);
        members.insert(name.clone(), Member { spiffe_id: view.spiffe_id(name), node });
    }
    let secrets = secrets::of(objects, cluster, &routes, &mut faults);
    if faults.0.is_empty() {
        Ok(ConfigurationInput { members, secrets, link_keys: links::keys(&links) })
    } else {
        Err(faults.0)
    }
}

/// Faults so far.
#[derive(Debug, Default)]
struct Faults(Vec<CompileFault>);

impl Faults {
    fn push(&mut self, (kind, name, pointer): (&'static str, &str, &str), detail: impl Into<String>) {
        if self.0.len() < COMPILE_FAULTS_MAX {
            let (name, pointer) = (name.to_owned(), pointer.to_owned());
            self.0.push(CompileFault { kind, name, pointer, detail: detail.into() });
        }
    }
}

/// What the text of a member is made of.
struct View<'a> {
    objects: &'a TenantObjects,
    trust_domain: &'a str,
    routes: &'a [routes::Route<'a>],
    links: &'a [links::Link<'a>],
    linked: &'a Rules,
    delivered: &'a Rules,
}

impl View<'_> {
    /// The id of a member, by its cluster and its name.
    fn spiffe_id(&self, member: &str) -> String {
        let cluster = self.objects.members.get(member).map_or("", |found| found.cluster.as_str());
        format!("spiffe://{}/{cluster}/{member}", self.trust_domain)
    }
}

#[cfg(test)]
mod tests;
