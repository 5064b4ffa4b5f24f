//! What clusters run by: an operator's file in, a signed text of a higher version out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};
use zen_control_api::{
    CONFIGURATION_BYTES_MAX, Configuration, ConfigurationError, Link, Member, SealedSecret,
    SignedConfiguration, SigningKey, is_name,
};
use zen_identity::{CONTROL_PATH, SpiffeId};

use crate::database::{begin, owner};
use crate::directory::{self, Directory};
use crate::people::PEOPLE;
use crate::{ControlError, Database, audit, authority, deny, link_keys, store};

/// What an operator writes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigurationInput {
    /// Nodes by name.
    pub members: BTreeMap<String, Member>,
    /// Secrets by `NAMESPACE/NAME/KEY`, sealed.
    #[serde(default)]
    pub secrets: BTreeMap<String, SealedSecret>,
    /// Links of the cluster whose keys agents make, by name.
    #[serde(default)]
    pub link_keys: BTreeMap<String, Link>,
}

impl ConfigurationInput {
    /// Reads an operator's file.
    pub fn read(path: &Path) -> Result<Self, ControlError> {
        let text = directory::read_text(path, CONFIGURATION_BYTES_MAX as u64)?;
        serde_json::from_str(&text).map_err(|source| ControlError::Json { path: path.to_owned(), source })
    }
}

/// Gives a cluster its next configuration; says its version.
pub fn set_configuration(
    directory: &Directory,
    database: &mut Database,
    cluster: &str,
    input: ConfigurationInput,
) -> Result<u64, ControlError> {
    let transaction = begin(database)?;
    let version = publish(&transaction, directory, cluster, input)?;
    let tenant = store::tenant_of(&transaction, cluster)?;
    let target = format!("tenants/{tenant}/clusters/{cluster}/configurations/{version}");
    audit::append_command(&transaction, (&tenant, "configurations.create", &target))?;
    transaction.commit()?;
    Ok(version)
}

/// The same in a transaction that the caller has.
pub(crate) fn publish(
    transaction: &Connection,
    directory: &Directory,
    cluster: &str,
    input: ConfigurationInput,
) -> Result<u64, ControlError> {
    let key = authority::configuration_key(directory)?;
    let trust_bundle = authority::trust_bundle(directory)?;
    let owner = owner(transaction)?;
    if !is_name(cluster) {
        return Err(ControlError::Argument("a cluster's name is letters, digits, dots, dashes, underscores"));
    }
    check_members(&input.members, &owner.trust_domain)?;
    link_keys::check_places(&input.members, &input.link_keys, cluster)?;
    let version = match version_of(transaction, cluster)? {
        Some(version) => version + 1,
        None => transaction.query_row("SELECT version + 1 FROM version_floor", (), |row| row.get(0))?,
    };
    let configuration = Configuration {
        version: version.unsigned_abs(),
        tenant: store::tenant_of(transaction, cluster)?,
        cluster: cluster.to_owned(),
        trust_bundle,
        members: input.members,
        deny_list: deny::deny_text(transaction)?,
        secrets: input.secrets,
        link_statements: link_keys::statements(transaction, cluster, &input.link_keys)?,
        link_keys: input.link_keys,
    };
    sign_and_keep(transaction, &configuration, &key)?;
    transaction.execute("DELETE FROM members WHERE cluster = ?1", (cluster,))?;
    for (name, member) in &configuration.members {
        let sql = "INSERT INTO members (spiffe_id, cluster, name) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        if transaction.execute(sql, (&member.spiffe_id, cluster, name))? == 0 {
            let fault = "another cluster has this SPIFFE id";
            return Err(ControlError::Member { name: name.clone(), fault });
        }
    }
    Ok(configuration.version)
}

/// Gives every cluster that has one its configuration anew, with the deny list as it is now.
pub(crate) fn publish_everywhere(database: &Connection, key: &SigningKey) -> Result<(), ControlError> {
    let deny_list = deny::deny_text(database)?;
    republish(database, key, |read| Configuration { deny_list: deny_list.clone(), ..read })
}

/// Gives every cluster that has one its configuration anew, with these roots.
pub(crate) fn publish_roots(
    database: &Connection,
    key: &SigningKey,
    trust_bundle: &str,
) -> Result<(), ControlError> {
    republish(database, key, |read| Configuration { trust_bundle: trust_bundle.to_owned(), ..read })
}

