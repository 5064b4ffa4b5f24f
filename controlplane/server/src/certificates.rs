//! Certificates of identities that exist: the agent's own, and those of the members of its cluster.
//!
//! Generations count an identity's certificates. Who asks with an old one, although the newer was seen in a handshake,
//! is one of two holders of a key: the identity is locked, whoever of them is the thief.

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use zen_control_api::{CertificateAnswer, CertificateRequest, Hex16};
use zen_identity::SpiffeId;

use crate::audit::append_agent;
use crate::csr::{AcceptedKey, check_csr};
use crate::database::integer;
use crate::issuer::Issuer;
use crate::{AgentSession, Refusal, deny};

/// A certificate as it was or is given out.
pub(crate) struct Given {
    pub(crate) chain: String,
    pub(crate) generation: i64,
    /// It was made now.
    pub(crate) is_new: bool,
}

/// Whose certificate it is to be.
pub(crate) struct Grant<'a> {
    pub(crate) id: &'a SpiffeId,
    pub(crate) key: &'a AcceptedKey,
    pub(crate) generation: i64,
    pub(crate) bundle_id: Option<Hex16>,
}

/// The newest certificate of an identity.
pub(crate) struct Newest {
    pub(crate) generation: i64,
    pub(crate) key: [u8; 32],
    serial: Vec<u8>,
    pub(crate) chain: String,
    pub(crate) is_seen: bool,
    pub(crate) not_after_ms: i64,
}

impl Given {
    pub(crate) fn answer(self, issuer: &dyn Issuer, now_ms: u64) -> CertificateAnswer {
        CertificateAnswer {
            certificate_chain: self.chain,
            trust_bundle: issuer.trust_bundle().to_owned(),
            generation: self.generation.unsigned_abs(),
            server_time_ms: now_ms,
        }
    }
}

/// Answers a request of an agent.
pub(crate) fn certify(
    transaction: Transaction<'_>,
    issuer: &dyn Issuer,
    agent: &AgentSession,
    request: &CertificateRequest,
    now_ms: u64,
) -> Result<Given, Refusal> {
    match &request.member {
        None => renew(transaction, issuer, agent, request, now_ms),
        Some(name) => {
            let given = certify_member(&transaction, issuer, (&agent.cluster, name), request, now_ms)?;
            if given.is_new {
                let what = ("certificates.create", format!("members/{name}"));
                append_agent(&transaction, (&agent.id, &agent.cluster), (what.0, &what.1), now_ms)?;
            }
            transaction.commit()?;
            Ok(given)
        }
    }
}

/// Makes a certificate and keeps it.
pub(crate) fn issue(
    database: &Connection,
    issuer: &dyn Issuer,
    grant: &Grant<'_>,
    now_ms: u64,
) -> Result<Given, Refusal> {
    let is_used = "SELECT 1 FROM certificates WHERE key = ?1";
    if database.query_row(is_used, (grant.key.hash,), |_| Ok(())).optional()?.is_some() {
        return Err(Refusal::KeySeen);
    }
    let issued = issuer.issue(grant.id, grant.key, now_ms)?;
    let sql = "INSERT INTO certificates (serial, spiffe_id, generation, key, not_after_ms, chain, bundle_id)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let row = (
        issued.serial,
        grant.id.as_str(),
        grant.generation,
        grant.key.hash,
        integer(issued.not_after_ms),
        &issued.chain,
        grant.bundle_id.map(|id| id.0),
    );
    database.execute(sql, row)?;
    Ok(Given { chain: issued.chain, generation: grant.generation, is_new: true })
}

