//! The log of acts: who did what, whether it still is what it was, and all of it to take away.

use askama::Template;
use serde::Deserialize;

use super::ask::{Listed, query_of};
use super::frame::Frame;
use super::visit::{Pages, Reply, Visit, page};
use crate::rest::Fault;

pub(super) const PAGES: Pages = &[
    ("GET", "/tenants/{tenant}/audit", list),
    ("POST", "/tenants/{tenant}/audit/verify", verify),
    ("GET", "/tenants/{tenant}/audit/export", export),
    ("GET", "/tenants/{tenant}/audit/{sequence}/proof", proof),
];

const ENTRIES: &str = "/v1/tenants/{tenant}/audit";
/// Items of a page.
const LISTED: &str = "50";

#[derive(Deserialize)]
struct Entry {
    sequence: u64,
    time_ms: i64,
    actor: String,
    action: String,
    target: String,
    outcome: String,
    request_id: String,
}

#[derive(Deserialize)]
struct Verification {
    anchored: u64,
    signed: u64,
    entries: u64,
    verdict: String,
    #[serde(default)]
    failed_from: Option<u64>,
    #[serde(default)]
    fault: String,
}

#[derive(Deserialize)]
struct Proof {
    proof: String,
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    entries: Vec<Entry>,
    next: String,
    actor: String,
    action: String,
    verification: Option<Verification>,
}

impl Verification {
    fn tone(&self) -> &'static str {
        match self.verdict.as_str() {
            "anchored" => "good",
            "unanchored" => "warn",
            _ => "bad",
        }
    }
}

fn list(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    audit_page(visit, None)
}

fn audit_page(visit: &Visit<'_>, verification: Option<Verification>) -> Result<Reply, Fault> {
    let [actor, action] = ["actor", "action"].map(|name| visit.query.text(name).to_owned());
    let ask = visit.get(ENTRIES).query("limit", LISTED).query("actor", &actor).query("action", &action);
    let found: Listed<Entry> = ask.query("cursor", visit.query.text("cursor")).json()?;
    let next = match found.next_cursor.as_str() {
        "" => String::new(),
        cursor => query_of([("actor", actor.as_str()), ("action", action.as_str()), ("cursor", cursor)]),
    };
    let frame = visit.section("Audit log", "/audit");
    Ok(page(200, &AuditPage { frame, entries: found.items, next, actor, action, verification }))
}

fn verify(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let found = visit.get("/v1/tenants/{tenant}/audit/verification").json()?;
    audit_page(visit, Some(found))
}

fn export(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let answer = visit.get("/v1/audit/export").run()?;
    Ok(Reply::File("audit.jsonl".to_owned(), "application/jsonl", answer.body.unwrap_or_default()))
}

fn proof(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let found: Proof = visit.get("/v1/tenants/{tenant}/audit/{sequence}/proof").json()?;
    let name = format!("entry-{}.tlog-proof", visit.name("sequence"));
    Ok(Reply::File(name, "text/plain; charset=utf-8", found.proof))
}
