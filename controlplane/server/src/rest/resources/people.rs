//! Who is what in a tenant. The last owner can be neither removed nor made less.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::people::{self, Member, Role, Source};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};

const PEOPLE: &str = "/v1/tenants/{tenant}/people";
const PERSON: &str = "/v1/tenants/{tenant}/people/{name}";

/// What somebody is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    /// In this tenant.
    role: Role,
}

/// Somebody with a role in the tenant.
#[derive(Serialize, ToSchema)]
#[schema(as = Person)]
struct PersonView {
    /// Who.
    name: String,
    /// As the provider of identities calls them.
    #[serde(skip_serializing_if = "String::is_empty")]
    display: String,
    /// As what.
    role: Role,
    /// Where the role comes from: `here`, or `groups`, which are read at each sign-in.
    source: &'static str,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, PEOPLE, Operation::ReadPeople, list)
            .says("Who has a role in the tenant, by name")
            .query(LIST_QUERY)
            .gives::<List<PersonView>>(200),
        Route::new(Verb::Put, PERSON, Operation::People, put)
            .says("Gives somebody a role in the tenant; who is new here is made")
            .takes::<RoleRequest>()
            .gives::<PersonView>(200),
        Route::new(Verb::Delete, PERSON, Operation::People, delete)
            .says("Takes somebody's role in the tenant, from their next request on"),
    ]
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let page = Page::read(&call.query, "people")?;
    let found = people::members(unit.database, call.name("tenant"), &page.after, page.count + 1)?;
    Ok(Answer::json(200, &page.list(found, "people", |member| member.name.clone(), PersonView::from)))
}

fn put(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let request: RoleRequest = call.body()?;
    let (name, tenant) = (call.name("name"), call.name("tenant"));
    people::make(unit.database, name, "", unit.now_ms)?;
    let before = people::role_in(unit.database, name, tenant)?;
    people::set(unit.database, (name, tenant), Some(request.role), Source::Here)?;
    let person =
        PersonView { name: name.to_owned(), display: String::new(), role: request.role, source: "here" };
    Ok(Answer::json(if before.is_some() { 200 } else { 201 }, &person))
}

fn delete(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let (name, tenant) = (call.name("name"), call.name("tenant"));
    people::role_in(unit.database, name, tenant)?.ok_or(Fault::NotFound("person"))?;
    people::leave(unit.database, name, tenant)?;
    Ok(Answer::nothing())
}

impl From<Member> for PersonView {
    fn from(member: Member) -> Self {
        let Member { name, display, role, source } = member;
        Self { name, display, role, source: source.name() }
    }
}
