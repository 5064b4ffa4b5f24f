//! The start: tenants, and what one of them has.

use askama::Template;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::Listed;
use super::clusters::{ClusterStatus, Health};
use super::frame::Frame;
use super::kinds::KINDS;
use super::objects::Stored;
use super::visit::{Pages, Reply, Visit, page};
use crate::rest::{Fault, Verb};

pub(super) const PAGES: Pages = &[
    ("GET", "/", home),
    ("GET", "/tenants", tenants),
    ("POST", "/tenants", make),
    ("GET", "/tenants/{tenant}", overview),
];

/// Items that are counted at most.
const COUNTED: &str = "200";

#[derive(Template)]
#[template(path = "tenants.html")]
struct TenantsPage {
    frame: Frame,
    name: String,
    error: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    clusters: Vec<(String, Health)>,
    counts: Vec<(&'static str, &'static str, String)>,
}

#[derive(Deserialize)]
struct Made {
    name: String,
}

#[expect(clippy::unnecessary_wraps, reason = "a step, as all are")]
fn home(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    match visit.tenants().as_slice() {
        [one] => Ok(Reply::To(format!("/tenants/{one}"))),
        _ => Ok(Reply::To("/tenants".to_owned())),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a step, as all are")]
fn tenants(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    let chosen = visit.query.text("tenant").to_owned();
    if visit.tenants().contains(&chosen) {
        return Ok(Reply::To(format!("/tenants/{chosen}")));
    }
    Ok(page(200, &TenantsPage { frame: visit.frame("Tenants"), name: String::new(), error: String::new() }))
}

fn make(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    let name = visit.form.text("name").to_owned();
    let made: Result<Made, Fault> = visit.ask(Verb::Post, "/v1/tenants").body(json!({"name": name})).json();
    let (status, error) = match made {
        Ok(made) => return Ok(Reply::To(format!("/tenants/{}?done=made", made.name))),
        Err(Fault::Fields(faults)) => (422, faults.into_iter().map(|fault| fault.detail).collect()),
        Err(Fault::Conflict(detail)) => (409, detail.to_owned()),
        Err(fault) => return Err(fault),
    };
    Ok(page(status, &TenantsPage { frame: visit.frame("Tenants"), name, error }))
}

fn overview(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let found: Listed<ClusterStatus> =
        visit.get("/v1/tenants/{tenant}/status").query("limit", COUNTED).json()?;
    let mut counts = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.path != "clusters") {
        let found: Listed<Stored> = visit.get(kind.list).query("limit", COUNTED).json()?;
        let more = if found.next_cursor.is_empty() { "" } else { "+" };
        counts.push((kind.path, kind.title, format!("{}{more}", found.items.len())));
    }
    let dead: Result<Listed<Value>, Fault> =
        visit.get("/v1/tenants/{tenant}/dead-letters").query("limit", COUNTED).json();
    if let Ok(dead) = dead {
        let more = if dead.next_cursor.is_empty() { "" } else { "+" };
        counts.push(("dead-letters", "Dead letters", format!("{}{more}", dead.items.len())));
    }
    let clusters = found.items.into_iter().map(|status| (status.cluster.clone(), status.health())).collect();
    let frame = visit.section(format!("Tenant {}", visit.tenant()), "");
    Ok(page(200, &OverviewPage { frame, clusters, counts }))
}
