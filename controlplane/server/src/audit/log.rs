//! The log itself: one more entry, and the hashes that it completes.

use nix::unistd::{Uid, User};
use rusqlite::{Connection, OptionalExtension as _};
use zen_audit::{Entry, Frontier, Hash, Node, Nodes, Outcome};
use zen_control_api::Hex16;
use zen_identity::{SpiffeId, control_id};

use crate::database::{integer, owner};
use crate::listener::now_ms;
use crate::{ControlError, store};

/// What somebody did, or was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act<'a> {
    /// Whose matter it is; empty if nobody's alone.
    pub(crate) tenant: &'a str,
    /// A SPIFFE id, `issuer|subject`, `person:NAME`, `bundle:ID` or `cli:USER`.
    pub(crate) actor: &'a str,
    /// `noun.verb`, the noun as in the API.
    pub(crate) action: &'a str,
    /// The path of the API without `/v1/`, whether or not the API has it.
    pub(crate) target: &'a str,
    pub(crate) outcome: Outcome,
    /// The same as in the log of the process.
    pub(crate) request_id: &'a str,
}

/// Hashes of complete subtrees as the database has them.
pub(crate) struct Stored<'a>(pub(crate) &'a Connection);

impl Nodes for Stored<'_> {
    type Error = ControlError;

    fn hash(&self, node: Node) -> Result<Hash, ControlError> {
        let sql = "SELECT hash FROM audit_nodes WHERE level = ?1 AND idx = ?2";
        let mut statement = self.0.prepare_cached(sql)?;
        let found = statement.query_row((node.level, integer(node.index)), |row| row.get(0)).optional()?;
        found.map(Hash).ok_or(ControlError::AuditDamaged)
    }
}

/// Adds an entry in the transaction of what it tells of; its sequence. If this fails, the caller does not commit.
///
/// # Panics
///
/// Outside of a transaction.
pub(crate) fn append(transaction: &Connection, act: &Act<'_>, now_ms: u64) -> Result<u64, ControlError> {
    assert!(!transaction.is_autocommit(), "an act and its entry are one transaction");
    let (sequence, previous) = end(transaction)?;
    let entry = Entry {
        sequence,
        time_ms: now_ms,
        tenant: act.tenant.to_owned(),
        actor: act.actor.to_owned(),
        action: act.action.to_owned(),
        target: act.target.to_owned(),
        outcome: act.outcome,
        request_id: act.request_id.to_owned(),
        previous,
    };
    keep(transaction, sequence, &entry.bytes()?)?;
    Ok(sequence)
}

/// Adds an entry as another database has its bytes, if it continues this log.
pub(super) fn append_bytes(transaction: &Connection, bytes: &[u8]) -> Result<(), ControlError> {
    let (sequence, previous) = end(transaction)?;
    Entry::read(bytes, sequence, &previous)?;
    keep(transaction, sequence, bytes)
}

/// The next sequence, and the hash of the last entry.
fn end(database: &Connection) -> Result<(u64, Hash), ControlError> {
    let sequence = size(database)?;
    let previous = match sequence.checked_sub(1) {
        Some(index) => Stored(database).hash(Node { level: 0, index })?,
        None => Entry::before_the_first(),
    };
    Ok((sequence, previous))
}

fn keep(transaction: &Connection, sequence: u64, bytes: &[u8]) -> Result<(), ControlError> {
    let mut frontier = Frontier::load(&Stored(transaction), sequence)?;
    let sql = "INSERT INTO audit_entries (sequence, bytes) VALUES (?1, ?2)";
    transaction.prepare_cached(sql)?.execute((integer(sequence), bytes))?;
    let mut completed = Vec::new();
    frontier.append(Entry::leaf(bytes), |node, hash| completed.push((node, hash)));
    let mut statement =
        transaction.prepare_cached("INSERT INTO audit_nodes (level, idx, hash) VALUES (?1, ?2, ?3)")?;
    for (node, hash) in completed {
        statement.execute((node.level, integer(node.index), hash.0)).map_err(|error| {
            // There are hashes of entries that are not there.
            let is_double = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
            if is_double { ControlError::AuditDamaged } else { error.into() }
        })?;
    }
    Ok(())
}

/// How many entries there are.
pub(crate) fn size(database: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(sequence) + 1, 0) FROM audit_entries";
    database.prepare_cached(sql)?.query_row((), |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// Adds what whoever runs this command did, by the clock of this process.
pub(crate) fn append_command(
    transaction: &Connection,
    (tenant, action, target): (&str, &str, &str),
) -> Result<u64, ControlError> {
    let (actor, request_id) = (command_actor(), new_request_id());
    let outcome = Outcome::Done;
    append(
        transaction,
        &Act { tenant, actor: &actor, action, target, outcome, request_id: &request_id },
        now_ms(),
    )
}

/// Adds what the control plane did by itself.
pub(crate) fn append_system(
    transaction: &Connection,
    (tenant, action, target): (&str, &str, &str),
    now_ms: u64,
) -> Result<u64, ControlError> {
    let actor = control_id(&owner(transaction)?.trust_domain).to_string();
    let (outcome, request_id) = (Outcome::Done, new_request_id());
    append(
        transaction,
        &Act { tenant, actor: &actor, action, target, outcome, request_id: &request_id },
        now_ms,
    )
}

/// Adds what a cluster's agent did, of what is its cluster's.
pub(crate) fn append_agent(
    transaction: &Connection,
    (agent, cluster): (&SpiffeId, &str),
    (action, part): (&str, &str),
    now_ms: u64,
) -> Result<u64, ControlError> {
    let tenant = store::tenant_of(transaction, cluster)?;
    let act = Act {
        tenant: &tenant,
        actor: agent.as_str(),
        action,
        target: &format!("tenants/{tenant}/clusters/{cluster}/{part}"),
        outcome: Outcome::Done,
        request_id: &new_request_id(),
    };
    append(transaction, &act, now_ms)
}

/// Whoever runs this process: the name of its user, or the number if that has no name.
pub(crate) fn command_actor() -> String {
    let uid = Uid::current();
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("cli:{}", user.name),
        Ok(None) | Err(_) => format!("cli:{uid}"),
    }
}

/// For an act that came with no request.
pub(crate) fn new_request_id() -> String {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).expect("aws-lc-rs aborts by itself when it has no randomness");
    Hex16(random).to_string()
}
