//! Enrollment bundles from the operator's side: made, listed, revoked. The seed leaves with the file and is not kept.

use std::fs;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::{EnrollmentBundle, Hex16, SigningKey};
use zeroize::Zeroizing;

use crate::database::{begin, integer, owner};
use crate::directory::{self, Directory, PRIVATE_MODE};
use crate::{ControlError, Database, audit, authority, store};

/// Shortest and longest life of a bundle, ms.
pub(crate) const LIFE_MS: std::ops::RangeInclusive<u64> = 60_000..=24 * 3600 * 1000;

/// What a bundle is for.
#[derive(Clone, Debug)]
pub struct BundleOrder<'a> {
    /// The cluster that it lets in.
    pub cluster: &'a str,
    /// How long.
    pub life_ms: u64,
    /// Where agents connect.
    pub urls: Vec<String>,
    /// Where the bundle is written, mode 0600; never over another file.
    pub out: &'a Path,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRow {
    /// Which one.
    pub id: Hex16,
    /// For whom.
    pub cluster: String,
    /// `open`, `used`, `revoked` or `expired`.
    pub state: &'static str,
    /// Unix ms.
    pub expires_at_ms: i64,
    /// The address that it was used from.
    pub used_from: Option<String>,
}

/// Makes a bundle.
pub fn create_bundle(
    directory: &Directory,
    database: &mut Database,
    order: &BundleOrder<'_>,
    now_ms: u64,
) -> Result<Hex16, ControlError> {
    let transaction = begin(database)?;
    let (id, text) =
        new_bundle(&transaction, directory, (order.cluster, &order.urls), order.life_ms, now_ms)?;
    let tenant = store::tenant_of(&transaction, order.cluster)?;
    let target = format!("tenants/{tenant}/clusters/{}/bundles/{id}", order.cluster);
    audit::append_command(&transaction, (&tenant, "bundles.create", &target))?;
    directory::create(order.out, &text, PRIVATE_MODE)?;
    if let Err(error) = transaction.commit() {
        let _ = fs::remove_file(order.out);
        return Err(error.into());
    }
    Ok(id)
}

/// A new bundle's id and text, in a transaction that the caller has. The text is kept nowhere.
pub(crate) fn new_bundle(
    database: &Connection,
    directory: &Directory,
    (cluster, urls): (&str, &[String]),
    life_ms: u64,
    now_ms: u64,
) -> Result<(Hex16, Zeroizing<String>), ControlError> {
    if !LIFE_MS.contains(&life_ms) {
        return Err(ControlError::Argument("a bundle lives 1m to 24h"));
    }
    let owner = owner(database)?;
    let tenant = store::tenant_of(database, cluster)?;
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).expect("aws-lc-rs aborts by itself when it has no randomness");
    let (id, key) = (Hex16(id), SigningKey::generate());
    let expires_at_ms = now_ms + life_ms;
    let bundle = EnrollmentBundle::new(
        &key,
        (id, &tenant, cluster),
        &owner.trust_domain,
        (urls.to_vec(), authority::root_pins(directory)?),
        authority::configuration_key(directory)?.public(),
        expires_at_ms,
    )?;
    let bundle = bundle.with_audit_key(audit::audit_key(directory, database)?)?;
    let sql = "INSERT INTO bundles (id, public_key, cluster, created_at_ms, expires_at_ms)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = (id.0, key.public().0.0, cluster, integer(now_ms), integer(expires_at_ms));
    database.execute(sql, row)?;
    Ok((id, bundle.encode()))
}

/// All bundles, newest first.
pub fn list_bundles(database: &Database, now_ms: u64) -> Result<Vec<BundleRow>, ControlError> {
    let sql = "SELECT id, cluster, expires_at_ms, used_from, revoked_at_ms FROM bundles ORDER BY created_at_ms DESC, id";
    let mut statement = database.prepare(sql)?;
    let rows = statement.query_map((), |row| bundle_row(row, now_ms))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// At most `count` bundles of a cluster, newest first, after the one with this key; each with its key.
pub(crate) fn page_of_bundles(
    database: &Connection,
    cluster: &str,
    (after, count): (&str, usize),
    now_ms: u64,
) -> rusqlite::Result<Vec<(String, BundleRow)>> {
    let sql = "SELECT id, cluster, expires_at_ms, used_from, revoked_at_ms,
            printf('%020d', created_at_ms) || hex(id) AS key
        FROM bundles WHERE cluster = ?1 AND (?2 = '' OR key < ?2) ORDER BY key DESC LIMIT ?3";
    let mut statement = database.prepare_cached(sql)?;
    let rows = statement.query_map((cluster, after, integer(count as u64)), |row| {
        Ok((row.get(5)?, bundle_row(row, now_ms)?))
    })?;
    rows.collect()
}

fn bundle_row(row: &rusqlite::Row<'_>, now_ms: u64) -> rusqlite::Result<BundleRow> {
    let (expires_at_ms, used_from): (i64, Option<String>) = (row.get(2)?, row.get(3)?);
    let revoked: Option<i64> = row.get(4)?;
    let state = match (revoked, &used_from) {
        (Some(_), _) => "revoked",
        (None, Some(_)) => "used",
        (None, None) if expires_at_ms <= integer(now_ms) => "expired",
        (None, None) => "open",
    };
    Ok(BundleRow { id: Hex16(row.get(0)?), cluster: row.get(1)?, state, expires_at_ms, used_from })
}

/// Revokes a bundle; who was let in with it stays in.
pub fn revoke_bundle(database: &mut Database, id: Hex16, now_ms: u64) -> Result<(), ControlError> {
    let transaction = begin(database)?;
    let sql =
        "UPDATE bundles SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1 RETURNING cluster";
    let cluster: Option<String> =
        transaction.query_row(sql, (id.0, integer(now_ms)), |row| row.get(0)).optional()?;
    let missing = "there is no bundle with this id; see: zen-control bundle list";
    let cluster = cluster.ok_or(ControlError::Argument(missing))?;
    let tenant = store::tenant_of(&transaction, &cluster)?;
    let target = format!("tenants/{tenant}/clusters/{cluster}/bundles/{id}");
    audit::append_command(&transaction, (&tenant, "bundles.delete", &target))?;
    Ok(transaction.commit()?)
}

/// The same for a bundle of this cluster, in a transaction that the caller has; false if there is none.
pub(crate) fn revoke_of(
    database: &Connection,
    cluster: &str,
    id: Hex16,
    now_ms: u64,
) -> rusqlite::Result<bool> {
    let sql = "UPDATE bundles SET revoked_at_ms = coalesce(revoked_at_ms, ?3) WHERE id = ?1 AND cluster = ?2";
    Ok(database.execute(sql, (id.0, cluster, integer(now_ms)))? == 1)
}
