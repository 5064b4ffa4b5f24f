//! Clusters as they are: identities, certificates, versions, what agents said of each member; bundles, and who is denied.

use std::collections::BTreeMap;

use askama::Template;
use serde::Deserialize;
use serde_json::json;

use super::ask::{Listed, query_of};
use super::frame::Frame;
use super::now;
use super::shown::span;
use super::visit::{Pages, Reply, Visit, page};
use crate::rest::{Fault, Operation, Verb};

pub(super) const PAGES: Pages = &[
    ("GET", "/tenants/{tenant}/clusters", list),
    ("GET", "/tenants/{tenant}/clusters/{cluster}", one),
    ("POST", "/tenants/{tenant}/clusters/{cluster}/bundles", make_bundle),
    ("POST", "/tenants/{tenant}/clusters/{cluster}/bundles/{bundle}/revoke", revoke_bundle),
    ("GET", "/tenants/{tenant}/denials", denials),
    ("POST", "/tenants/{tenant}/denials", deny),
    ("POST", "/tenants/{tenant}/denials/{denial}/delete", allow),
];

const BUNDLES: &str = "/v1/tenants/{tenant}/clusters/{cluster}/bundles";
const DENIALS: &str = "/v1/denials";
/// Items of a page.
const LISTED: &str = "50";
/// From this much life on a certificate is an alarm, ms: it should have been renewed long before.
const SHORT_LIFE_MS: i64 = 9 * 3600 * 1000;
/// An agent that said nothing for so long is not heard, ms.
const SILENCE_MS: i64 = 10 * 60 * 1000;

#[derive(Deserialize)]
pub(super) struct ClusterStatus {
    pub(super) cluster: String,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    agent: Option<Agent>,
    #[serde(default)]
    report: Option<Report>,
}

#[derive(Deserialize)]
struct Agent {
    generation: i64,
    certificate_not_after_ms: i64,
    is_locked: bool,
}

#[derive(Deserialize)]
struct Report {
    received_at_ms: i64,
    agent_version: String,
    configuration: i64,
    members: BTreeMap<String, MemberStatus>,
}

#[derive(Deserialize)]
struct MemberStatus {
    outcome: String,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    reason: String,
    certificate_not_after_ms: i64,
}

/// How a cluster is, in a word and a sentence.
pub(super) struct Health {
    /// Class of the badge.
    pub(super) tone: &'static str,
    pub(super) word: &'static str,
    pub(super) says: String,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(rename = "bundle_id")]
    id: String,
    state: String,
    expires_at_ms: i64,
    #[serde(default)]
    used_from: String,
}

#[derive(Deserialize)]
struct NewBundle {
    bundle_id: String,
    expires_at_ms: i64,
    text: String,
}

#[derive(Deserialize)]
struct Denial {
    #[serde(rename = "denial_id")]
    id: String,
    #[serde(default)]
    spiffe_id: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    spki_sha256: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    until_ms: i64,
}

#[derive(Template)]
#[template(path = "clusters.html")]
struct ListPage {
    frame: Frame,
    clusters: Vec<(ClusterStatus, Health)>,
    next: String,
    may_manage: bool,
}

#[derive(Template)]
#[template(path = "cluster.html")]
struct ClusterPage {
    frame: Frame,
    status: ClusterStatus,
    health: Health,
    trust_domain: String,
    bundles: Vec<Bundle>,
    next: String,
    urls: String,
    life: String,
    errors: Vec<String>,
}

#[derive(Template)]
#[template(path = "bundle.html")]
struct BundlePage {
    frame: Frame,
    cluster: String,
    bundle: NewBundle,
}

#[derive(Template)]
#[template(path = "denials.html")]
struct DenialsPage {
    frame: Frame,
    denials: Vec<Denial>,
    next: String,
    /// What was typed: by what, which one, why.
    typed: [String; 3],
    error: String,
    may_deny: bool,
    is_foreign: bool,
}

impl ClusterStatus {
    pub(super) fn health(&self) -> Health {
        let health = |tone, word, says: String| Health { tone, word, says };
        let Some(agent) = &self.agent else {
            return health("", "No agent", "A bundle lets its agent in.".to_owned());
        };
        if agent.is_locked {
            return health(
                "bad",
                "Locked",
                "Its key seems to be in two places: it needs a new bundle.".to_owned(),
            );
        }
        let left = agent.certificate_not_after_ms - now();
        if left <= 0 {
            return health("bad", "Over", "The agent's certificate has ended.".to_owned());
        }
        let Some(report) = &self.report else {
            return health("warn", "Silent", "The agent is in and has said nothing yet.".to_owned());
        };
        let failed = report.members.values().filter(|member| member.outcome != "applied").count();
        if failed > 0 {
            return health(
                "bad",
                "Failing",
                format!("{failed} of {} members did not apply it.", report.members.len()),
            );
        }
        if left < SHORT_LIFE_MS {
            return health(
                "bad",
                "Ending",
                format!("The agent's certificate ends {}.", span(agent.certificate_not_after_ms)),
            );
        }
        if now() - report.received_at_ms > SILENCE_MS {
            return health(
                "warn",
                "Silent",
                format!("The agent spoke last {}.", span(report.received_at_ms)),
            );
        }
        if self.version.is_some_and(|version| version != report.configuration) {
            return health(
                "warn",
                "Behind",
                format!("Version {} is on its way.", self.version.unwrap_or_default()),
            );
        }
        health(
            "good",
            "Healthy",
            format!("{} members, version {}.", report.members.len(), report.configuration),
        )
    }
}

impl MemberStatus {
    fn tone(&self) -> &'static str {
        match self.outcome.as_str() {
            "applied" => "good",
            "unreachable" => "warn",
            _ => "bad",
        }
    }
}

