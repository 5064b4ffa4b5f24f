//! The text of one member: its `node.toml`.

use toml::{Table, Value};

use super::links::{Dialled, Link};
use super::routes::{egress, ingesters};
use super::{Faults, View};
use crate::objects::{
    DeliveryFlow, Destination, Endpoint, Member, Object as _, Output, Role, Scheme, SecretPlace,
};

/// What the agent puts beside the text, and what it replaces.
const IDENTITY: [(&str, &str); 4] = [
    ("certificate_file", "identity.pem"),
    ("private_key_file", "{{private_key}}"),
    ("trust_bundle_file", "bundle.pem"),
    ("deny_list_file", "deny.json"),
];
/// Settings without which no node starts, or none that an agent looks after; those that are paths must be absolute.
const REQUIRED: [(Option<Role>, &str, &str, bool); 6] = [
    (None, "node", "data_dir", true),
    (None, "admin", "socket", true),
    (None, "lockd", "socket", true),
    (Some(Role::Ingester), "ingester", "listen", false),
    (Some(Role::Ingester), "ingester", "certificate_file", true),
    (Some(Role::Ingester), "ingester", "private_key_file", false),
];

/// The text for a member.
pub(super) fn text(view: &View<'_>, name: &str, member: &Member, faults: &mut Faults) -> String {
    let mut root = member.settings.table();
    let identity = section(&mut root, "identity");
    identity.extend(IDENTITY.map(|(key, value)| (key.to_owned(), value.into())));
    put(identity, "trust_domain", view.trust_domain);
    if !member.roles.is_empty() {
        put(section(&mut root, "node"), "name", name);
        required(name, member, faults);
    }
    if member.roles.contains(&Role::Ingester) {
        ingester(section(&mut root, "ingester"), view, (name, member), faults);
    }
    if member.roles.contains(&Role::Egress) {
        egress_section(section(&mut root, "egress"), view, (name, member), faults);
    }
    let tenant = &view.objects.tenant;
    let text = toml::to_string(&root).expect("tables of texts and numbers are TOML");
    format!("# {name} of {tenant}/{}, made by the control plane.\n{text}", member.cluster)
}

fn required(name: &str, member: &Member, faults: &mut Faults) {
    for (role, section, key, is_path) in REQUIRED {
        if role.is_some_and(|role| !member.roles.contains(&role)) {
            continue;
        }
        let value = member.settings.0.get(section).and_then(|section| section.get(key));
        let detail = match value.and_then(|value| value.as_str()) {
            None if value.is_some() && !is_path => continue,
            Some(path) if !is_path || path.starts_with('/') => continue,
            Some(_) => "an absolute path: what it names outlives a generation",
            None => "is needed",
        };
        faults.push((Member::KIND, name, &format!("/settings/{section}/{key}")), detail);
    }
}

fn ingester(table: &mut Table, view: &View<'_>, (name, member): (&str, &Member), faults: &mut Faults) {
    if let Some(link) = &member.link {
        put(table, "link_listen", link.listen.as_str());
    }
    let own = |endpoint: &&Endpoint| ingesters(view.objects, endpoint).is_ok_and(|all| all.contains(&name));
    let endpoints = view
        .objects
        .endpoints
        .iter()
        .filter(|(_, endpoint)| endpoint.cluster == member.cluster && own(endpoint));
    let endpoints = endpoints.map(|(id, endpoint)| self::endpoint(view, id, endpoint));
    list(table, "endpoints", endpoints);
    let routes = view.routes.iter().filter(|route| route.ingesters.contains(&name));
    list(table, "flows", routes.map(|route| flow(route.name, route.flow, route.egress)));
    let links = view.links.iter().filter(|link| link.ingester == name);
    list(table, "egresses", links.map(|link| egress_peer(view, link, faults)));
}

fn endpoint(view: &View<'_>, id: &str, endpoint: &Endpoint) -> Table {
    let mut table = endpoint.settings.table();
    put(&mut table, "id", id);
    put(&mut table, "tenant", view.objects.tenant.as_str());
    let scheme = match endpoint.scheme {
        Scheme::Github => "github",
        Scheme::StandardWebhooks => "standard-webhooks",
        Scheme::Hmac => "hmac",
        Scheme::None => "none",
    };
    put(&mut table, "scheme", scheme);
    if !endpoint.secrets.is_empty() {
        texts(&mut table, "secret_files", endpoint.secrets.iter().map(SecretPlace::reference));
    }
    table
}

fn flow(name: &str, flow: &DeliveryFlow, egress: &str) -> Table {
    let mut table = flow.settings.table();
    put(&mut table, "name", name);
    put(&mut table, "endpoint", flow.endpoint.as_str());
    put(&mut table, "egress", egress);
    let outputs = flow.outputs.iter().map(|output| output.name.clone());
    texts(&mut table, "targets", flow.destinations.iter().cloned().chain(outputs));
    if !flow.when.is_empty() {
        table.insert("when".to_owned(), flow.when.table().into());
    }
    table
}