fn renew(
    transaction: Transaction<'_>,
    issuer: &dyn Issuer,
    agent: &AgentSession,
    request: &CertificateRequest,
    now_ms: u64,
) -> Result<Given, Refusal> {
    let claimed = integer(request.generation);
    if claimed != agent.generation {
        return Err(Refusal::Connection { connection: agent.generation });
    }
    let key = check_csr(&request.csr, &agent.id)?;
    let newest = newest(&transaction, &agent.id)?.ok_or(Refusal::Superseded)?;
    check_denied(&transaction, &agent.id, &key, &newest, now_ms)?;
    let is_answer_lost = claimed + 1 == newest.generation && !newest.is_seen;
    if claimed != newest.generation && !is_answer_lost {
        let sql = "UPDATE identities SET locked_at_ms = ?2 WHERE spiffe_id = ?1";
        transaction.execute(sql, (agent.id.as_str(), integer(now_ms)))?;
        append_agent(&transaction, (&agent.id, &agent.cluster), ("agents.lock", "agent"), now_ms)?;
        transaction.commit()?;
        return Err(Refusal::Locked);
    }
    let given = next(&transaction, issuer, (&agent.id, &key), newest, claimed, now_ms)?;
    if given.is_new {
        append_agent(&transaction, (&agent.id, &agent.cluster), ("certificates.create", "agent"), now_ms)?;
    }
    transaction.commit()?;
    Ok(given)
}

fn certify_member(
    database: &Connection,
    issuer: &dyn Issuer,
    (cluster, name): (&str, &str),
    request: &CertificateRequest,
    now_ms: u64,
) -> Result<Given, Refusal> {
    let sql = "SELECT spiffe_id FROM members WHERE cluster = ?1 AND name = ?2";
    let id: Option<String> = database.query_row(sql, (cluster, name), |row| row.get(0)).optional()?;
    let id = id.and_then(|id| SpiffeId::parse(&id).ok()).ok_or(Refusal::Member)?;
    let key = check_csr(&request.csr, &id)?;
    let claimed = integer(request.generation);
    let Some(newest) = newest(database, &id)? else {
        if deny::is_denied(database, &id, &[key.hash], None, now_ms)? {
            return Err(Refusal::Denied);
        }
        if claimed != 0 {
            return Err(Refusal::Generation { current: 0 });
        }
        let sql = "INSERT INTO identities (spiffe_id, generation, enrolled_generation) VALUES (?1, 1, 1)";
        database.execute(sql, (id.as_str(),))?;
        let grant = Grant { id: &id, key: &key, generation: 1, bundle_id: None };
        return issue(database, issuer, &grant, now_ms);
    };
    check_denied(database, &id, &key, &newest, now_ms)?;
    if claimed != 0 && claimed != newest.generation && claimed + 1 != newest.generation {
        return Err(Refusal::Generation { current: newest.generation });
    }
    next(database, issuer, (&id, &key), newest, claimed, now_ms)
}

/// The same key again, whose answer was lost, has the same certificate; a new key has the next.
fn next(
    database: &Connection,
    issuer: &dyn Issuer,
    (id, key): (&SpiffeId, &AcceptedKey),
    newest: Newest,
    claimed: i64,
    now_ms: u64,
) -> Result<Given, Refusal> {
    if newest.key == key.hash && claimed < newest.generation && !newest.chain.is_empty() {
        return Ok(Given { chain: newest.chain, generation: newest.generation, is_new: false });
    }
    let generation = newest.generation + 1;
    let sql = "UPDATE identities SET generation = ?2 WHERE spiffe_id = ?1";
    database.execute(sql, (id.as_str(), generation))?;
    issue(database, issuer, &Grant { id, key, generation, bundle_id: None }, now_ms)
}

pub(crate) fn newest(database: &Connection, id: &SpiffeId) -> rusqlite::Result<Option<Newest>> {
    let sql = "SELECT c.generation, c.key, c.serial, c.chain, c.seen_at_ms IS NOT NULL, c.not_after_ms
        FROM identities i JOIN certificates c USING (spiffe_id, generation) WHERE i.spiffe_id = ?1";
    let found = database.query_row(sql, (id.as_str(),), |row| {
        Ok(Newest {
            generation: row.get(0)?,
            key: row.get(1)?,
            serial: row.get(2)?,
            chain: row.get(3)?,
            is_seen: row.get(4)?,
            not_after_ms: row.get(5)?,
        })
    });
    found.optional()
}

pub(crate) fn check_denied(
    database: &Connection,
    id: &SpiffeId,
    key: &AcceptedKey,
    newest: &Newest,
    now_ms: u64,
) -> Result<(), Refusal> {
    let is_denied = deny::is_denied(database, id, &[key.hash, newest.key], Some(&newest.serial), now_ms)?;
    if is_denied { Err(Refusal::Denied) } else { Ok(()) }
}
