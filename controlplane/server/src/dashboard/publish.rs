//! Publishing: what a cluster runs by, what its objects would make of it now, and the button between them.

use askama::Template;
use serde::Deserialize;
use serde_json::Value;

use super::difference::{Part, Side, differences};
use super::frame::Frame;
use super::visit::{Pages, Reply, Visit, page};
use crate::objects::FieldFault;
use crate::rest::{Fault, Operation, Verb};

pub(super) const PAGES: Pages = &[
    ("GET", "/tenants/{tenant}/clusters/{cluster}/configuration", show),
    ("POST", "/tenants/{tenant}/clusters/{cluster}/configuration", publish),
];

const CONFIGURATIONS: &str = "/v1/tenants/{tenant}/clusters/{cluster}/configurations";

#[derive(Template)]
#[template(path = "publish.html")]
struct PublishPage {
    frame: Frame,
    cluster: String,
    version: Option<i64>,
    parts: Vec<Part>,
    faults: Vec<FieldFault>,
}

#[derive(Deserialize)]
struct Newest {
    version: i64,
    text: String,
}

#[derive(Deserialize)]
struct Shown {
    configuration: Value,
}

fn show(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    if !visit.may(Operation::Publish) {
        return Err(Fault::Role(visit.frame("").role));
    }
    publish_page(visit, 200)
}

fn publish_page(visit: &Visit<'_>, status: u16) -> Result<Reply, Fault> {
    let (version, before) = match visit.get(CONFIGURATIONS).json::<Newest>() {
        Ok(newest) => (Some(newest.version), serde_json::from_str(&newest.text).unwrap_or_default()),
        Err(Fault::NotFound("configuration")) => (None, Value::Null),
        Err(fault) => return Err(fault),
    };
    let asked = visit.ask(Verb::Post, CONFIGURATIONS).query("dry_run", "true").json::<Shown>();
    let (parts, faults) = match asked {
        Ok(shown) => (differences(&before, &shown.configuration), Vec::new()),
        Err(Fault::Fields(faults)) => (Vec::new(), faults),
        Err(fault) => return Err(fault),
    };
    let cluster = visit.name("cluster").to_owned();
    let frame = visit.section(format!("Publish {cluster}"), "/clusters");
    Ok(page(status, &PublishPage { frame, cluster, version, parts, faults }))
}

fn publish(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    match visit.ask(Verb::Post, CONFIGURATIONS).run() {
        Ok(_) => Ok(Reply::To(visit.path(&format!("/clusters/{}?done=published", visit.name("cluster"))))),
        Err(Fault::Fields(_)) => publish_page(visit, 422),
        Err(fault) => Err(fault),
    }
}