fn egress_peer(view: &View<'_>, link: &Link<'_>, faults: &mut Faults) -> Table {
    let mut table = peer(view, (link.ingester, link.egress), link, faults);
    if let Dialled::Egress(reach) = link.dialled {
        put(&mut table, "address", reach.address.as_str());
    }
    put(&mut table, "key_id", format!("{{{{link_key_id:{}}}}}", link.key));
    put(&mut table, "key_file", format!("{{{{link_key:{}}}}}", link.key));
    table
}

fn ingester_peer(view: &View<'_>, link: &Link<'_>, faults: &mut Faults) -> Table {
    let mut table = peer(view, (link.egress, link.ingester), link, faults);
    if let Dialled::Ingester(reach) = link.dialled {
        put(&mut table, "address", reach.address.as_str());
    }
    // The agent puts an array in place of this text.
    put(&mut table, "keys", format!("{{{{link_keys:{}}}}}", link.key));
    table
}

/// What both ends say of the other one.
fn peer(view: &View<'_>, (own, name): (&str, &str), link: &Link<'_>, faults: &mut Faults) -> Table {
    let mut table = Table::new();
    put(&mut table, "name", name);
    let direction = match link.dialled {
        Dialled::Ingester(_) => "egress-dials",
        Dialled::Egress(_) => "ingester-dials",
    };
    put(&mut table, "direction", direction);
    let id = view.spiffe_id(name);
    if !view.linked.write(&mut table, std::slice::from_ref(&id)) {
        let detail = format!("flows link it with {id}, which no policy for links allows");
        faults.push((Member::KIND, own, ""), detail);
    }
    table
}

fn egress_section(table: &mut Table, view: &View<'_>, (name, member): (&str, &Member), faults: &mut Faults) {
    if let Some(link) = member.link.as_ref().filter(|_| !member.roles.contains(&Role::Ingester)) {
        put(table, "link_listen", link.listen.as_str());
    }
    let links = view.links.iter().filter(|link| link.egress == name);
    list(table, "ingesters", links.map(|link| ingester_peer(view, link, faults)));
    let delivers =
        |found: &Destination| found.cluster == member.cluster && egress(view.objects, found) == Ok(name);
    let destinations = view.objects.destinations.iter().filter(|(_, found)| delivers(found));
    list(table, "targets", destinations.map(|(own, destination)| target(view, own, destination, faults)));
    let mut taken: Vec<&str> = Vec::new();
    let mut outputs = Vec::new();
    for route in view.routes.iter().filter(|route| route.egress == name) {
        for (index, output) in route.flow.outputs.iter().enumerate() {
            let is_target = view.objects.destinations.get(&output.name).is_some_and(delivers);
            if is_target || taken.contains(&output.name.as_str()) {
                let pointer = format!("/outputs/{index}/name");
                let detail = format!("{name} has a destination or another output of this name: take another");
                faults.push((DeliveryFlow::KIND, route.name, &pointer), detail);
            }
            taken.push(&output.name);
            outputs.push(output_table(output));
        }
    }
    list(table, "outputs", outputs.into_iter());
}

fn target(view: &View<'_>, name: &str, destination: &Destination, faults: &mut Faults) -> Table {
    let mut table = destination.settings.table();
    put(&mut table, "name", name);
    put(&mut table, "url", destination.url.as_str());
    put(&mut table, "key_id", destination.key_id.as_str());
    put(&mut table, "secret_file", destination.secret.reference());
    if let Some(secret) = &destination.previous_secret {
        put(&mut table, "previous_secret_file", secret.reference());
    }
    let patterns = &destination.spiffe_ids;
    // Who is known by the name of a host has no SPIFFE id that a policy could speak of.
    if !patterns.is_empty() && !view.delivered.write(&mut table, patterns) {
        let detail = "no policy for destinations allows any of these";
        faults.push((Destination::KIND, name, "/spiffe_ids"), detail);
    }
    table
}

fn output_table(output: &Output) -> Table {
    let mut table = output.settings.table();
    put(&mut table, "name", output.name.as_str());
    put(&mut table, "primary", output.primary.as_str());
    if !output.standby.is_empty() {
        texts(&mut table, "standby", output.standby.iter().cloned());
    }
    table
}

/// A section of the file; settings of members are checked to be tables.
fn section<'a>(root: &'a mut Table, name: &str) -> &'a mut Table {
    let section = root.entry(name).or_insert_with(|| Table::new().into());
    section.as_table_mut().expect("a section is a table, which Settings::check has asked")
}

fn put(table: &mut Table, key: &str, value: impl Into<Value>) {
    table.insert(key.to_owned(), value.into());
}

fn texts(table: &mut Table, key: &str, values: impl Iterator<Item = String>) {
    table.insert(key.to_owned(), Value::Array(values.map(Value::String).collect()));
}

/// Tables in a row, if there are any.
fn list(table: &mut Table, key: &str, tables: impl Iterator<Item = Table>) {
    let tables: Vec<Value> = tables.map(Value::Table).collect();
    if !tables.is_empty() {
        table.insert(key.to_owned(), Value::Array(tables));
    }
}
