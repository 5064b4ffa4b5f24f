//! What a lab says to its control plane: members, endpoints, destinations, flows and credentials, as the API takes them.
//!
//! In: a lab and its shape. Out: paths below the tenant with the objects that go there. Secrets are in it as ciphertext only.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::shape::{EgressShape, Shape};
use super::trust::CLUSTER;
use super::{INGESTER, Kind, Lab, Node, TARGET_IDENTITY, vault};
use crate::error::LabError;
use crate::pki::{PUBLIC, TRUST_DOMAIN};
use crate::samples::SchemeName;
use crate::signature::base64;

/// All objects but the cluster.
pub(super) fn of(
    lab: &Lab,
    shape: Shape,
    workers: u32,
    sealed: &Path,
) -> Result<Vec<(String, Value)>, LabError> {
    let mut objects = credentials(lab, sealed)?;
    objects.extend(policies());
    objects.extend(members(lab, shape, workers));
    for (index, endpoint) in lab.endpoints.iter().enumerate() {
        objects.push((format!("endpoints/{}", endpoint.id), self::endpoint(lab, index)));
        objects.extend(flows(lab, shape, index));
    }
    for egress in shape.egresses {
        for name in egress.targets {
            objects.push((format!("destinations/{name}"), destination(lab, shape, *egress, name)));
        }
    }
    Ok(objects)
}

/// The SPIFFE id that the control plane gives a member.
pub(super) fn member_id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{CLUSTER}/{name}")
}

/// Every sealed file as it is.
fn credentials(lab: &Lab, sealed: &Path) -> Result<Vec<(String, Value)>, LabError> {
    let mut credentials = Vec::new();
    for secret in &lab.secrets {
        let path = sealed.join(format!("{}.age", secret.name()));
        if !path.exists() {
            continue;
        }
        let ciphertext = base64(&fs::read(&path).map_err(LabError::file(&path))?);
        let object = json!({"clusters": [CLUSTER], "place": secret.name(), "ciphertext": ciphertext});
        credentials.push((format!("credentials/{}-{}", secret.kind.folder(), secret.key), object));
    }
    Ok(credentials)
}

/// Links are among the cluster's own members, and deliveries go to the one that plays the targets.
fn policies() -> Vec<(String, Value)> {
    let links = json!({"scope": "links", "allow": [member_id("*")]});
    let targets = json!({"scope": "destinations", "allow": [member_id(TARGET_IDENTITY)]});
    vec![("policies/links".to_owned(), links), ("policies/targets".to_owned(), targets)]
}

fn members(lab: &Lab, shape: Shape, workers: u32) -> Vec<(String, Value)> {
    let mut edge = settings(lab, shape, &lab.ingester, workers);
    edge["ingester"] = json!({
        "listen": [lab.public],
        "certificate_file": lab.pki.certificate(PUBLIC),
        "private_key_file": lab.secret_name(Kind::PrivateKey, PUBLIC),
    });
    let link = json!({"listen": lab.links[0].to_string(), "address": lab.links[0].to_string()});
    let edge = json!({"cluster": CLUSTER, "roles": ["ingester"], "link": link, "settings": edge});
    // What plays the targets is no node: it gets a certificate and nothing to do.
    let target = json!({"cluster": CLUSTER, "roles": [], "description": "plays the targets"});
    let mut members =
        vec![(format!("members/{INGESTER}"), edge), (format!("members/{TARGET_IDENTITY}"), target)];
    for node in &lab.egresses {
        let settings = settings(lab, shape, node, workers);
        let object = json!({"cluster": CLUSTER, "roles": ["egress"], "settings": settings});
        members.push((format!("members/{}", node.name), object));
    }
    members
}

