//! Who is what in a tenant. The last owner can be neither removed nor made less.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::people::{self, Member, Role, Source};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::sign_in::{LINK_LIFE_MS, make_link};

const PEOPLE: &str = "/v1/tenants/{tenant}/people";
const PERSON: &str = "/v1/tenants/{tenant}/people/{name}";
const LINK: &str = "/v1/tenants/{tenant}/people/{name}/link";

/// What somebody is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    /// In this tenant.
    role: Role,
}

/// A link with which somebody signs in for the first time, or sets a new password.
#[derive(Serialize, ToSchema)]
struct SignInLink {
    /// Below the address of the listener for browsers: a secret until it is used or over, and given this once.
    path: String,
    /// Unix ms.
    expires_at_ms: u64,
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
        Route::new(Verb::Post, LINK, Operation::People, link)
            .says("A link with which somebody sets a new password, once, within an hour; only of whom no other tenant knows")
            .acts("people.link")
            .gives::<SignInLink>(201),
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

/// Whoever has a link is that person, in other tenants too: so it is not made for people of these.
fn link(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let (name, tenant) = (call.name("name"), call.name("tenant"));
    people::role_in(unit.database, name, tenant)?.ok_or(Fault::NotFound("person"))?;
    if people::roles_of(unit.database, name)?.len() != 1 {
        let detail = "somebody with roles in other tenants gets a link by: zen-control person link";
        return Err(Fault::Conflict(detail));
    }
    let token = make_link(unit.database, name, unit.now_ms)?;
    let path = format!("/sign-in/link?token={}", *token);
    let made = SignInLink { path, expires_at_ms: unit.now_ms + LINK_LIFE_MS };
    Ok(Answer { is_once: true, ..Answer::json(201, &made) })
}

impl From<Member> for PersonView {
    fn from(member: Member) -> Self {
        let Member { name, display, role, source } = member;
        Self { name, display, role, source: source.name() }
    }
}
