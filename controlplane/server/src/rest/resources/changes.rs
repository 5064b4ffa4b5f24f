//! What a change of one object would come to, before anybody makes it: each cluster's configuration before and after.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use zen_control_api::is_name;

use crate::compile::{CompileFault, compile};
use crate::objects::{
    Cluster, Credential, DeliveryFlow, Destination, Endpoint, FieldFault, Member, Object, Policy,
    TenantObjects,
};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::rest::{FieldError, json};
use crate::{ConfigurationInput, store};

const CHANGES: &str = "/v1/tenants/{tenant}/changes";
/// Most clusters that are looked at.
const CHANGE_CLUSTERS_MAX: usize = 100;

/// One object as it would be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeRequest {
    /// As paths have it: `endpoints`, `destinations` and so on.
    #[schema(max_length = 64)]
    kind: String,
    /// Of the object.
    #[schema(max_length = 64)]
    name: String,
    /// None if it were deleted.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    object: Option<Value>,
}

/// What it would come to.
#[derive(Serialize, ToSchema)]
struct Changes {
    /// Those whose configuration would be another.
    clusters: Vec<Change>,
    /// How many clusters were not looked at.
    left_out: usize,
}

/// In one cluster.
#[derive(Serialize, ToSchema)]
struct Change {
    /// Which one.
    cluster: String,
    /// As objects are now, if they can be published.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<ConfigurationInput>,
    /// As they would be, if they could be published then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    after: Option<ConfigurationInput>,
    /// Why they could not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<FieldError>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Post, CHANGES, Operation::Draft, show)
            .says("Shows what a change of one object would come to, and changes nothing")
            .takes::<ChangeRequest>()
            .gives::<Changes>(200),
    ]
}

fn show(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let request: ChangeRequest = call.body()?;
    if !is_name(&request.name) {
        let detail = "a name is 1 to 64 letters, digits, dots, dashes, underscores, and begins with no dot";
        return Err(Fault::field("/name", detail));
    }
    let before = store::snapshot(unit.database, call.name("tenant"))?;
    let mut after = before.clone();
    apply(&mut after, request)?;
    let names = before
        .clusters
        .keys()
        .chain(after.clusters.keys().filter(|name| !before.clusters.contains_key(*name)));
    let names: Vec<&String> = names.collect();
    let looked_at = names.iter().take(CHANGE_CLUSTERS_MAX);
    let clusters = looked_at.filter_map(|cluster| change(unit, cluster, &before, &after)).collect();
    let changes = Changes { clusters, left_out: names.len().saturating_sub(CHANGE_CLUSTERS_MAX) };
    Ok(Answer { is_shown_only: true, ..Answer::json(200, &changes) })
}

fn change(unit: &Unit<'_>, cluster: &str, before: &TenantObjects, after: &TenantObjects) -> Option<Change> {
    let compiled = |objects: &TenantObjects| -> Result<Option<ConfigurationInput>, Vec<CompileFault>> {
        if !objects.clusters.contains_key(cluster) {
            return Ok(None);
        }
        compile(objects, cluster, unit.trust_domain).map(Some)
    };
    let (before, after) = (compiled(before), compiled(after));
    let text = |side: &Result<Option<ConfigurationInput>, Vec<CompileFault>>| match side {
        Ok(input) => serde_json::to_string(input).ok(),
        Err(faults) => serde_json::to_string(faults).ok(),
    };
    if text(&before) == text(&after) {
        return None;
    }
    let (after, faults) = match after {
        Ok(after) => (after, Vec::new()),
        Err(faults) => (None, faults.into_iter().map(told).collect()),
    };
    Some(Change { cluster: cluster.to_owned(), before: before.unwrap_or_default(), after, faults })
}

fn told(fault: CompileFault) -> FieldError {
    FieldError { pointer: format!("/{}/{}{}", fault.kind, fault.name, fault.pointer), detail: fault.detail }
}

fn apply(objects: &mut TenantObjects, request: ChangeRequest) -> Result<(), Fault> {
    let ChangeRequest { kind, name, object } = request;
    match kind.as_str() {
        Cluster::KIND => put(&mut objects.clusters, name, object),
        Member::KIND => put(&mut objects.members, name, object),
        Endpoint::KIND => put(&mut objects.endpoints, name, object),
        Destination::KIND => put(&mut objects.destinations, name, object),
        DeliveryFlow::KIND => put(&mut objects.delivery_flows, name, object),
        Policy::KIND => put(&mut objects.policies, name, object),
        Credential::KIND => put(&mut objects.credentials, name, object),
        _ => Err(Fault::field("/kind", "a kind of objects, as paths have it")),
    }
}

fn put<T: Object>(
    objects: &mut std::collections::BTreeMap<String, T>,
    name: String,
    object: Option<Value>,
) -> Result<(), Fault> {
    let Some(value) = object else {
        objects.remove(&name);
        return Ok(());
    };
    let object: T = json::decode(value).map_err(below)?;
    object.check(&name).map_err(|fault| below(fault.into()))?;
    objects.insert(name, object);
    Ok(())
}

/// Pointers lead into the body, where the object is a field.
fn below(fault: Fault) -> Fault {
    let Fault::Fields(faults) = fault else { return fault };
    let deeper = |fault: FieldFault| FieldFault::new(format!("/object{}", fault.pointer), fault.detail);
    Fault::Fields(faults.into_iter().map(deeper).collect())
}
