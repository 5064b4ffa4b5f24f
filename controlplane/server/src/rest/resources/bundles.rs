//! Enrollment bundles of a cluster. A bundle's text is in the answer that makes it and nowhere else.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zen_control_api::{BUNDLE_URLS_MAX, BundleError, Hex16};

use super::check_cluster;
use crate::bundle::{self, LIFE_MS, new_bundle, page_of_bundles};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::{BundleRow, ControlError};

const BUNDLES: &str = "/v1/tenants/{tenant}/clusters/{cluster}/bundles";
const BUNDLE: &str = "/v1/tenants/{tenant}/clusters/{cluster}/bundles/{bundle}";
const LIFE_SECONDS: u64 = 3600;

/// What a new bundle is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BundleRequest {
    /// Where agents connect, `https://HOST:PORT`, to be tried in order.
    #[schema(min_items = 1, max_items = 4, example = json!(["https://control.example:8444"]))]
    urls: Vec<String>,
    /// How long it is good; an hour without it.
    #[serde(default)]
    #[schema(minimum = 60, maximum = 86400)]
    life_seconds: Option<u64>,
}

/// A new bundle.
#[derive(Serialize, ToSchema)]
struct NewBundle {
    /// Names it; no secret.
    bundle_id: String,
    /// Unix ms.
    expires_at_ms: u64,
    /// What `zen-agent enroll` wants as a file: a secret until it is used or over, and given this once.
    text: String,
}

/// A bundle as it is kept, without what lets anybody in.
#[derive(Serialize, ToSchema)]
#[schema(as = Bundle)]
struct BundleView {
    /// Which one.
    bundle_id: String,
    /// `open`, `used`, `revoked` or `expired`.
    state: &'static str,
    /// Unix ms.
    expires_at_ms: i64,
    /// The address that it was used from.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_from: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Post, BUNDLES, Operation::Enroll, create)
            .says("A bundle that lets one agent in, once; its text is in this answer only")
            .takes::<BundleRequest>()
            .gives::<NewBundle>(201),
        Route::new(Verb::Get, BUNDLES, Operation::Read, list)
            .says("The cluster's bundles, newest first")
            .query(LIST_QUERY)
            .gives::<List<BundleView>>(200),
        Route::new(Verb::Delete, BUNDLE, Operation::Enroll, revoke)
            .says("Lets nobody in with it from now on; who is in stays"),
    ]
}

fn create(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    check_cluster(unit, call)?;
    let request: BundleRequest = call.body()?;
    let life_ms = request.life_seconds.unwrap_or(LIFE_SECONDS).saturating_mul(1000);
    if !LIFE_MS.contains(&life_ms) {
        return Err(Fault::field("/life_seconds", "a bundle lives 60 to 86400 seconds"));
    }
    let cluster = (call.name("cluster"), request.urls.as_slice());
    let made = new_bundle(unit.database, unit.directory, cluster, life_ms, unit.now_ms);
    let (id, text) = made.map_err(|error| match error {
        ControlError::Bundle(BundleError::Field("control_plane")) => {
            Fault::field("/urls", format!("1 to {BUNDLE_URLS_MAX} addresses, each https://HOST:PORT"))
        }
        error => error.into(),
    })?;
    let expires_at_ms = unit.now_ms + life_ms;
    let made = NewBundle { bundle_id: id.to_string(), expires_at_ms, text: text.to_string() };
    let acted_on =
        Some(format!("tenants/{}/clusters/{}/bundles/{id}", call.name("tenant"), call.name("cluster")));
    Ok(Answer { is_once: true, acted_on, ..Answer::json(201, &made) })
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    check_cluster(unit, call)?;
    let page = Page::read(&call.query, "bundles")?;
    let from = (page.after.as_str(), page.count + 1);
    let found = page_of_bundles(unit.database, call.name("cluster"), from, unit.now_ms)?;
    Ok(Answer::json(
        200,
        &page.list(found, "bundles", |(key, _)| key.clone(), |(_, row)| BundleView::from(row)),
    ))
}

fn revoke(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    check_cluster(unit, call)?;
    let id: Hex16 = call.name("bundle").parse().map_err(|()| Fault::NotFound("bundle"))?;
    let is_there = bundle::revoke_of(unit.database, call.name("cluster"), id, unit.now_ms)?;
    if is_there { Ok(Answer::nothing()) } else { Err(Fault::NotFound("bundle")) }
}

impl From<BundleRow> for BundleView {
    fn from(row: BundleRow) -> Self {
        let bundle_id = row.id.to_string();
        Self { bundle_id, state: row.state, expires_at_ms: row.expires_at_ms, used_from: row.used_from }
    }
}
