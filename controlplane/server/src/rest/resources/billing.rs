//! Who pays for a tenant, and for what: kept for its owners, and acted on by nobody here.

use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};

const BILLING: &str = "/v1/tenants/{tenant}/billing";
/// Longest plan or contact, bytes.
const BILLING_TEXT_BYTES_MAX: usize = 256;

/// A tenant's billing.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Billing {
    /// What was agreed on.
    #[schema(max_length = 256)]
    plan: String,
    /// Who is asked about it.
    #[schema(max_length = 256)]
    contact: String,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, BILLING, Operation::Billing, get)
            .says("Plan and contact; empty until somebody says them")
            .gives::<Billing>(200),
        Route::new(Verb::Put, BILLING, Operation::Billing, put)
            .says("Sets plan and contact")
            .takes::<Billing>()
            .gives::<Billing>(200),
    ]
}

fn get(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let sql = "SELECT plan, contact FROM billing WHERE tenant = ?1";
    let found = unit.database.query_row(sql, (call.name("tenant"),), |row| {
        Ok(Billing { plan: row.get(0)?, contact: row.get(1)? })
    });
    Ok(Answer::json(200, &found.optional()?.unwrap_or_default()))
}

fn put(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let billing: Billing = call.body()?;
    for (pointer, text) in [("/plan", &billing.plan), ("/contact", &billing.contact)] {
        if text.len() > BILLING_TEXT_BYTES_MAX {
            return Err(Fault::field(pointer, format!("at most {BILLING_TEXT_BYTES_MAX} bytes")));
        }
    }
    let sql = "INSERT INTO billing (tenant, plan, contact) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET plan = excluded.plan, contact = excluded.contact";
    unit.database.execute(sql, (call.name("tenant"), &billing.plan, &billing.contact))?;
    Ok(Answer::json(200, &billing))
}
