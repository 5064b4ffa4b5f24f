//! Enrollment: what proves that a bundle is held, and that one key at most gets in with it.
//!
//! Order: the bundle's key made the connection, the nonce, the signature over this very connection, the bundle's time, the
//! request for a certificate, and one conditional UPDATE. The same key again gets the same answer until the bundle is over.

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use zen_audit::Outcome;
use zen_control_api::{Base64, Hex16, PublicKey};
use zen_identity::SpiffeId;

use crate::audit::Act;
use crate::certificates::{Given, Grant, issue};
use crate::csr::AcceptedKey;
use crate::database::integer;
use crate::issuer::Issuer;
use crate::session::cluster_of;
use crate::{Refusal, audit, deny, recovery, store};

/// A bundle as the database has it.
pub(crate) struct KnownBundle {
    pub(crate) public_key: PublicKey,
    pub(crate) cluster: String,
    expires_at_ms: i64,
    is_revoked: bool,
    used_key: Option<[u8; 32]>,
    used_from: Option<String>,
}

/// What is enrolled, after all that is no matter of the database.
pub(crate) struct Enrollment<'a> {
    pub(crate) bundle_id: Hex16,
    /// The key that the connection was made with.
    pub(crate) client: &'a [u8; 32],
    pub(crate) id: &'a SpiffeId,
    pub(crate) key: &'a AcceptedKey,
    pub(crate) binding_key: &'a PublicKey,
    pub(crate) source: &'a str,
}

impl KnownBundle {
    /// The bundle with this id, if its key made the connection: nobody else learns anything about it.
    pub(crate) fn find(database: &Connection, bundle_id: Hex16, client: &[u8; 32]) -> Result<Self, Refusal> {
        let sql = "SELECT public_key, cluster, expires_at_ms, revoked_at_ms IS NOT NULL, used_key, used_from
            FROM bundles WHERE id = ?1";
        let found = database.query_row(sql, (bundle_id.0,), |row| {
            Ok(Self {
                public_key: PublicKey(Base64(row.get(0)?)),
                cluster: row.get(1)?,
                expires_at_ms: row.get(2)?,
                is_revoked: row.get(3)?,
                used_key: row.get(4)?,
                used_from: row.get(5)?,
            })
        });
        found.optional()?.filter(|bundle| bundle.public_key.0.0 == *client).ok_or(Refusal::Bundle)
    }

    /// Whether it is still good for somebody.
    pub(crate) fn check(&self, now_ms: u64) -> Result<(), Refusal> {
        if self.is_revoked || self.expires_at_ms <= integer(now_ms) {
            return Err(Refusal::BundleOver);
        }
        Ok(())
    }
}

/// Uses the bundle up for this key, or finds that this key did so before.
pub(crate) fn enroll(
    transaction: Transaction<'_>,
    issuer: &dyn Issuer,
    enrollment: &Enrollment<'_>,
    now_ms: u64,
) -> Result<Given, Refusal> {
    let Enrollment { bundle_id, id, key, source, .. } = *enrollment;
    if deny::is_denied(&transaction, id, &[key.hash], None, now_ms)? {
        return Err(Refusal::Denied);
    }
    let sql = "UPDATE bundles SET used_key = ?2, used_at_ms = ?3, used_from = ?4
        WHERE id = ?1 AND used_key IS NULL AND revoked_at_ms IS NULL AND expires_at_ms > ?3";
    let given = match transaction.execute(sql, (bundle_id.0, key.hash, integer(now_ms), source))? {
        1 => let_in(&transaction, issuer, enrollment, now_ms)?,
        _ => given_before(&transaction, enrollment, now_ms)?,
    };
    transaction.commit()?;
    Ok(given)
}

/// A new enrollment ends the one before, and a lock that is older than the bundle.
fn let_in(
    database: &Connection,
    issuer: &dyn Issuer,
    enrollment: &Enrollment<'_>,
    now_ms: u64,
) -> Result<Given, Refusal> {
    let Enrollment { bundle_id, id, key, binding_key, .. } = *enrollment;
    let sql = "INSERT INTO identities (spiffe_id, generation, enrolled_generation, binding_key) VALUES (?1, 1, 1, ?2)
        ON CONFLICT DO UPDATE SET generation = generation + 1, enrolled_generation = generation + 1,
            binding_key = excluded.binding_key,
            locked_at_ms = CASE WHEN locked_at_ms >= (SELECT created_at_ms FROM bundles WHERE id = ?3)
                THEN locked_at_ms END
        RETURNING generation, locked_at_ms IS NOT NULL";
    let row = (id.as_str(), binding_key.0.0, bundle_id.0);
    let (generation, is_locked): (i64, bool) =
        database.query_row(sql, row, |row| Ok((row.get(0)?, row.get(1)?)))?;
    if is_locked {
        return Err(Refusal::Locked);
    }
    let cluster = cluster_of(id).unwrap_or_default();
    recovery::reset(database, cluster)?;
    let grant = Grant { id, key, generation, bundle_id: Some(bundle_id) };
    let given = issue(database, issuer, &grant, now_ms)?;
    let tenant = store::tenant_of(database, cluster)?;
    let act = Act {
        tenant: &tenant,
        actor: &format!("bundle:{bundle_id}"),
        action: "agents.enroll",
        target: &format!("tenants/{tenant}/clusters/{cluster}/agent"),
        outcome: Outcome::Done,
        request_id: &audit::new_request_id(),
    };
    audit::append(database, &act, now_ms)?;
    Ok(given)
}

fn given_before(database: &Connection, enrollment: &Enrollment<'_>, now_ms: u64) -> Result<Given, Refusal> {
    let Enrollment { bundle_id, client, key, source, id, .. } = *enrollment;
    let bundle = KnownBundle::find(database, bundle_id, client)?;
    bundle.check(now_ms)?;
    if bundle.used_key != Some(key.hash) {
        let used_from = bundle.used_from.as_deref().unwrap_or_default();
        tracing::error!(%bundle_id, cluster = bundle.cluster, used_from, source,
            "ALARM: an enrollment bundle was used with two keys; deny the cluster's agent unless you know both");
        return Err(Refusal::BundleConsumed);
    }
    let sql = "SELECT c.chain, c.generation, i.locked_at_ms IS NOT NULL
        FROM certificates c JOIN identities i USING (spiffe_id) WHERE c.bundle_id = ?1 AND c.spiffe_id = ?2";
    let (chain, generation, is_locked): (String, i64, bool) =
        database
            .query_row(sql, (bundle_id.0, id.as_str()), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if is_locked {
        return Err(Refusal::Locked);
    }
    Ok(Given { chain, generation, is_new: false })
}
