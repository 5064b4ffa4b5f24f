//! People of a tenant and their roles; and who pays.

use askama::Template;
use serde::Deserialize;
use serde_json::json;
use zen_control_api::is_name;

use super::ask::{Listed, query_of};
use super::frame::Frame;
use super::visit::{Pages, Reply, Visit, page};
use crate::people::Role;
use crate::rest::{Fault, Operation, Verb};

pub(super) const PAGES: Pages = &[
    ("GET", "/tenants/{tenant}/people", list),
    ("POST", "/tenants/{tenant}/people", put),
    ("POST", "/tenants/{tenant}/people/{name}/delete", leave),
    ("GET", "/tenants/{tenant}/billing", billing),
    ("POST", "/tenants/{tenant}/billing", keep_billing),
];

const PEOPLE: &str = "/v1/tenants/{tenant}/people";
const PERSON: &str = "/v1/tenants/{tenant}/people/{name}";
const BILLING: &str = "/v1/tenants/{tenant}/billing";
/// Items of a page.
const LISTED: &str = "100";

#[derive(Deserialize)]
struct Person {
    name: String,
    #[serde(default)]
    display: String,
    role: Role,
    #[serde(default)]
    source: String,
}

#[derive(Default, Deserialize)]
struct Billing {
    plan: String,
    contact: String,
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    people: Vec<Person>,
    next: String,
    name: String,
    error: String,
    may_change: bool,
}

#[derive(Template)]
#[template(path = "billing.html")]
struct BillingPage {
    frame: Frame,
    billing: Billing,
    error: String,
}

fn list(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    people_page(visit, 200, String::new())
}

fn people_page(visit: &Visit<'_>, status: u16, error: String) -> Result<Reply, Fault> {
    let ask = visit.get(PEOPLE).query("limit", LISTED).query("cursor", visit.query.text("cursor"));
    let found: Listed<Person> = ask.json()?;
    Ok(page(
        status,
        &PeoplePage {
            frame: visit.section("People", "/people"),
            people: found.items,
            next: query_of([("cursor", found.next_cursor.as_str())]),
            name: visit.form.text("name").to_owned(),
            error,
            may_change: visit.may(Operation::People),
        },
    ))
}

fn put(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let (name, role) = (visit.form.text("name").to_owned(), visit.form.text("role").to_owned());
    if !is_name(&name) {
        let error = "A name is 1 to 64 letters, digits, dots, dashes, underscores.";
        return people_page(visit, 422, error.to_owned());
    }
    let asked = visit.ask(Verb::Put, PERSON).with("name", &name).body(json!({"role": role})).run();
    refused(visit, asked.map(|_| visit.path("/people?done=role")))
}

fn leave(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let asked = visit.ask(Verb::Delete, PERSON).run();
    refused(visit, asked.map(|_| visit.path("/people?done=left")))
}

/// What the API refuses is said on the page.
fn refused(visit: &Visit<'_>, asked: Result<String, Fault>) -> Result<Reply, Fault> {
    match asked {
        Ok(path) => Ok(Reply::To(path)),
        Err(Fault::Fields(faults)) => {
            people_page(visit, 422, faults.into_iter().map(|fault| fault.detail).collect())
        }
        Err(Fault::Conflict(detail)) => people_page(visit, 409, detail.to_owned()),
        Err(fault) => Err(fault),
    }
}

fn billing(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let billing = visit.get(BILLING).json()?;
    Ok(page(200, &BillingPage { frame: visit.section("Billing", "/billing"), billing, error: String::new() }))
}

fn keep_billing(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let [plan, contact] = ["plan", "contact"].map(|name| visit.form.text(name).to_owned());
    let asked = visit.ask(Verb::Put, BILLING).body(json!({"plan": plan, "contact": contact})).run();
    let error = match asked {
        Ok(_) => return Ok(Reply::To(visit.path("/billing?done=billing"))),
        Err(Fault::Fields(faults)) => faults.into_iter().map(|fault| fault.to_string()).collect(),
        Err(fault) => return Err(fault),
    };
    let frame = visit.section("Billing", "/billing");
    Ok(page(422, &BillingPage { frame, billing: Billing { plan, contact }, error }))
}
