//! Tenants: whose clusters and objects they are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zen_control_api::is_name;

use crate::people::{self, Role, Source};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::store;

const TENANTS: &str = "/v1/tenants";
const TENANT: &str = "/v1/tenants/{tenant}";

/// A tenant.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Tenant {
    /// 1 to 64 letters, digits, dots, dashes, underscores; no dot first.
    #[schema(max_length = 64)]
    name: String,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, TENANTS, Operation::Greet, list)
            .says("All tenants in which you have a role, by name")
            .query(LIST_QUERY)
            .gives::<List<Tenant>>(200),
        Route::new(Verb::Post, TENANTS, Operation::Tenants, create)
            .says("A new tenant, whose owner you are")
            .takes::<Tenant>()
            .gives::<Tenant>(201),
        Route::new(Verb::Get, TENANT, Operation::Read, get).says("One tenant").gives::<Tenant>(200),
    ]
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let page = Page::read(&call.query, "tenants")?;
    let found = store::tenants_of(unit.database, &unit.person.name, &page.after, page.count + 1)?;
    Ok(Answer::json(200, &page.list(found, "tenants", Clone::clone, |name| Tenant { name })))
}

fn create(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let tenant: Tenant = call.body()?;
    if !is_name(&tenant.name) {
        let detail = "a name is 1 to 64 letters, digits, dots, dashes, underscores, and begins with no dot";
        return Err(Fault::field("/name", detail));
    }
    if !store::add_tenant(unit.database, &tenant.name)? {
        return Err(Fault::Conflict("there is a tenant of this name"));
    }
    people::set(unit.database, (&unit.person.name, &tenant.name), Some(Role::Owner), Source::Here)?;
    let location = Some(format!("{TENANTS}/{}", tenant.name));
    Ok(Answer { location, ..Answer::json(201, &tenant) })
}

fn get(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    Ok(Answer::json(200, &Tenant { name: call.name("tenant").to_owned() }))
}
