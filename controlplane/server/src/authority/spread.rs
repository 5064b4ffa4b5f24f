//! Who does not know the newest root yet: each agent that could come back, and each node that has not said it runs by it.

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::{CaPin, Outcome, StatusReport};

use super::ledger::{Kind, Ledger, Root};
use super::rotation::Spread;
use super::{LEAF_LIFE_MS, pins_of};
use crate::database::integer;
use crate::deny::hex;
use crate::recovery::RECOVERY_WITHIN_MS;
use crate::{ControlError, Directory, session};

/// Somebody who does not know the newest root, and what he would lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// Which cluster.
    pub cluster: String,
    /// Which of its nodes; none for the agent itself.
    pub member: Option<String>,
    /// What is known instead.
    pub knows: String,
}

/// How far a change of the root is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSpread {
    /// Who does not know the newest root.
    pub stragglers: Vec<Straggler>,
    /// Certificates that are good and lead to the root before.
    pub live_leaves: u64,
    /// Whether the issuing CA that signs is under the newest root.
    pub is_signing: bool,
}

/// An agent that could come back.
struct Known {
    spiffe_id: String,
    not_after_ms: i64,
    is_seen: bool,
}

impl RootSpread {
    pub(super) fn spread(&self) -> Spread {
        if self.stragglers.is_empty() { Spread::Everywhere } else { Spread::Partly }
    }
}

/// Remembers from which version on a cluster's configurations have a root.
pub(crate) fn note_roots(
    database: &Connection,
    cluster: &str,
    (version, trust_bundle): (u64, &str),
) -> rusqlite::Result<()> {
    let sql =
        "INSERT INTO published_roots (cluster, root, version) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let mut statement = database.prepare(sql)?;
    for pin in pins_of(trust_bundle).unwrap_or_default() {
        statement.execute((cluster, hex(&pin.0), integer(version)))?;
    }
    Ok(())
}

/// Whether some cluster's configuration never had the newest root: whoever added it was killed before he published it.
pub(super) fn is_unpublished(
    database: &Connection,
    ledger: &Ledger,
    directory: &Directory,
) -> Result<bool, ControlError> {
    let root = newest_pin(ledger, directory)?;
    let sql = "SELECT EXISTS (SELECT 1 FROM configurations c WHERE NOT EXISTS
        (SELECT 1 FROM published_roots p WHERE p.cluster = c.cluster AND p.root = ?1))";
    Ok(database.query_row(sql, (hex(&root.0),), |row| row.get(0))?)
}

fn newest_pin(ledger: &Ledger, directory: &Directory) -> Result<CaPin, ControlError> {
    let name = Kind::Root.certificate(ledger.newest_root().number);
    let pin = pins_of(&directory.read(&name)?).and_then(|pins| pins.first().copied());
    pin.ok_or_else(|| super::no_certificate(directory, &name))
}

/// How far the change of the root is; none if there is one root.
pub fn root_spread(
    directory: &Directory,
    database: &Connection,
    now_ms: u64,
) -> Result<Option<RootSpread>, ControlError> {
    of_ledger(&Ledger::read(directory)?, directory, database, now_ms)
}

pub(super) fn of_ledger(
    ledger: &Ledger,
    directory: &Directory,
    database: &Connection,
    now_ms: u64,
) -> Result<Option<RootSpread>, ControlError> {
    let [old, newest] = ledger.roots[..] else { return Ok(None) };
    let pin = newest_pin(ledger, directory)?;
    let mut live_leaves = 0;
    for issuing in ledger.issuing.iter().filter(|issuing| issuing.root == old.number) {
        let text = directory.read(&Kind::Issuing.certificate(issuing.number))?;
        live_leaves += leaves_under(database, &text, now_ms)?;
    }
    let stragglers = stragglers(database, pin, &newest, now_ms)?;
    let is_signing = ledger.active().root == newest.number;
    Ok(Some(RootSpread { stragglers, live_leaves, is_signing }))
}