/// What the host alone knows.
fn settings(lab: &Lab, shape: Shape, node: &Node, workers: u32) -> Value {
    let data_dir = lab.data_dir(node);
    json!({
        "node": {
            "data_dir": data_dir,
            "workers": workers,
            // Pinned workers of several nodes on one machine would share the first core.
            "pin_workers": false,
            "hash_key_file": lab.secret_name(Kind::HashKey, &node.name),
        },
        "admin": {"listen": node.admin, "socket": data_dir.join("admin.sock")},
        "journal": {"segment_bytes": shape.journal.segment_bytes, "bytes_max": shape.journal.bytes_max},
        "lockd": {"socket": vault::socket(&lab.directory)},
    })
}

fn endpoint(lab: &Lab, index: usize) -> Value {
    let endpoint = &lab.endpoints[index];
    let settings = match endpoint.scheme {
        SchemeName::GitHub => json!({"forward_headers": ["x-github-event", "x-github-delivery"]}),
        SchemeName::StandardWebhooks => json!({}),
        SchemeName::Hmac => json!({
            "forward_headers": ["x-event-id"],
            "hmac": {"header": "x-signature", "prefix": "sha256=", "source_id_header": "x-event-id"},
        }),
    };
    json!({
        "cluster": CLUSTER,
        "scheme": endpoint.scheme.label(),
        "secrets": [Kind::Endpoint.sealed_name(&endpoint.id)],
        "settings": settings,
    })
}

/// All of an endpoint's events to one destination; of the GitHub endpoint, some kinds elsewhere as well.
fn flows(lab: &Lab, shape: Shape, index: usize) -> Vec<(String, Value)> {
    let endpoint = &lab.endpoints[index];
    let special = |target: &&str| shape.flows.iter().any(|flow| flow.targets.contains(target));
    let plain: Vec<&str> = shape
        .egresses
        .iter()
        .flat_map(|egress| egress.targets.iter().copied())
        .filter(|target| !special(target))
        .collect();
    let scheme = endpoint.scheme.label();
    let all = json!({"endpoint": endpoint.id, "destinations": [plain[index % plain.len()]]});
    let mut flows = vec![(format!("delivery-flows/{scheme}-{index}"), all)];
    if endpoint.scheme == SchemeName::GitHub {
        flows.extend(shape.flows.iter().map(|flow| {
            let when = json!({"header": "x-github-event", "exact": flow.kind});
            let object = json!({"endpoint": endpoint.id, "destinations": flow.targets, "when": when});
            (format!("delivery-flows/{}-{index}", flow.kind), object)
        }));
    }
    flows
}

fn destination(lab: &Lab, shape: Shape, egress: EgressShape, name: &str) -> Value {
    let mut settings = Map::new();
    settings.insert("in_flight_max".to_owned(), json!(shape.in_flight_max));
    settings.insert("queue_max".to_owned(), json!(100_000));
    if shape.flows.iter().any(|flow| flow.targets.contains(&name)) {
        settings.insert("retry_schedule_ms".to_owned(), json!([100]));
    }
    json!({
        "cluster": CLUSTER,
        "member": egress.name,
        "url": format!("https://{}/hooks/{name}", lab.target),
        "key_id": format!("{name}-1"),
        "secret": Kind::Target.sealed_name(name),
        "spiffe_ids": [member_id(TARGET_IDENTITY)],
        "settings": settings,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Custody, Tuning};
    use super::*;

    #[test]
    fn a_lab_says_everything_but_its_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::build(directory.path(), Shape::DEMO, 1, Tuning::NONE, Custody::Managed).unwrap();
        let sealed = directory.path().join("sealed");
        for secret in &lab.secrets {
            let file = sealed.join(format!("{}.age", secret.name()));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "sealed").unwrap();
        }
        let objects = of(&lab, Shape::DEMO, 1, &sealed).unwrap();
        let count = |kind: &str| objects.iter().filter(|(path, _)| path.starts_with(kind)).count();
        let counts =
            ["credentials/", "members/", "endpoints/", "delivery-flows/", "destinations/", "policies/"];
        assert_eq!(counts.map(count), [lab.secrets.len(), 3, 3, 5, 4, 2]);
        for (path, object) in &objects {
            for secret in &lab.secrets {
                assert!(!object.to_string().contains(secret.value.trim()), "{path} has {secret:?}");
            }
        }
    }
}
