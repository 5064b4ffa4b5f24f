//! What is known of clusters: configurations, certificates, and what agents reported last.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::StatusReport;

use crate::database::integer;
use crate::metrics::Kept;
use crate::{ControlError, Database};

/// One cluster.
#[derive(Clone, Debug)]
pub struct ClusterOverview {
    /// Which one.
    pub cluster: String,
    /// Version of its newest configuration.
    pub version: Option<i64>,
    /// The agent's newest certificate: generation and end, Unix ms.
    pub agent: Option<(i64, i64)>,
    /// Whether the agent's identity is locked.
    pub is_locked: bool,
    /// What the agent reported last, and when, Unix ms.
    pub report: Option<(i64, StatusReport)>,
}

/// Keeps an agent's report in place of the one before.
pub(crate) fn keep_report(
    database: &Connection,
    cluster: &str,
    report: &StatusReport,
    now_ms: u64,
) -> rusqlite::Result<()> {
    let text = serde_json::to_string(report).expect("texts and numbers are JSON");
    let sql = "INSERT INTO statuses (cluster, received_at_ms, report) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET received_at_ms = excluded.received_at_ms, report = excluded.report";
    database.execute(sql, (cluster, integer(now_ms), text)).map(|_| ())
}

/// Numbers of clusters and identities.
pub(crate) fn kept(database: &Connection) -> rusqlite::Result<Kept> {
    let count = |sql: &str| -> rusqlite::Result<u64> {
        let count: i64 = database.prepare_cached(sql)?.query_row((), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    };
    Ok(Kept {
        clusters: count("SELECT count(*) FROM configurations")?,
        behind: count(
            "SELECT count(*) FROM configurations c LEFT JOIN statuses s USING (cluster)
                WHERE s.report IS NULL OR s.report ->> 'configuration' < c.version",
        )?,
        locked: count("SELECT count(*) FROM identities WHERE locked_at_ms IS NOT NULL")?,
        changes: count("SELECT changes FROM watched")?,
        entries: count("SELECT coalesce(max(sequence) + 1, 0) FROM audit_entries")?,
        signed: count("SELECT coalesce(max(size), 0) FROM audit_checkpoints")?,
        cosigned: count("SELECT coalesce(max(size), 0) FROM audit_cosignatures")?,
    })
}

/// All clusters that have a bundle, a configuration or a report.
pub fn overview(database: &Database) -> Result<Vec<ClusterOverview>, ControlError> {
    let sql = "SELECT cluster FROM bundles UNION SELECT cluster FROM configurations UNION SELECT cluster FROM statuses";
    let mut statement = database.prepare(sql)?;
    let clusters: BTreeSet<String> = statement.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?;
    let owner = crate::database::owner(database)?;
    clusters.into_iter().map(|cluster| of_cluster(database, &owner.trust_domain, cluster)).collect()
}

/// At most `count` clusters of a tenant, by name, after this one; what commands made is the first tenant's.
pub(crate) fn clusters_of(
    database: &Connection,
    tenant: &str,
    after: &str,
    count: usize,
) -> rusqlite::Result<Vec<String>> {
    let sql = "WITH named AS (SELECT name, tenant FROM objects WHERE kind = 'clusters'),
        made AS (SELECT cluster FROM bundles UNION SELECT cluster FROM configurations UNION SELECT cluster FROM statuses)
        SELECT name FROM named WHERE tenant = ?1 AND name > ?2
        UNION SELECT cluster FROM made WHERE ?1 = (SELECT tenant FROM settings) AND cluster > ?2
            AND cluster NOT IN (SELECT name FROM named)
        ORDER BY 1 LIMIT ?3";
    let mut statement = database.prepare_cached(sql)?;
    statement.query_map((tenant, after, integer(count as u64)), |row| row.get(0))?.collect()
}

/// What is known of one cluster.
pub(crate) fn of_cluster(
    database: &Connection,
    trust_domain: &str,
    cluster: String,
) -> Result<ClusterOverview, ControlError> {
    let sql = "SELECT version FROM configurations WHERE cluster = ?1";
    let version = database.query_row(sql, (&cluster,), |row| row.get(0)).optional()?;
    let sql = "SELECT c.generation, c.not_after_ms, i.locked_at_ms IS NOT NULL
        FROM identities i JOIN certificates c USING (spiffe_id, generation) WHERE i.spiffe_id = ?1";
    let id = format!("spiffe://{trust_domain}/agent/{cluster}");
    let identity: Option<(i64, i64, bool)> =
        database.query_row(sql, (id,), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let sql = "SELECT received_at_ms, report FROM statuses WHERE cluster = ?1";
    let report: Option<(i64, String)> =
        database.query_row(sql, (&cluster,), |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let report = report.and_then(|(at, text)| Some((at, serde_json::from_str(&text).ok()?)));
    Ok(ClusterOverview {
        cluster,
        version,
        agent: identity.map(|(generation, not_after_ms, _)| (generation, not_after_ms)),
        is_locked: identity.is_some_and(|(_, _, is_locked)| is_locked),
        report,
    })
}
