//! Clusters as they are: versions, certificates, and what agents reported of each member.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use zen_control_api::{MemberReport, Outcome};

use crate::overview::{ClusterOverview, clusters_of, of_cluster};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};

const STATUS: &str = "/v1/tenants/{tenant}/status";
const CLUSTER_STATUS: &str = "/v1/tenants/{tenant}/clusters/{cluster}/status";

/// A cluster as it is.
#[derive(Serialize, ToSchema)]
struct ClusterStatus {
    /// Which one.
    cluster: String,
    /// Of its newest configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    /// Its agent, once it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentStatus>,
    /// What the agent reported last.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<ReportStatus>,
}

/// An agent as it is known.
#[derive(Serialize, ToSchema)]
struct AgentStatus {
    /// Of its newest certificate.
    generation: i64,
    /// When that ends, Unix ms.
    certificate_not_after_ms: i64,
    /// Its key seems to be in two places; it needs a new bundle.
    is_locked: bool,
}

/// A report.
#[derive(Serialize, ToSchema)]
struct ReportStatus {
    /// Unix ms.
    received_at_ms: i64,
    /// Of the agent's program.
    agent_version: String,
    /// The version that the agent has published last.
    configuration: u64,
    /// By name.
    members: BTreeMap<String, MemberStatus>,
}

/// A member as its agent sees it.
#[derive(Serialize, ToSchema)]
struct MemberStatus {
    /// `applied`, `rejected` or `unreachable`.
    outcome: &'static str,
    /// What it applied or rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When its certificate ends, Unix ms.
    certificate_not_after_ms: u64,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, STATUS, Operation::Read, list)
            .says("All clusters of the tenant as they are")
            .query(LIST_QUERY)
            .gives::<List<ClusterStatus>>(200),
        Route::new(Verb::Get, CLUSTER_STATUS, Operation::Read, get)
            .says("One cluster as it is")
            .gives::<ClusterStatus>(200),
    ]
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let page = Page::read(&call.query, "status")?;
    let names = clusters_of(unit.database, call.name("tenant"), &page.after, page.count + 1)?;
    let found: Vec<ClusterStatus> =
        names.into_iter().map(|name| status(unit, name)).collect::<Result<_, _>>()?;
    Ok(Answer::json(200, &page.list(found, "status", |status| status.cluster.clone(), |status| status)))
}

fn get(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    super::check_cluster(unit, call)?;
    Ok(Answer::json(200, &status(unit, call.name("cluster").to_owned())?))
}

fn status(unit: &Unit<'_>, cluster: String) -> Result<ClusterStatus, Fault> {
    Ok(of_cluster(unit.database, unit.trust_domain, cluster)?.into())
}

impl From<ClusterOverview> for ClusterStatus {
    fn from(overview: ClusterOverview) -> Self {
        let is_locked = overview.is_locked;
        let agent = overview.agent.map(|(generation, certificate_not_after_ms)| AgentStatus {
            generation,
            certificate_not_after_ms,
            is_locked,
        });
        let report = overview.report.map(|(received_at_ms, report)| ReportStatus {
            received_at_ms,
            agent_version: report.agent_version,
            configuration: report.configuration,
            members: report.members.into_iter().map(|(name, member)| (name, member.into())).collect(),
        });
        Self { cluster: overview.cluster, version: overview.version, agent, report }
    }
}

impl From<MemberReport> for MemberStatus {
    fn from(report: MemberReport) -> Self {
        let (outcome, version, reason) = match report.outcome {
            Outcome::Applied { version } => ("applied", Some(version), None),
            Outcome::Rejected { version, reason } => ("rejected", Some(version), Some(reason)),
            Outcome::Unreachable { reason } => ("unreachable", None, Some(reason)),
        };
        Self { outcome, version, reason, certificate_not_after_ms: report.certificate_not_after_ms }
    }
}
