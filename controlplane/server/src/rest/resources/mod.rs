//! What there is under `/v1`: for each kind of thing its routes, and the steps behind them.

mod audit;
mod billing;
mod bundles;
mod changes;
mod configurations;
mod dead_letters;
mod deliveries;
mod denials;
mod objects;
mod people;
mod service;
mod status;
mod tenants;

use super::page::Page;
use super::problem::Fault;
use super::route::Route;
use super::unit::{Call, Unit};
use crate::objects::{Cluster, Object as _};
use crate::store::{self, Place};

/// All routes.
pub(crate) fn routes() -> Vec<Route> {
    let parts = [
        service::routes(),
        tenants::routes(),
        people::routes(),
        billing::routes(),
        objects::routes(),
        bundles::routes(),
        changes::routes(),
        configurations::routes(),
        denials::routes(),
        status::routes(),
        deliveries::routes(),
        dead_letters::routes(),
        audit::routes(),
    ];
    parts.into_iter().flatten().collect()
}

/// Behind which number a page of a list by numbers begins.
fn number_after(page: &Page) -> Result<Option<i64>, Fault> {
    if page.after.is_empty() {
        return Ok(None);
    }
    let number = page.after.parse().map(Some);
    number.map_err(|_| Fault::Malformed("cursor is the next_cursor of this list".to_owned()))
}

/// Whether the path's cluster is there.
fn check_cluster(unit: &Unit<'_>, call: &Call) -> Result<(), Fault> {
    unit.check_tenant(call)?;
    let place = Place { tenant: call.name("tenant"), kind: Cluster::KIND, name: call.name("cluster") };
    match store::find(unit.database, place)? {
        Some(_) => Ok(()),
        None => Err(Fault::NotFound("cluster")),
    }
}
