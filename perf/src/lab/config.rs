//! Writes the nodes' configuration files: one ingester's, and one for each egress.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::shape::{Direction, EgressShape, FlowShape, RouteShape, Shape};
use super::{Custody, INGESTER, Kind, Lab, Node, TARGET_IDENTITY, Tuning, vault};
use crate::error::LabError;
use crate::pki::{PUBLIC, Role, TRUST_DOMAIN, spiffe_id, write_file};
use crate::samples::SchemeName;

/// Writes every configuration of the lab, unless they come from its control plane.
pub(super) fn write(lab: &Lab, shape: Shape, workers: u32, tuning: Tuning) -> Result<(), LabError> {
    if lab.custody == Custody::Managed {
        return Ok(());
    }
    let ingester = ingester(lab, shape, workers, tuning);
    write_file(&lab.ingester.config, ingester.as_bytes(), 0o644)?;
    for (node, egress) in lab.egresses.iter().zip(shape.egresses) {
        let text = egress_text(lab, shape, node, *egress, workers, tuning);
        write_file(&node.config, text.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Where the link of `egress` listens, of the ingester's address and then each egress's:
/// egresses that dial share the ingester's listener, one that is dialled has its own.
pub(super) fn link_of(shape: Shape, links: &[SocketAddr], egress: &str) -> Option<SocketAddr> {
    let index = shape.egresses.iter().position(|shaped| shaped.name == egress)?;
    Some(match shape.egresses[index].direction {
        Direction::EgressDials => links[0],
        Direction::IngesterDials => links[index + 1],
    })
}

fn link_address(lab: &Lab, shape: Shape, egress: EgressShape) -> SocketAddr {
    link_of(shape, &lab.links, egress.name).expect("an egress of the shape")
}

fn ingester(lab: &Lab, shape: Shape, workers: u32, tuning: Tuning) -> String {
    let mut text = node(lab, shape, &lab.ingester, workers, tuning);
    line(&mut text, "[ingester]");
    line(&mut text, tuning.ingester);
    line(&mut text, &format!("listen = [\"{}\"]", lab.public));
    line(&mut text, &format!("certificate_file = \"{}\"", lab.pki.certificate(PUBLIC).display()));
    line(&mut text, &format!("private_key_file = \"{}\"", lab.secret_name(Kind::PrivateKey, PUBLIC)));
    if shape.egresses.iter().any(|egress| egress.direction == Direction::EgressDials) {
        line(&mut text, &format!("link_listen = \"{}\"", lab.links[0]));
    }
    for (index, _) in lab.endpoints.iter().enumerate() {
        endpoint(&mut text, lab, shape, index);
    }
    for egress in shape.egresses {
        line(&mut text, "\n[[ingester.egresses]]");
        line(&mut text, &format!("name = \"{}\"", egress.name));
        let address = lab.dialled(egress.name, link_address(lab, shape, *egress));
        direction(&mut text, *egress, Direction::IngesterDials, address);
        line(&mut text, &format!("spiffe_ids = [\"{}\"]", spiffe_id(Role::Egress, egress.name)));
        line(&mut text, "key_id = \"link-1\"");
        line(&mut text, &format!("key_file = \"{}\"", lab.secret_name(Kind::Link, egress.name)));
    }
    line(&mut text, tuning.sections[0]);
    text
}

fn endpoint(text: &mut String, lab: &Lab, shape: Shape, index: usize) {
    let endpoint = &lab.endpoints[index];
    line(text, "\n[[ingester.endpoints]]");
    line(text, &format!("id = \"{}\"", endpoint.id));
    line(text, "tenant = \"acme\"");
    line(text, &format!("scheme = \"{}\"", endpoint.scheme.label()));
    line(text, &format!("secret_files = [\"{}\"]", lab.secret_name(Kind::Endpoint, &endpoint.id)));
    match endpoint.scheme {
        SchemeName::GitHub => {
            line(text, "forward_headers = [\"x-github-event\", \"x-github-delivery\"]");
        }
        SchemeName::StandardWebhooks => {}
        SchemeName::Hmac => {
            line(text, "forward_headers = [\"x-event-id\"]");
            line(text, "[ingester.endpoints.hmac]");
            line(text, "algorithm = \"sha256\"\nheader = \"x-signature\"\nencoding = \"hex\"");
            line(text, "prefix = \"sha256=\"\nsource_id_header = \"x-event-id\"");
        }
    }
    if let Some(route) = shape.routes.get(index) {
        return route_of(text, shape, &endpoint.id, *route);
    }
    let all: Vec<(&str, &str)> = shape
        .egresses
        .iter()
        .flat_map(|egress| egress.targets.iter().map(|target| (egress.name, *target)))
        .filter(|(_, target)| !is_special(shape, target))
        .collect();
    let (egress, target) = all[index % all.len()];
    line(text, "\n[[ingester.flows]]");
    line(text, &format!("endpoint = \"{}\"", endpoint.id));
    line(text, &format!("egress = \"{egress}\"\ntargets = [\"{target}\"]"));
    if endpoint.scheme == SchemeName::GitHub {
        shape.flows.iter().for_each(|flow| special_flow(text, &endpoint.id, *flow));
    }
}

fn route_of(text: &mut String, shape: Shape, endpoint: &str, route: RouteShape) {
    line(text, &format!("\n[[ingester.flows]]\nname = \"only\"\nendpoint = \"{endpoint}\""));
    line(text, &format!("egress = \"{}\"\ntargets = {:?}", shape.egresses[0].name, route.targets));
    line(text, route.flow);
}

/// Whether a target gets events of one kind only.
fn is_special(shape: Shape, target: &str) -> bool {
    shape.flows.iter().any(|flow| flow.targets.contains(&target))
}

fn special_flow(text: &mut String, endpoint: &str, flow: FlowShape) {
    line(text, "\n[[ingester.flows]]");
    line(text, &format!("name = \"{}\"\nendpoint = \"{endpoint}\"", flow.kind));
    line(text, &format!("egress = \"{}\"\ntargets = {:?}", flow.egress, flow.targets));
    line(text, &format!("when = {{ header = \"x-github-event\", exact = \"{}\" }}", flow.kind));
}

fn egress_text(
    lab: &Lab,
    shape: Shape,
    own: &Node,
    egress: EgressShape,
    workers: u32,
    tuning: Tuning,
) -> String {
    let link = link_address(lab, shape, egress);
    let mut text = node(lab, shape, own, workers, tuning);
    line(&mut text, "[egress]");
    line(&mut text, tuning.egress);
    if egress.direction == Direction::IngesterDials {
        line(&mut text, &format!("link_listen = \"{link}\""));
    }
    line(&mut text, "\n[[egress.ingesters]]");
    line(&mut text, &format!("name = \"{INGESTER}\""));
    direction(&mut text, egress, Direction::EgressDials, lab.dialled(egress.name, link));
    line(&mut text, &format!("spiffe_ids = [\"{}\"]", spiffe_id(Role::Ingester, INGESTER)));
    let key = lab.secret_name(Kind::Link, egress.name);
    line(&mut text, &format!("keys = [{{ id = \"link-1\", file = \"{key}\" }}]"));
    for name in egress.targets {
        line(&mut text, "\n[[egress.targets]]");
        line(&mut text, &format!("name = \"{name}\""));
        line(&mut text, &format!("url = \"https://{}/hooks/{name}\"", lab.dialled(name, lab.target)));
        line(&mut text, &format!("spiffe_ids = [\"{}\"]", spiffe_id(Role::Target, TARGET_IDENTITY)));
        let secret = lab.secret_name(Kind::Target, name);
        line(&mut text, &format!("key_id = \"{name}-1\"\nsecret_file = \"{secret}\""));
        line(&mut text, &format!("in_flight_max = {}", shape.in_flight_max));
        // A closed loop outruns an egress that is traced or profiled: what waits is no dead letter.
        line(&mut text, "queue_max = 100000");
        if is_special(shape, name) {
            line(&mut text, "retry_schedule_ms = [100]");
        }
        line(&mut text, tuning.target);
    }
    line(&mut text, shape.outputs);
    line(&mut text, tuning.sections[1]);
    text
}

/// The direction, and the address on the side of `dialler`.
fn direction(text: &mut String, egress: EgressShape, dialler: Direction, address: SocketAddr) {
    let label = match egress.direction {
        Direction::EgressDials => "egress-dials",
        Direction::IngesterDials => "ingester-dials",
    };
    line(text, &format!("direction = \"{label}\""));
    if egress.direction == dialler {
        line(text, &format!("address = \"{address}\""));
    }
}

fn node(lab: &Lab, shape: Shape, node: &Node, workers: u32, tuning: Tuning) -> String {
    let (name, directory) = (&node.name, lab.directory.display());
    let segment_bytes = tuning.segment_bytes.unwrap_or(shape.journal.segment_bytes);
    // Pinned workers of several nodes on one machine would share the first core.
    format!(
        "[node]\nname = \"{name}\"\nworkers = {workers}\npin_workers = {}\ndata_dir = \"{directory}/{name}\"\n{}\n{}\n\
         [admin]\nlisten = \"{}\"\nsocket = \"{directory}/{name}/admin.sock\"\n\n\
         [journal]\nsegment_bytes = {segment_bytes}\nbytes_max = {}\n\n\
         [identity]\n{}\ntrust_domain = \"{TRUST_DOMAIN}\"\n\n",
        tuning.pin_workers,
        tuning.node,
        lockd(lab, name),
        node.admin,
        shape.journal.bytes_max,
        identity(lab, name),
    )
}

fn identity(lab: &Lab, name: &str) -> String {
    format!(
        "certificate_file = \"{}\"\nprivate_key_file = \"{}\"\ntrust_bundle_file = \"{}\"",
        lab.pki.certificate(name).display(),
        lab.secret_name(Kind::PrivateKey, name),
        lab.pki.bundle().display(),
    )
}

/// The end of `[node]` where zen-lockd has the secrets, and where it listens.
fn lockd(lab: &Lab, name: &str) -> String {
    match lab.custody {
        Custody::Files => String::new(),
        Custody::Lockd | Custody::Managed => format!(
            "hash_key_file = \"{}\"\n\n[lockd]\nsocket = \"{}\"\n",
            lab.secret_name(Kind::HashKey, name),
            vault::socket(&lab.directory).display()
        ),
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes any text");
}
