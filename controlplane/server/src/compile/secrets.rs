//! Secrets that a cluster's texts name, and the credentials that bring them.

use std::collections::BTreeMap;

use zen_control_api::SealedSecret;

use super::Faults;
use super::routes::{Route, egress};
use crate::objects::{
    Credential, DeliveryFlow, Destination, Endpoint, Member, Object as _, SecretPlace, Settings,
    TenantObjects,
};

/// Secrets by place: each that is named, and no other.
pub(super) fn of(
    objects: &TenantObjects,
    cluster: &str,
    routes: &[Route<'_>],
    faults: &mut Faults,
) -> BTreeMap<String, SealedSecret> {
    let brought = brought(objects, cluster, faults);
    let mut secrets = BTreeMap::new();
    let mut name = |kind, object: &str, uses: Vec<(String, SecretPlace)>| {
        for (pointer, place) in uses {
            match brought.get(&place) {
                Some(credential) => {
                    secrets.insert(place.0, SealedSecret(credential.ciphertext.clone()));
                }
                None => {
                    let detail = format!(
                        "no credential brings {place} to the cluster {cluster}: seal it to its lockd"
                    );
                    faults.push((kind, object, &pointer), detail);
                }
            }
        }
    };
    for (own, member) in objects.members.iter().filter(|(_, member)| member.cluster == cluster) {
        name(Member::KIND, own, member.settings.places("/settings"));
    }
    for (own, endpoint) in objects.endpoints.iter().filter(|(_, endpoint)| endpoint.cluster == cluster) {
        let each = endpoint.secrets.iter().enumerate();
        let mut uses: Vec<_> =
            each.map(|(index, place)| (format!("/secrets/{index}"), place.clone())).collect();
        uses.extend(endpoint.settings.places("/settings"));
        name(Endpoint::KIND, own, uses);
    }
    let here = |found: &Destination| found.cluster == cluster && egress(objects, found).is_ok();
    for (own, destination) in objects.destinations.iter().filter(|(_, found)| here(found)) {
        let mut uses = vec![("/secret".to_owned(), destination.secret.clone())];
        let previous = destination.previous_secret.as_ref();
        uses.extend(previous.map(|place| ("/previous_secret".to_owned(), place.clone())));
        uses.extend(destination.settings.places("/settings"));
        name(Destination::KIND, own, uses);
    }
    for route in routes {
        name(DeliveryFlow::KIND, route.name, Settings::places(&route.flow.settings, "/settings"));
    }
    secrets
}

/// Credentials of the cluster by place.
fn brought<'a>(
    objects: &'a TenantObjects,
    cluster: &str,
    faults: &mut Faults,
) -> BTreeMap<&'a SecretPlace, &'a Credential> {
    let mut brought: BTreeMap<&SecretPlace, (&str, &Credential)> = BTreeMap::new();
    let own = |credential: &Credential| credential.clusters.iter().any(|found| found == cluster);
    for (name, credential) in objects.credentials.iter().filter(|(_, credential)| own(credential)) {
        if let Some((other, _)) = brought.insert(&credential.place, (name, credential)) {
            let detail = format!("the credential {other} brings the same secret to the cluster {cluster}");
            faults.push((Credential::KIND, name, "/place"), detail);
        }
    }
    brought.into_iter().map(|(place, (_, credential))| (place, credential)).collect()
}
