//! Which ingesters' events go to which egress.

use super::Faults;
use crate::objects::{DeliveryFlow, Destination, Endpoint, Member, Object as _, Output, Role, TenantObjects};

/// A flow, and who carries it.
pub(super) struct Route<'a> {
    pub(super) name: &'a str,
    pub(super) flow: &'a DeliveryFlow,
    pub(super) ingesters: Vec<&'a str>,
    pub(super) egress: &'a str,
}

/// Routes that begin or end in the cluster, by name.
pub(super) fn of<'a>(objects: &'a TenantObjects, cluster: &str, faults: &mut Faults) -> Vec<Route<'a>> {
    for (name, endpoint) in objects.endpoints.iter().filter(|(_, endpoint)| endpoint.cluster == cluster) {
        if let Err((pointer, detail)) = ingesters(objects, endpoint) {
            faults.push((Endpoint::KIND, name, &pointer), detail);
        }
        if !objects.delivery_flows.values().any(|flow| flow.endpoint == *name) {
            faults.push((Endpoint::KIND, name, ""), "no delivery flow says where its events go: make one");
        }
    }
    for (name, destination) in objects.destinations.iter().filter(|(_, found)| found.cluster == cluster) {
        if let Err((pointer, detail)) = egress(objects, destination) {
            faults.push((Destination::KIND, name, pointer), detail);
        }
    }
    let flows = objects.delivery_flows.iter().filter(|(_, flow)| touches(objects, flow, cluster));
    flows.filter_map(|(name, flow)| route(objects, name, flow, faults)).collect()
}

/// Ingesters of an endpoint, in its own order.
pub(super) fn ingesters<'a>(
    objects: &'a TenantObjects,
    endpoint: &'a Endpoint,
) -> Result<Vec<&'a str>, (String, String)> {
    let is_one =
        |member: &Member| member.cluster == endpoint.cluster && member.roles.contains(&Role::Ingester);
    for (index, name) in endpoint.members.iter().enumerate() {
        if !objects.members.get(name).is_some_and(is_one) {
            let detail = format!("{name} is no ingester of the cluster {}", endpoint.cluster);
            return Err((format!("/members/{index}"), detail));
        }
    }
    if !endpoint.members.is_empty() {
        return Ok(endpoint.members.iter().map(String::as_str).collect());
    }
    let all: Vec<&str> =
        objects.members.iter().filter(|(_, member)| is_one(member)).map(|(name, _)| name.as_str()).collect();
    if all.is_empty() {
        let detail = format!("the cluster {} has no member that is an ingester", endpoint.cluster);
        return Err(("/cluster".to_owned(), detail));
    }
    Ok(all)
}

/// The egress that delivers to a destination.
pub(super) fn egress<'a>(
    objects: &'a TenantObjects,
    destination: &'a Destination,
) -> Result<&'a str, (&'static str, String)> {
    let cluster = &destination.cluster;
    let is_one = |member: &Member| member.cluster == *cluster && member.roles.contains(&Role::Egress);
    if let Some(name) = &destination.member {
        if objects.members.get(name).is_some_and(is_one) {
            return Ok(name);
        }
        return Err(("/member", format!("{name} is no egress of the cluster {cluster}")));
    }
    let mut all = objects.members.iter().filter(|(_, member)| is_one(member));
    match (all.next(), all.next()) {
        (Some((name, _)), None) => Ok(name),
        (None, _) => Err(("/cluster", format!("the cluster {cluster} has no member that is an egress"))),
        (Some(_), Some(_)) => {
            Err(("/member", format!("the cluster {cluster} has several egresses: say which one delivers")))
        }
    }
}

/// What a flow names, with the pointer to it.
pub(super) fn destinations(flow: &DeliveryFlow) -> impl Iterator<Item = (String, &str)> {
    let outputs = flow.outputs.iter().enumerate().flat_map(|(index, Output { primary, standby, .. })| {
        let standby = standby.iter().enumerate();
        let standby =
            standby.map(move |(at, name)| (format!("/outputs/{index}/standby/{at}"), name.as_str()));
        [(format!("/outputs/{index}/primary"), primary.as_str())].into_iter().chain(standby)
    });
    let plain = flow.destinations.iter().enumerate();
    plain.map(|(index, name)| (format!("/destinations/{index}"), name.as_str())).chain(outputs)
}

/// Whether a flow begins or ends in the cluster; one that leads from nowhere to nowhere is everybody's.
fn touches(objects: &TenantObjects, flow: &DeliveryFlow, cluster: &str) -> bool {
    let endpoint = objects.endpoints.get(&flow.endpoint).map(|endpoint| endpoint.cluster.as_str());
    let ends =
        destinations(flow).filter_map(|(_, name)| Some(objects.destinations.get(name)?.cluster.as_str()));
    let mut clusters = endpoint.into_iter().chain(ends).peekable();
    clusters.peek().is_none() || clusters.any(|found| found == cluster)
}

fn route<'a>(
    objects: &'a TenantObjects,
    name: &'a str,
    flow: &'a DeliveryFlow,
    faults: &mut Faults,
) -> Option<Route<'a>> {
    let mut fault = |pointer: &str, detail: String| faults.push((DeliveryFlow::KIND, name, pointer), detail);
    let ingesters = match objects.endpoints.get(&flow.endpoint) {
        None => Err(format!("there is no endpoint {}", flow.endpoint)),
        Some(endpoint) => ingesters(objects, endpoint).map_err(|(_, detail)| detail),
    };
    let ingesters = ingesters.map_err(|detail| fault("/endpoint", detail)).ok();
    let mut found: Option<&str> = None;
    for (pointer, name) in destinations(flow) {
        let egress = match objects.destinations.get(name) {
            None => Err(format!("there is no destination {name}")),
            Some(destination) => egress(objects, destination).map_err(|(_, detail)| detail),
        };
        match egress {
            Err(detail) => fault(&pointer, detail),
            Ok(egress) if found.is_some_and(|found| found != egress) => {
                fault(
                    &pointer,
                    format!("{egress} delivers to {name}: make a flow of its own for each egress"),
                );
            }
            Ok(egress) => found = Some(egress),
        }
    }
    Some(Route { name, flow, ingesters: ingesters?, egress: found? })
}