/// Good certificates whose chain ends with this issuing CA.
fn leaves_under(database: &Connection, issuing: &str, now_ms: u64) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM certificates
        WHERE not_after_ms > ?1 AND substr(chain, -length(?2)) = ?2";
    let count: i64 = database.query_row(sql, (integer(now_ms), issuing), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn stragglers(
    database: &Connection,
    root: CaPin,
    newest: &Root,
    now_ms: u64,
) -> Result<Vec<Straggler>, ControlError> {
    let sql = "SELECT i.spiffe_id, c.not_after_ms, c.seen_at_ms IS NOT NULL
        FROM identities i JOIN certificates c USING (spiffe_id, generation)
        WHERE i.binding_key IS NOT NULL AND i.locked_at_ms IS NULL AND c.not_after_ms > ?1 ORDER BY i.spiffe_id";
    let mut statement = database.prepare(sql)?;
    let since = integer(now_ms.saturating_sub(RECOVERY_WITHIN_MS));
    let agents = statement.query_map((since,), |row| {
        Ok(Known { spiffe_id: row.get(0)?, not_after_ms: row.get(1)?, is_seen: row.get(2)? })
    })?;
    let mut found = Vec::new();
    for agent in agents {
        let agent = agent?;
        let Some(cluster) = session::cluster_of_text(&agent.spiffe_id) else { continue };
        of_cluster(database, root, (&cluster, &agent, newest), &mut found)?;
    }
    Ok(found)
}

fn of_cluster(
    database: &Connection,
    root: CaPin,
    (cluster, agent, newest): (&str, &Known, &Root),
    found: &mut Vec<Straggler>,
) -> Result<(), ControlError> {
    let mut say = |member: Option<&str>, knows: String| {
        found.push(Straggler { cluster: cluster.to_owned(), member: member.map(str::to_owned), knows });
    };
    let sql = "SELECT version FROM published_roots WHERE cluster = ?1 AND root = ?2";
    let version: Option<i64> =
        database.query_row(sql, (cluster, hex(&root.0)), |row| row.get(0)).optional()?;
    let Some(version) = version else {
        let sql = "SELECT EXISTS (SELECT 1 FROM configurations WHERE cluster = ?1)";
        if database.query_row(sql, (cluster,), |row| row.get(0))? {
            say(None, "has a configuration without it".to_owned());
            return Ok(());
        }
        // Without a configuration it knows the roots that came with its certificate.
        let issued = agent.not_after_ms - integer(LEAF_LIFE_MS);
        if !agent.is_seen || issued < integer(newest.prepared_at_ms) {
            say(None, "has a certificate from before".to_owned());
        }
        return Ok(());
    };
    let sql = "SELECT report FROM statuses WHERE cluster = ?1";
    let report: Option<String> = database.query_row(sql, (cluster,), |row| row.get(0)).optional()?;
    let report: Option<StatusReport> = report.and_then(|text| serde_json::from_str(&text).ok());
    let Some(report) = report else {
        say(None, "has never reported".to_owned());
        return Ok(());
    };
    if integer(report.configuration) < version {
        say(None, format!("has version {}, {version} is needed", report.configuration));
        return Ok(());
    }
    let mut statement = database.prepare("SELECT name FROM members WHERE cluster = ?1 ORDER BY name")?;
    for name in statement.query_map((cluster,), |row| row.get::<_, String>(0))? {
        let name = name?;
        match report.members.get(&name).map(|member| &member.outcome) {
            Some(Outcome::Applied { version: applied }) if integer(*applied) >= version => {}
            Some(Outcome::Applied { version: applied }) => {
                say(Some(&name), format!("runs version {applied}, {version} is needed"));
            }
            Some(Outcome::Rejected { .. }) => say(Some(&name), "has rejected its configuration".to_owned()),
            Some(Outcome::Unreachable { .. }) => say(Some(&name), "cannot be asked".to_owned()),
            None => say(Some(&name), "is not reported".to_owned()),
        }
    }
    Ok(())
}
