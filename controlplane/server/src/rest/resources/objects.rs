//! Objects of tenants, all kinds alike: made or replaced whole by PUT, under conditions if the client has some.

use serde::Serialize;
use utoipa::ToSchema;
use zen_control_api::Hex16;

use crate::objects::{Cluster, Credential, DeliveryFlow, Destination, Endpoint, Member, Object, Policy};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::store::{self, Place, Row};

/// An object with what the control plane says of it.
#[derive(Serialize, ToSchema)]
struct Stored<T> {
    /// Unique among those of its kind in the tenant.
    name: String,
    /// Rises with each change; the `ETag`.
    revision: i64,
    /// As it was sent.
    object: T,
}

pub(super) fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    routes.extend(routes_of::<Cluster>("{cluster}", Operation::Manage));
    routes.extend(routes_of::<Member>("{name}", Operation::Manage));
    routes.extend(routes_of::<Endpoint>("{name}", Operation::Manage));
    routes.extend(routes_of::<Destination>("{name}", Operation::Draft));
    routes.extend(routes_of::<DeliveryFlow>("{name}", Operation::Draft));
    routes.extend(routes_of::<Policy>("{name}", Operation::Manage));
    routes.extend(routes_of::<Credential>("{name}", Operation::Manage));
    let create = Route::new(Verb::Post, collection_of::<Endpoint>(), Operation::Manage, create::<Endpoint>);
    routes.push(
        create
            .says("A new one, whose name is made here and cannot be guessed")
            .takes::<Endpoint>()
            .gives::<Stored<Endpoint>>(201),
    );
    routes
}

fn collection_of<T: Object>() -> String {
    format!("/v1/tenants/{{tenant}}/{}", T::KIND)
}

fn routes_of<T: Object>(name: &str, change: Operation) -> [Route; 4] {
    let one = format!("{}/{name}", collection_of::<T>());
    [
        Route::new(Verb::Get, collection_of::<T>(), Operation::Read, list::<T>)
            .says("All of the tenant, by name")
            .query(LIST_QUERY)
            .gives::<List<Stored<T>>>(200),
        Route::new(Verb::Get, &one, Operation::Read, get::<T>)
            .says("One of them")
            .conditional()
            .gives::<Stored<T>>(200),
        Route::new(Verb::Put, &one, change, put::<T>)
            .says("Makes it or replaces it, whole")
            .conditional()
            .takes::<T>()
            .gives::<Stored<T>>(200),
        Route::new(Verb::Delete, &one, Operation::Manage, delete::<T>).says("Deletes it").conditional(),
    ]
}

fn place<T: Object>(call: &Call) -> Place<'_> {
    let name = call.names.get("cluster").or_else(|| call.names.get("name"));
    Place { tenant: call.name("tenant"), kind: T::KIND, name: name.map_or("", String::as_str) }
}

fn list<T: Object>(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let page = Page::read(&call.query, T::KIND)?;
    let found = store::list(unit.database, (call.name("tenant"), T::KIND), &page.after, page.count + 1)?;
    let found: Vec<Stored<T>> = found.into_iter().map(stored).collect::<Result<_, _>>()?;
    Ok(Answer::json(200, &page.list(found, T::KIND, |stored| stored.name.clone(), |stored| stored)))
}

fn get<T: Object>(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let row = store::find(unit.database, place::<T>(call))?.ok_or(Fault::NotFound("object"))?;
    let revision = Some(row.revision);
    let conditions = &call.conditions;
    if conditions.if_match.as_ref().is_some_and(|tags| !tags.holds(revision)) {
        return Err(Fault::Precondition);
    }
    if conditions.if_none_match.as_ref().is_some_and(|tags| tags.holds(revision)) {
        return Ok(Answer { status: 304, revision, ..Answer::default() });
    }
    Ok(Answer { revision, ..Answer::json(200, &stored::<T>(row)?) })
}

fn put<T: Object>(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let place = place::<T>(call);
    let before = store::find(unit.database, place)?;
    check_conditions(call, before.as_ref())?;
    keep::<T>(unit, call, place, before.as_ref())
}

/// The name is made here: 128 random bits, lower-case hex.
fn create<T: Object>(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("aws-lc-rs aborts by itself when it has no randomness");
    let name = Hex16(random).to_string();
    keep::<T>(unit, call, Place { tenant: call.name("tenant"), kind: T::KIND, name: &name }, None)
}

fn delete<T: Object>(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let place = place::<T>(call);
    let before = store::find(unit.database, place)?;
    check_conditions(call, before.as_ref())?;
    if before.is_none() {
        return Err(Fault::NotFound("object"));
    }
    store::delete(unit.database, place)?;
    Ok(Answer::nothing())
}

fn check_conditions(call: &Call, before: Option<&Row>) -> Result<(), Fault> {
    let revision = before.map(|row| row.revision);
    let conditions = &call.conditions;
    let is_other = conditions.if_match.as_ref().is_some_and(|tags| !tags.holds(revision));
    let is_there = conditions.if_none_match.as_ref().is_some_and(|tags| tags.holds(revision));
    if is_other || is_there { Err(Fault::Precondition) } else { Ok(()) }
}

fn keep<T: Object>(
    unit: &Unit<'_>,
    call: &Call,
    place: Place<'_>,
    before: Option<&Row>,
) -> Result<Answer, Fault> {
    let object: T = call.body()?;
    object.check(place.name)?;
    let text = serde_json::to_string(&object).expect("texts and numbers are JSON");
    let revision = store::put(unit.database, place, before, &text)?;
    let status = if before.is_some() { 200 } else { 201 };
    let location =
        before.is_none().then(|| format!("/v1/tenants/{}/{}/{}", place.tenant, T::KIND, place.name));
    let stored = Stored { name: place.name.to_owned(), revision, object };
    Ok(Answer { revision: Some(revision), location, ..Answer::json(status, &stored) })
}

fn stored<T: Object>(row: Row) -> Result<Stored<T>, Fault> {
    Ok(Stored { object: store::read(&row.text)?, name: row.name, revision: row.revision })
}
