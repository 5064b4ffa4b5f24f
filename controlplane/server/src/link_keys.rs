//! Link keys on their way: what the agent of one cluster says goes into the next configuration of the other, unread.
//!
//! Enters: a statement that the agent signed, keys in it as ciphertext for both clusters' lockd. Leaves: the same
//! statement, in the peer's configuration, whose agent checks who signed it. Refused: one in another cluster's name, for
//! a cluster that it has no links with, older than the one before, and more of anything than its bound.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::{Configuration, Link, LinkRole, LinkStatement, Member, SigningKey, with_link_keys};

use crate::configuration::sign_and_keep;
use crate::database::integer;
use crate::{ControlError, Refusal, directory};

/// Links that places in members' texts name are the cluster's, in that direction.
pub(crate) fn check_places(
    members: &BTreeMap<String, Member>,
    links: &BTreeMap<String, Link>,
    cluster: &str,
) -> Result<(), ControlError> {
    for (name, member) in members {
        let refuse = |fault| Err(ControlError::Member { name: name.clone(), fault });
        let Ok((_, uses)) = with_link_keys(&member.node, |_, _| vec![1]) else {
            return refuse("a place of a link key in its text is none; docs/agent.md has the three kinds");
        };
        let is_own = |link: &str, role| match (links.get(link), role) {
            (Some(link), LinkRole::Sender) => link.sender == cluster,
            (Some(link), LinkRole::Receiver) => link.receiver == cluster,
            (None, _) => false,
        };
        if !uses.keys().all(|(link, role)| is_own(link, *role)) {
            return refuse(
                "its text names a link that is not among the cluster's link_keys in that direction",
            );
        }
    }
    Ok(())
}

/// What other clusters' agents said to this one's.
pub(crate) fn statements(
    database: &Connection,
    cluster: &str,
    links: &BTreeMap<String, Link>,
) -> Result<BTreeMap<String, LinkStatement>, ControlError> {
    let peers: BTreeSet<&str> = links.values().map(|link| link.peer_of(cluster)).collect();
    let mut statements = BTreeMap::new();
    for peer in peers {
        let sql = "SELECT statement FROM link_statements WHERE cluster = ?1 AND peer = ?2";
        let text: Option<String> = database.query_row(sql, (peer, cluster), |row| row.get(0)).optional()?;
        if let Some(text) = text {
            statements.insert(peer.to_owned(), serde_json::from_str(&text).map_err(in_database)?);
        }
    }
    Ok(statements)
}

/// Keeps what the agent of `cluster` says, in place of what it said before, and gives it to the peer.
pub(crate) fn keep(
    database: &Connection,
    cluster: &str,
    statement: &LinkStatement,
    key: &SigningKey,
) -> Result<(), Refusal> {
    let said = statement.unverified().map_err(Refusal::LinkStatement)?;
    if said.cluster != cluster {
        return Err(Refusal::Field("cluster is not the agent's own"));
    }
    let configuration = configuration_of(database, cluster)?.ok_or(Refusal::Link)?;
    if said.peer == cluster
        || !configuration.link_keys.values().any(|link| link.peer_of(cluster) == said.peer)
    {
        return Err(Refusal::Link);
    }
    let text = serde_json::to_string(statement).expect("texts are JSON");
    let sql = "INSERT INTO link_statements (cluster, peer, made_at_ms, statement) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET made_at_ms = excluded.made_at_ms, statement = excluded.statement
        WHERE made_at_ms < excluded.made_at_ms";
    if database.execute(sql, (cluster, &said.peer, integer(said.made_at_ms), text))? == 0 {
        return Err(Refusal::OlderStatement);
    }
    let Some(peer) = configuration_of(database, &said.peer)? else { return Ok(()) };
    if peer.link_keys.values().any(|link| link.peer_of(&said.peer) == cluster) {
        let mut link_statements = peer.link_statements;
        link_statements.insert(cluster.to_owned(), statement.clone());
        let next = Configuration { version: peer.version + 1, link_statements, ..peer };
        sign_and_keep(database, &next, key).map_err(refusal)?;
    }
    Ok(())
}

fn configuration_of(database: &Connection, cluster: &str) -> Result<Option<Configuration>, Refusal> {
    let sql = "SELECT text FROM configurations WHERE cluster = ?1";
    let text: Option<String> = database.query_row(sql, (cluster,), |row| row.get(0)).optional()?;
    let read = text.map(|text| serde_json::from_str(&text).map_err(in_database)).transpose();
    read.map_err(refusal)
}

fn in_database(source: serde_json::Error) -> ControlError {
    ControlError::Json { path: directory::DATABASE.into(), source }
}

/// What the peer's configuration cannot hold is no fault of ours.
fn refusal(error: ControlError) -> Refusal {
    match error {
        ControlError::Database(error) => Refusal::Database(error),
        ControlError::Configuration(_) => Refusal::PeerFull,
        error => Refusal::Kept(error.to_string()),
    }
}
