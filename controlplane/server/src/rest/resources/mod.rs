//! What there is under `/v1`: for each kind of thing its routes, and the steps behind them.

mod audit;
mod billing;
mod bundles;
mod configurations;
mod denials;
mod objects;
mod people;
mod service;
mod status;
mod tenants;

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
        configurations::routes(),
        denials::routes(),
        status::routes(),
        audit::routes(),
    ];
    parts.into_iter().flatten().collect()
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
