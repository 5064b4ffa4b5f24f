//! Deliveries, as nodes reported them: metadata, attempts, verdicts; and dead letters, with their replay.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use serde::Deserialize;
use serde_json::json;

use super::ask::{Listed, query_of};
use super::frame::Frame;
use super::visit::{Pages, Reply, Visit, page};
use crate::rest::{Fault, Operation, Verb};

pub(super) const PAGES: Pages = &[
    ("GET", "/tenants/{tenant}/deliveries", deliveries),
    ("GET", "/tenants/{tenant}/dead-letters", letters),
    ("POST", "/tenants/{tenant}/dead-letters", replay),
];

const DELIVERIES: &str = "/v1/tenants/{tenant}/deliveries";
const DEAD_LETTERS: &str = "/v1/tenants/{tenant}/dead-letters";
const REPLAY: &str = "/v1/tenants/{tenant}/dead-letters/replay";
/// Items of a page.
const LISTED: &str = "50";
const FILTERS: [(&str, &str); 4] =
    [("endpoint", "Endpoint"), ("target", "Destination"), ("verdict", "Verdict"), ("event", "Event")];

#[derive(Deserialize)]
struct Delivery {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    member: String,
    #[serde(default)]
    time_ms: i64,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    endpoint: Option<String>,
    #[serde(default)]
    target: String,
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    attempts: u32,
}

#[derive(Deserialize)]
struct Letter {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    member: String,
    id: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    target: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    died_at_ms: i64,
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage {
    frame: Frame,
    deliveries: Vec<Delivery>,
    filters: Vec<(&'static str, &'static str, String)>,
    next: String,
}

#[derive(Template)]
#[template(path = "letters.html")]
struct LettersPage {
    frame: Frame,
    letters: Vec<Letter>,
    cluster: String,
    next: String,
    error: String,
    may_replay: bool,
}

impl Delivery {
    fn tone(&self) -> &'static str {
        match self.verdict.as_str() {
            "delivered" => "good",
            "dead" => "bad",
            _ => "warn",
        }
    }
}

fn deliveries(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let mut ask = visit.get(DELIVERIES).query("limit", LISTED).query("cursor", visit.query.text("cursor"));
    let mut filters = Vec::new();
    for (name, label) in FILTERS {
        ask = ask.query(name, visit.query.text(name));
        filters.push((name, label, visit.query.text(name).to_owned()));
    }
    let found: Listed<Delivery> = ask.json()?;
    let fields = filters.iter().map(|(name, _, value)| (*name, value.as_str()));
    let next = match found.next_cursor.as_str() {
        "" => String::new(),
        cursor => query_of(fields.chain([("cursor", cursor)])),
    };
    let frame = visit.section("Deliveries", "/deliveries");
    Ok(page(200, &DeliveriesPage { frame, deliveries: found.items, filters, next }))
}

fn letters(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    letters_page(visit, 200, String::new())
}

fn letters_page(visit: &Visit<'_>, status: u16, error: String) -> Result<Reply, Fault> {
    let cluster = visit.query.text("cluster").to_owned();
    let ask = visit.get(DEAD_LETTERS).query("limit", LISTED).query("cluster", &cluster);
    let found: Listed<Letter> = ask.query("cursor", visit.query.text("cursor")).json()?;
    let next = match found.next_cursor.as_str() {
        "" => String::new(),
        cursor => query_of([("cluster", cluster.as_str()), ("cursor", cursor)]),
    };
    let frame = visit.section("Dead letters", "/dead-letters");
    let may_replay = visit.may(Operation::Replay);
    Ok(page(status, &LettersPage { frame, letters: found.items, cluster, next, error, may_replay }))
}

/// One order for each node whose letters were chosen.
fn replay(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let mut orders: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for letter in visit.form.all("letter") {
        let mut parts = letter.splitn(3, '/');
        let (Some(cluster), Some(member), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
            return letters_page(
                visit,
                422,
                "A letter is named by its cluster, its node and its id.".to_owned(),
            );
        };
        orders.entry((cluster, member)).or_default().insert(id);
    }
    if orders.is_empty() {
        return letters_page(visit, 422, "Choose at least one letter.".to_owned());
    }
    for ((cluster, member), letters) in orders {
        let body = json!({"cluster": cluster, "member": member, "letters": letters});
        match visit.ask(Verb::Post, REPLAY).body(body).run() {
            Ok(_) => {}
            Err(Fault::Fields(faults)) => {
                let error = faults.into_iter().map(|fault| fault.to_string()).collect();
                return letters_page(visit, 422, error);
            }
            Err(Fault::Conflict(detail)) => return letters_page(visit, 409, detail.to_owned()),
            Err(fault) => return Err(fault),
        }
    }
    Ok(Reply::To(visit.path("/dead-letters?done=replayed")))
}
