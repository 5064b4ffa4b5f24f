//! The API itself: whether it works, and its description.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::people::{self, Role};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};

/// It works.
#[derive(Serialize, ToSchema)]
struct Health {
    /// `ok`.
    status: &'static str,
    /// Who asks.
    person: String,
    /// As what, by tenant.
    roles: BTreeMap<String, Role>,
}

/// An `OpenAPI` 3.1 document.
#[derive(Serialize, ToSchema)]
#[schema(value_type = Object)]
struct Document(serde_json::Value);

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, "/healthz", Operation::Greet, health)
            .says("Whether the control plane works, and who you are to it")
            .gives::<Health>(200),
        Route::new(Verb::Get, "/v1/openapi.json", Operation::Greet, document)
            .says("This document")
            .gives::<Document>(200),
    ]
}

fn health(unit: &Unit<'_>, _: &Call) -> Result<Answer, Fault> {
    let person = unit.person.name.clone();
    let roles = people::roles_of(unit.database, &person)?.into_iter().collect();
    Ok(Answer::json(200, &Health { status: "ok", person, roles }))
}

#[expect(clippy::unnecessary_wraps, reason = "a step, as all are")]
fn document(unit: &Unit<'_>, _: &Call) -> Result<Answer, Fault> {
    Ok(Answer { status: 200, body: Some(unit.document.to_owned()), ..Answer::default() })
}
