//! What agents wait for, as one look at the database has it: versions of all clusters, and who may not speak any more.
//!
//! One such look at each change serves everybody who waits: two thousand of them ask a table, not the database.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use zen_identity::DenyList;

use crate::{AgentSession, Refusal, SessionKey, deliveries, deny};

/// One look.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// How many changes there were before it.
    pub(crate) changes: i64,
    /// Who is refused in handshakes.
    pub(crate) deny_list: DenyList,
    /// When the next denial ends by itself, Unix ms.
    pub(crate) next_end_ms: Option<u64>,
    /// Newest versions by cluster.
    versions: HashMap<String, i64>,
    denied: HashSet<String>,
    /// Clusters with an order that their agents do not have.
    ordered: HashSet<String>,
    /// Identities that are locked, or enrolled more than once.
    identities: HashMap<String, Enrolled>,
}

#[derive(Clone, Copy, Debug)]
struct Enrolled {
    generation: i64,
    is_locked: bool,
}

/// How many changes there were until now.
pub(crate) fn changes(database: &Connection) -> rusqlite::Result<i64> {
    database.prepare_cached("SELECT changes FROM watched")?.query_row((), |row| row.get(0))
}

impl News {
    /// All of it as it is at one moment.
    pub(crate) fn read(database: &Connection, now_ms: u64) -> rusqlite::Result<Self> {
        let transaction = database.unchecked_transaction()?;
        let (deny_list, next_end_ms) = deny::deny_list(&transaction, now_ms)?;
        let mut news = Self { changes: changes(&transaction)?, deny_list, next_end_ms, ..Self::default() };
        let mut statement = transaction.prepare_cached("SELECT cluster, version FROM configurations")?;
        let versions = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        news.versions = versions.collect::<Result<_, _>>()?;
        news.denied = deny::denied_keys(&transaction, now_ms)?;
        news.ordered = deliveries::clusters_with_orders(&transaction, now_ms)?;
        let sql = "SELECT spiffe_id, enrolled_generation, locked_at_ms IS NOT NULL FROM identities
            WHERE enrolled_generation > 1 OR locked_at_ms IS NOT NULL";
        let mut statement = transaction.prepare_cached(sql)?;
        let identities = statement.query_map((), |row| {
            Ok((row.get(0)?, Enrolled { generation: row.get(1)?, is_locked: row.get(2)? }))
        })?;
        news.identities = identities.collect::<Result<_, _>>()?;
        Ok(news)
    }

    /// Whether a cluster has a configuration that is newer than `after`.
    pub(crate) fn is_newer(&self, cluster: &str, after: i64) -> bool {
        self.versions.get(cluster).is_some_and(|version| *version > after)
    }

    /// Whether there is an order for the cluster's agent.
    pub(crate) fn has_order(&self, cluster: &str) -> bool {
        self.ordered.contains(cluster)
    }

    /// Whether an agent that was let in before may still speak.
    pub(crate) fn check(&self, key: &SessionKey, session: &AgentSession) -> Result<(), Refusal> {
        if !self.denied.is_empty() && deny::keys_of(key).iter().any(|key| self.denied.contains(key)) {
            return Err(Refusal::Denied);
        }
        match self.identities.get(key.id.as_str()) {
            Some(enrolled) if enrolled.is_locked => Err(Refusal::Locked),
            Some(enrolled) if session.generation < enrolled.generation => Err(Refusal::Superseded),
            _ => Ok(()),
        }
    }
}
