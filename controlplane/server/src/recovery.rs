//! Recovery: an identity whose certificate has ended, known again by the binding key that came with its enrollment.
//!
//! The connection is made with that key, a nonce and this very connection are signed by it, and the certificate that
//! ended is never looked at. How often that is granted is each cluster's policy. Two who hold the key are found out as two
//! who hold a certificate are: the identity is locked.

use std::fmt;
use std::str::FromStr;

use rcgen::PublicKeyData as _;
use rusqlite::{Connection, OptionalExtension as _, Transaction};
use zen_control_api::{
    Base64, CertificateAnswer, NONCE_BYTES, NonceAnswer, PublicKey, RecoveryProof, RecoveryRequest, is_name,
};
use zen_identity::SpiffeId;

use crate::audit::append_agent;
use crate::certificates::{Given, Grant, check_denied, issue, newest};
use crate::csr::{AcceptedKey, check_csr};
use crate::database::{begin, integer, owner};
use crate::issuer::Issuer;
use crate::{Attempt, Control, ControlError, Database, Refusal, audit, store};

/// How long after its certificate's end an agent may recover, ms.
pub const RECOVERY_WITHIN_MS: u64 = 7 * 24 * 3600 * 1000;
/// A certificate that is good for longer than two clocks can differ is in use somewhere else, ms.
const CLOCKS_APART_MS: u64 = 15 * 60 * 1000;

/// What a cluster's agent may do when its certificate has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryPolicy {
    /// Nothing: it needs a new bundle.
    Off,
    /// Recover once, until an operator resets the count.
    Once,
    /// Recover each time.
    Auto,
}

/// A cluster's policy, and how often it was used since the count was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryState {
    /// What is allowed.
    pub policy: RecoveryPolicy,
    /// What happened.
    pub used: i64,
}

/// Why an identity is not recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryFault {
    /// The cluster's policy.
    #[error("recovery is off for this cluster: enroll again with a new bundle")]
    Off,
    /// It was used.
    #[error(
        "the cluster's recovery was used before: an operator resets it (zen-control recovery --reset), or makes a \
         new bundle"
    )]
    Used,
    /// Too late.
    #[error("the certificate ended over 7 days ago: enroll again with a new bundle")]
    Late,
    /// There is nothing to recover.
    #[error("the identity's certificate is good until {not_after_ms} (Unix ms) by this clock: renew it")]
    Good {
        /// Its end.
        not_after_ms: i64,
    },
}

/// Who asks, after all that is no matter of policy.
pub(crate) struct Recovery<'a> {
    pub(crate) id: &'a SpiffeId,
    /// The key that the connection was made with.
    pub(crate) client: &'a [u8; 32],
    pub(crate) cluster: &'a str,
    pub(crate) key: &'a AcceptedKey,
    pub(crate) source: &'a str,
}

/// Whether this identity was enrolled with the key that made the connection: nobody else learns anything about it.
pub(crate) fn check_holder(database: &Connection, id: &SpiffeId, client: &[u8; 32]) -> Result<(), Refusal> {
    let sql = "SELECT binding_key FROM identities WHERE spiffe_id = ?1";
    let found: Option<Option<[u8; 32]>> =
        database.query_row(sql, (id.as_str(),), |row| row.get(0)).optional()?;
    if found.flatten() == Some(*client) { Ok(()) } else { Err(Refusal::Binding) }
}

/// The next certificate, or the same one for a key whose answer was lost.
pub(crate) fn recover(
    transaction: Transaction<'_>,
    issuer: &dyn Issuer,
    recovery: &Recovery<'_>,
    now_ms: u64,
) -> Result<Given, Refusal> {
    let Recovery { id, client, cluster, key, source } = *recovery;
    // Another enrollment may have come meanwhile, with another key.
    check_holder(&transaction, id, client)?;
    let sql = "SELECT locked_at_ms IS NOT NULL FROM identities WHERE spiffe_id = ?1";
    if transaction.query_row(sql, (id.as_str(),), |row| row.get(0))? {
        return Err(Refusal::Locked);
    }
    let newest = newest(&transaction, id)?.ok_or(Refusal::Binding)?;
    check_denied(&transaction, id, key, &newest, now_ms)?;
    let left_ms = newest.not_after_ms.saturating_sub(integer(now_ms));
    if left_ms > 0 && newest.key == key.hash {
        return Ok(Given { chain: newest.chain, generation: newest.generation, is_new: false });
    }
    if left_ms > 0 && newest.is_seen {
        if left_ms <= integer(CLOCKS_APART_MS) {
            return Err(Refusal::Recovery(RecoveryFault::Good { not_after_ms: newest.not_after_ms }));
        }
        let sql = "UPDATE identities SET locked_at_ms = ?2 WHERE spiffe_id = ?1";
        transaction.execute(sql, (id.as_str(), integer(now_ms)))?;
        append_agent(&transaction, (id, cluster), ("agents.lock", "agent"), now_ms)?;
        transaction.commit()?;
        return Err(Refusal::Locked);
    }
    let used = count(&transaction, cluster, left_ms)?;
    let generation = newest.generation + 1;
    let sql = "UPDATE identities SET generation = ?2, enrolled_generation = ?2 WHERE spiffe_id = ?1";
    transaction.execute(sql, (id.as_str(), generation))?;
    let given = issue(&transaction, issuer, &Grant { id, key, generation, bundle_id: None }, now_ms)?;
    append_agent(&transaction, (id, cluster), ("agents.recover", "agent"), now_ms)?;
    transaction.commit()?;
    tracing::error!(
        cluster,
        source,
        used,
        generation,
        "ALARM: an agent whose certificate had ended has recovered its identity by its binding key; if it was not away, \
         deny it"
    );
    Ok(given)
}