fn republish(
    database: &Connection,
    key: &SigningKey,
    change: impl Fn(Configuration) -> Configuration,
) -> Result<(), ControlError> {
    // One text at a time: all of them together may be more than memory holds.
    let mut statement = database.prepare("SELECT cluster FROM configurations")?;
    let clusters: Vec<String> = statement.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut statement = database.prepare("SELECT text FROM configurations WHERE cluster = ?1")?;
    for cluster in clusters {
        let text: String = statement.query_row((cluster,), |row| row.get(0))?;
        let read: Configuration = serde_json::from_str(&text)
            .map_err(|source| ControlError::Json { path: directory::DATABASE.into(), source })?;
        let changed = change(read);
        let version = changed.version + 1;
        sign_and_keep(database, &Configuration { version, ..changed }, key)?;
    }
    Ok(())
}

/// Raises all versions by `step`, also those of clusters that have none yet; says how many have one.
pub(crate) fn raise_versions(
    database: &Connection,
    key: &SigningKey,
    step: i64,
) -> Result<u64, ControlError> {
    database.execute("UPDATE version_floor SET version = version + ?1", (step,))?;
    let step = step.unsigned_abs();
    republish(database, key, |read| Configuration { version: read.version + step, ..read })?;
    let count: i64 = database.query_row("SELECT count(*) FROM configurations", (), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// The cluster's configuration, if it is newer than `after`.
pub(crate) fn newer(
    database: &Connection,
    cluster: &str,
    after: i64,
) -> rusqlite::Result<Option<SignedConfiguration>> {
    let sql = "SELECT text, signature FROM configurations WHERE cluster = ?1 AND version > ?2";
    let mut statement = database.prepare_cached(sql)?;
    let found = statement.query_row((cluster, after), |row| {
        let signature: String = row.get(1)?;
        let signature = serde_json::from_str(&signature).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
        })?;
        Ok(SignedConfiguration { text: row.get(0)?, signature })
    });
    found.optional()
}

/// The cluster's newest configuration, and its version.
pub(crate) fn newest(
    database: &Connection,
    cluster: &str,
) -> rusqlite::Result<Option<(i64, SignedConfiguration)>> {
    let Some(version) = version_of(database, cluster)? else { return Ok(None) };
    Ok(newer(database, cluster, version - 1)?.map(|signed| (version, signed)))
}

pub(crate) fn sign_and_keep(
    database: &Connection,
    configuration: &Configuration,
    key: &SigningKey,
) -> Result<(), ControlError> {
    configuration.check()?;
    let signed = SignedConfiguration::sign(configuration, key);
    if signed.text.len() > CONFIGURATION_BYTES_MAX {
        return Err(ConfigurationError::Length.into());
    }
    let signature = serde_json::to_string(&signed.signature).expect("base64 is a text");
    let sql = "INSERT INTO configurations (cluster, version, text, signature) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET version = excluded.version, text = excluded.text, signature = excluded.signature";
    let version = crate::database::integer(configuration.version);
    database.execute(sql, (&configuration.cluster, version, &signed.text, signature))?;
    let said = (configuration.version, configuration.trust_bundle.as_str());
    Ok(authority::note_roots(database, &configuration.cluster, said)?)
}

fn version_of(database: &Connection, cluster: &str) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT version FROM configurations WHERE cluster = ?1";
    database.query_row(sql, (cluster,), |row| row.get(0)).optional()
}

/// Members have ids of their own in our trust domain, none of them the control plane's or an agent's.
fn check_members(members: &BTreeMap<String, Member>, trust_domain: &str) -> Result<(), ControlError> {
    let mut taken = BTreeSet::new();
    for (name, member) in members {
        let refuse = |fault| Err(ControlError::Member { name: name.clone(), fault });
        let Ok(id) = SpiffeId::parse(&member.spiffe_id) else { return refuse("its spiffe_id is none") };
        if id.trust_domain() != trust_domain {
            return refuse("its spiffe_id is of another trust domain");
        }
        let is_reserved = id.path().is_empty() || id.path() == CONTROL_PATH;
        if is_reserved || matches!(id.segments().next(), Some("agent" | PEOPLE)) {
            return refuse("its spiffe_id is not a node's: /control, /agent/... and /people/... are taken");
        }
        if !taken.insert(id) {
            return refuse("another member has its spiffe_id");
        }
    }
    Ok(())
}