impl ClusterPage {
    /// The form of denials, filled in: the member's name is what the agent says.
    fn denial(&self, member: &str) -> String {
        let id = format!("spiffe://{}/{}/{member}", self.trust_domain, self.status.cluster);
        format!("/tenants/{}/denials{}", self.frame.tenant, query_of([("whom", id.as_str())]))
    }
}

fn list(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let ask = visit.get("/v1/tenants/{tenant}/status").query("limit", LISTED);
    let found: Listed<ClusterStatus> = ask.query("cursor", visit.query.text("cursor")).json()?;
    let clusters = found.items.into_iter().map(|status| {
        let health = status.health();
        (status, health)
    });
    Ok(page(
        200,
        &ListPage {
            frame: visit.section("Clusters", "/clusters"),
            clusters: clusters.collect(),
            next: query_of([("cursor", found.next_cursor.as_str())]),
            may_manage: visit.may(Operation::Manage),
        },
    ))
}

fn one(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    cluster_page(visit, 200, Vec::new())
}

fn cluster_page(visit: &Visit<'_>, status: u16, errors: Vec<String>) -> Result<Reply, Fault> {
    let found: ClusterStatus = visit.get("/v1/tenants/{tenant}/clusters/{cluster}/status").json()?;
    let ask = visit.get(BUNDLES).query("limit", LISTED).query("cursor", visit.query.text("cursor"));
    let bundles: Listed<Bundle> = ask.json()?;
    let health = found.health();
    Ok(page(
        status,
        &ClusterPage {
            frame: visit.section(format!("Cluster {}", found.cluster), "/clusters"),
            health,
            trust_domain: visit.dashboard.trust_domain().to_owned(),
            status: found,
            bundles: bundles.items,
            next: query_of([("cursor", bundles.next_cursor.as_str())]),
            urls: visit.form.text("urls").to_owned(),
            life: visit.form.text("life").to_owned(),
            errors,
        },
    ))
}

/// The bundle's text is in this answer and nowhere else, so it is no redirection.
fn make_bundle(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let urls: Vec<&str> =
        visit.form.text("urls").lines().map(str::trim).filter(|url| !url.is_empty()).collect();
    let life = visit.form.text("life");
    let minutes: Result<u64, _> = if life.is_empty() { Ok(60) } else { life.parse() };
    let Ok(minutes) = minutes else {
        return cluster_page(visit, 422, vec!["Good for: a number of minutes.".to_owned()]);
    };
    let body = json!({"urls": urls, "life_seconds": minutes.saturating_mul(60)});
    match visit.ask(Verb::Post, BUNDLES).body(body).json() {
        Ok(bundle) => {
            let cluster = visit.name("cluster").to_owned();
            let frame = visit.section(format!("A bundle for {cluster}"), "/clusters");
            Ok(page(200, &BundlePage { frame, cluster, bundle }))
        }
        Err(Fault::Fields(faults)) => {
            cluster_page(visit, 422, faults.into_iter().map(|fault| fault.to_string()).collect())
        }
        Err(fault) => Err(fault),
    }
}

fn revoke_bundle(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    visit.ask(Verb::Delete, "/v1/tenants/{tenant}/clusters/{cluster}/bundles/{bundle}").run()?;
    Ok(Reply::To(visit.path(&format!("/clusters/{}?done=revoked", visit.name("cluster")))))
}

fn denials(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let typed = ["by", "whom", "reason"].map(|name| visit.query.text(name).to_owned());
    denials_page(visit, 200, typed, String::new())
}

/// Denials are of the whole installation: who has no role in its first tenant is told so.
fn denials_page(visit: &Visit<'_>, status: u16, typed: [String; 3], error: String) -> Result<Reply, Fault> {
    let ask = visit.get(DENIALS).query("limit", LISTED).query("cursor", visit.query.text("cursor"));
    let (found, is_foreign) = match ask.json() {
        Ok(found) => (found, false),
        Err(Fault::Role(_) | Fault::NotFound(_)) => {
            (Listed { items: Vec::new(), next_cursor: String::new() }, true)
        }
        Err(fault) => return Err(fault),
    };
    let next = query_of([("cursor", found.next_cursor.as_str())]);
    let frame = visit.section("Denials", "/denials");
    let may_deny = visit.may(Operation::Deny) && !is_foreign;
    Ok(page(status, &DenialsPage { frame, denials: found.items, next, typed, error, may_deny, is_foreign }))
}

fn deny(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    let typed = ["by", "whom", "reason"].map(|name| visit.form.text(name).to_owned());
    let [by, whom, reason] = &typed;
    let by = match by.as_str() {
        by @ ("serial" | "spki_sha256") => by,
        _ => "spiffe_id",
    };
    let mut body = json!({by: whom});
    if !reason.is_empty() {
        body["reason"] = json!(reason);
    }
    match visit.ask(Verb::Post, DENIALS).body(body).run() {
        Ok(_) => Ok(Reply::To(visit.path("/denials?done=denied"))),
        Err(Fault::Fields(faults)) => {
            let error = faults.into_iter().map(|fault| fault.to_string()).collect();
            denials_page(visit, 422, typed, error)
        }
        Err(Fault::Conflict(detail)) => denials_page(visit, 409, typed, detail.to_owned()),
        Err(fault) => Err(fault),
    }
}

fn allow(visit: &mut Visit<'_>) -> Result<Reply, Fault> {
    visit.check_tenant()?;
    visit.ask(Verb::Delete, "/v1/denials/{denial}").run()?;
    Ok(Reply::To(visit.path("/denials?done=allowed")))
}