/// Counts one more recovery, if the policy has one left; how many that makes.
fn count(database: &Connection, cluster: &str, left_ms: i64) -> Result<i64, Refusal> {
    let RecoveryState { policy, used } = state_of(database, cluster)?;
    let fault = match policy {
        RecoveryPolicy::Off => Some(RecoveryFault::Off),
        RecoveryPolicy::Once if used > 0 => Some(RecoveryFault::Used),
        RecoveryPolicy::Once | RecoveryPolicy::Auto if left_ms < -integer(RECOVERY_WITHIN_MS) => {
            Some(RecoveryFault::Late)
        }
        RecoveryPolicy::Once | RecoveryPolicy::Auto => None,
    };
    if let Some(fault) = fault {
        return Err(Refusal::Recovery(fault));
    }
    keep(database, cluster, RecoveryState { policy, used: used + 1 })?;
    Ok(used + 1)
}

/// A new enrollment begins to count anew.
pub(crate) fn reset(database: &Connection, cluster: &str) -> rusqlite::Result<()> {
    database.execute("UPDATE recoveries SET used = 0 WHERE cluster = ?1", (cluster,)).map(|_| ())
}

/// A cluster's policy and count.
pub fn recovery_state(database: &Database, cluster: &str) -> Result<RecoveryState, ControlError> {
    Ok(state_of(database, cluster)?)
}

/// Sets a cluster's policy, and begins to count anew if that is wanted.
pub fn set_recovery(
    database: &mut Database,
    cluster: &str,
    (policy, is_reset): (Option<RecoveryPolicy>, bool),
) -> Result<RecoveryState, ControlError> {
    if !is_name(cluster) {
        return Err(ControlError::Argument("a cluster's name is letters, digits, dots, dashes, underscores"));
    }
    let transaction = begin(database)?;
    let trust_domain = owner(&transaction)?.trust_domain;
    let sql = "SELECT EXISTS (SELECT 1 FROM bundles WHERE cluster = ?1)
        OR EXISTS (SELECT 1 FROM identities WHERE spiffe_id = ?2)";
    let id = format!("spiffe://{trust_domain}/agent/{cluster}");
    let is_known: bool = transaction.query_row(sql, (cluster, id), |row| row.get(0))?;
    if !is_known {
        return Err(ControlError::Argument("there is no such cluster; see: zen-control status"));
    }
    let before = state_of(&transaction, cluster)?;
    let next = RecoveryState {
        policy: policy.unwrap_or(before.policy),
        used: if is_reset { 0 } else { before.used },
    };
    keep(&transaction, cluster, next)?;
    let tenant = store::tenant_of(&transaction, cluster)?;
    let target = format!("tenants/{tenant}/clusters/{cluster}/recovery");
    audit::append_command(&transaction, (&tenant, "recovery.put", &target))?;
    transaction.commit()?;
    Ok(next)
}

fn state_of(database: &Connection, cluster: &str) -> rusqlite::Result<RecoveryState> {
    let sql = "SELECT policy, used FROM recoveries WHERE cluster = ?1";
    let found = database.query_row(sql, (cluster,), |row| Ok((row.get::<_, String>(0)?, row.get(1)?)));
    let (policy, used) = found.optional()?.unwrap_or(("once".to_owned(), 0));
    Ok(RecoveryState { policy: policy.parse().unwrap_or(RecoveryPolicy::Off), used })
}

fn keep(database: &Connection, cluster: &str, state: RecoveryState) -> rusqlite::Result<()> {
    let sql = "INSERT INTO recoveries (cluster, policy, used) VALUES (?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET policy = excluded.policy, used = excluded.used";
    database.execute(sql, (cluster, state.policy.to_string(), state.used)).map(|_| ())
}

impl Control {
    /// A nonce, `random`, for the holder of a binding key.
    pub fn recovery_nonce(
        &self,
        client: &[u8; 32],
        cluster: &str,
        random: [u8; NONCE_BYTES],
        now_ms: u64,
    ) -> Result<NonceAnswer, Refusal> {
        check_holder(&self.reader(), &self.agent_id(cluster)?, client)?;
        let nonce = self.nonces().give(random, *client, now_ms)?;
        Ok(NonceAnswer { nonce, server_time_ms: now_ms })
    }

    /// Gives an agent whose certificate has ended the next one.
    pub fn recover(
        &self,
        attempt: Attempt<'_>,
        request: &RecoveryRequest,
        now_ms: u64,
    ) -> Result<CertificateAnswer, Refusal> {
        if !request.names_well() {
            return Err(Refusal::Field("cluster is not a name"));
        }
        let id = self.agent_id(&request.cluster)?;
        check_holder(&self.reader(), &id, attempt.client)?;
        self.nonces().take(&request.nonce, attempt.client, now_ms)?;
        let RecoveryRequest { cluster, nonce, csr, signature } = request;
        let proof = RecoveryProof { cluster, nonce, csr, exporter: attempt.exporter };
        proof.verify(&PublicKey(Base64(*attempt.client)), signature).map_err(|_| Refusal::Proof)?;
        let key = check_csr(csr, &id)?;
        if key.der_bytes() == attempt.client {
            return Err(Refusal::KeySeen);
        }
        let authority = self.authority();
        let recovery =
            Recovery { id: &id, client: attempt.client, cluster, key: &key, source: attempt.source };
        let mut database = self.database();
        let given = recover(begin(&mut database)?, &*authority, &recovery, now_ms)?;
        Ok(given.answer(&*authority, now_ms))
    }
}

impl fmt::Display for RecoveryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Once => "once",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for RecoveryPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "once" => Ok(Self::Once),
            "auto" => Ok(Self::Auto),
            _ => Err("off, once or auto"),
        }
    }
}
