//! The state directory: identities, sealed keys, the configuration in force, an enrollment that was begun.
//!
//! Nothing in it is a secret in clear. Whatever is in force is there whole at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zen_control_api::{LogReport, SignedConfiguration};

use crate::core::{
    Certificate, Content, EnrolledWith, Entry, LinkState, OWN_NAMESPACE, OrderState, Pending, WitnessState,
    key_name, key_number, retained,
};
use crate::files::{
    Durability, FileError, Generations, PRIVATE, SHARED, make_directory, read_file, remove_file, replace_file,
};

/// The agent's own identity, among those of members.
pub(crate) const AGENT: &str = "agent";
/// The name of the key by which an agent may be known again.
pub(crate) const BINDING: &str = "binding";
/// The name of the key by which an agent cosigns the audit log.
pub(crate) const WITNESS: &str = "witness";
/// Of an identity: the chain, PEM.
pub(crate) const CHAIN: &str = "identity.pem";
/// Of an identity, and of a member: the roots, PEM.
pub(crate) const ROOTS: &str = "bundle.pem";
/// What an alarm about the audit log rests on.
pub(crate) const EVIDENCE_FILE: &str = "audit-alarm.json";
/// What was seen of the audit log.
pub(crate) const WITNESS_FILE: &str = "witness.json";
const RECORD: &str = "record.json";
const SECRETS: &str = "secrets/";
const SEALED: &str = ".age";
const SCRATCH: &str = "sealing-";

/// What is known of an identity besides its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The number of its key.
    pub(crate) key: u64,
    /// Counts its certificates.
    pub(crate) generation: u64,
    /// How often the agent has recovered this identity after its certificate had ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) recoveries: u64,
    /// Of the agent alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) enrolled: Option<EnrolledWith>,
}

/// What shows that the audit log was changed, or is shown in two forms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Evidence {
    /// Unix ms.
    pub(crate) at_ms: u64,
    /// In words.
    pub(crate) reason: String,
    /// The log's key as it was known.
    pub(crate) log: Option<String>,
    /// The checkpoint that was seen before, a note.
    pub(crate) seen: Option<String>,
    /// What was shown then.
    pub(crate) shown: Option<LogReport>,
}

/// An identity in force.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) record: Record,
    pub(crate) certificate: Certificate,
    /// PEM.
    pub(crate) roots: String,
}

/// The state directory of one agent, which holds its lock.
pub(crate) struct StateDirectory {
    root: PathBuf,
    secrets: Generations,
    _lock: Flock<File>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system.
    #[error("{}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody has it.
    #[error("{}: another zen-agent runs with this state directory; stop it first", .0.display())]
    Busy(PathBuf),
    /// A file that the agent did not write.
    #[error("{}: cannot be read; restore it, or remove it and what it belongs to (docs/agent.md)", .0.display())]
    Malformed(PathBuf),
}

impl From<FileError> for StateError {
    fn from(FileError { path, source }: FileError) -> Self {
        Self::File { path, source }
    }
}

impl StateDirectory {
    /// Makes what is not there, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, StateError> {
        make_directory(root, SHARED.directory)?;
        let path = root.join("lock");
        let failed = |source| StateError::File { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(PRIVATE.file).open(&path);
        let lock = match Flock::lock(file.map_err(failed)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(StateError::Busy(root.to_owned())),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        let secrets = Generations::open(root.join("secrets"), PRIVATE)?;
        make_directory(&root.join("identities"), PRIVATE.directory)?;
        remove_scratch(root)?;
        Ok(Self { root: root.to_owned(), secrets, _lock: lock })
    }

    /// For a short time while something is sealed; whoever was killed may have left a program behind that still writes to
    /// a place of its own.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join(format!("{SCRATCH}{}", std::process::id()))
    }

    /// The identity of the agent or of a member, if it has one.
    pub(crate) fn identity(&self, name: &str) -> Result<Option<Identity>, StateError> {
        identity_in(&self.root, name)
    }

    /// The directory of an identity's generation in force.
    pub(crate) fn identity_directory(&self, name: &str) -> Result<Option<PathBuf>, StateError> {
        Ok(self.identities(name)?.directory())
    }

    /// Puts an identity in force.
    pub(crate) fn install(&self, name: &str, identity: &Identity) -> Result<(), StateError> {
        let record = serde_json::to_vec_pretty(&identity.record).expect("names and numbers are JSON");
        let entries = [
            (CHAIN, identity.certificate.chain.clone().into_bytes()),
            (ROOTS, identity.roots.clone().into_bytes()),
            (RECORD, record),
        ];
        let entries =
            entries.map(|(path, bytes)| Entry { path: path.to_owned(), content: Content::Bytes(bytes) });
        self.identities(name)?.publish(&entries)?;
        Ok(())
    }

    fn identities(&self, name: &str) -> Result<Generations, StateError> {
        Ok(Generations::open(self.root.join("identities").join(name), PRIVATE)?)
    }

    /// Numbers of an identity's sealed keys.
    pub(crate) fn keys(&self, name: &str) -> Result<Vec<u64>, StateError> {
        let keys = keys_of(&self.secrets.list()?).remove(name);
        Ok(keys.unwrap_or_default())
    }

    /// Whether a key of the agent's own that stays is sealed, by its name.
    pub(crate) fn has_own(&self, key: &str) -> Result<bool, StateError> {
        Ok(self.secrets.list()?.contains(&own_path(AGENT, key)))
    }

    /// Puts sealed secrets in force besides those that are: by the paths of [`own_path`] or `secrets/NAMESPACE/NAME/KEY.age`.
    /// Old keys go, and so do secrets of configurations that `stays` does not want. Whether anything changed.
    pub(crate) fn publish_secrets(
        &self,
        new: &BTreeMap<String, Vec<u8>>,
        stays: impl Fn(&str) -> bool,
    ) -> Result<bool, StateError> {
        let present = self.secrets.list()?;
        let all: BTreeSet<&String> = present.iter().chain(new.keys()).collect();
        let all: Vec<String> = all.into_iter().cloned().collect();
        let mut own = BTreeSet::from([own_path(AGENT, BINDING), own_path(AGENT, WITNESS)]);
        for (name, keys) in keys_of(&all) {
            let in_force = self.identity(&name)?.map(|identity| identity.record.key);
            own.extend(retained(&keys, in_force).into_iter().map(|key| own_path(&name, &key_name(key))));
        }
        let own_prefix = format!("{SECRETS}{OWN_NAMESPACE}/");
        let mut entries = Vec::with_capacity(all.len());
        let mut is_changed = false;
        for path in all {
            let stays = if path.starts_with(&own_prefix) { own.contains(&path) } else { stays(&path) };
            let wanted = stays || new.contains_key(&path);
            let is_present = present.binary_search(&path).is_ok();
            let content = match new.get(&path) {
                Some(bytes) if !is_present || self.secrets.read(&path)?.as_ref() != Some(bytes) => {
                    Content::Bytes(bytes.clone())
                }
                _ if wanted => Content::Same,
                _ => {
                    is_changed |= is_present;
                    continue;
                }
            };
            is_changed |= content != Content::Same;
            entries.push(Entry { path, content });
        }
        if is_changed {
            self.secrets.publish(&entries)?;
        }
        Ok(is_changed)
    }

    /// An enrollment that was begun.
    pub(crate) fn pending(&self) -> Result<Option<Pending>, StateError> {
        read_json(&self.root.join("enrollment.json"))
    }

    /// Remembers an enrollment, or forgets it.
    pub(crate) fn set_pending(&self, pending: Option<Pending>) -> Result<(), StateError> {
        let path = self.root.join("enrollment.json");
        match pending {
            Some(pending) => self.write_json("enrollment.json", &pending),
            None => remove_file(&path).map_err(|source| StateError::File { path, source }),
        }
    }

    /// The configuration that was taken last.
    pub(crate) fn configuration(&self) -> Result<Option<SignedConfiguration>, StateError> {
        read_json(&self.root.join("configuration.json"))
    }

    /// Keeps a configuration.
    pub(crate) fn set_configuration(&self, signed: &SignedConfiguration) -> Result<(), StateError> {
        self.write_json("configuration.json", signed)
    }

    /// What is kept of link keys.
    pub(crate) fn links(&self) -> Result<LinkState, StateError> {
        Ok(read_json(&self.root.join("link-keys.json"))?.unwrap_or_default())
    }

    /// Keeps it.
    pub(crate) fn set_links(&self, links: &LinkState) -> Result<(), StateError> {
        self.write_json("link-keys.json", links)
    }

    /// What was seen of the audit log.
    pub(crate) fn witness(&self) -> Result<Option<WitnessState>, StateError> {
        read_json(&self.root.join(WITNESS_FILE))
    }

    /// Keeps it.
    pub(crate) fn set_witness(&self, witness: &WitnessState) -> Result<(), StateError> {
        self.write_json(WITNESS_FILE, witness)
    }

    /// What shows that the audit log was changed, if anything does.
    pub(crate) fn evidence(&self) -> Result<Option<Evidence>, StateError> {
        read_json(&self.root.join(EVIDENCE_FILE))
    }

    /// Keeps it, unless there is older evidence.
    pub(crate) fn add_evidence(&self, evidence: &Evidence) -> Result<(), StateError> {
        if self.root.join(EVIDENCE_FILE).exists() { Ok(()) } else { self.write_json(EVIDENCE_FILE, evidence) }
    }

    /// What is kept of orders.
    pub(crate) fn orders(&self) -> Result<OrderState, StateError> {
        Ok(read_json(&self.root.join("orders.json"))?.unwrap_or_default())
    }

    /// Keeps it.
    pub(crate) fn set_orders(&self, orders: &OrderState) -> Result<(), StateError> {
        self.write_json("orders.json", orders)
    }

    /// A file below it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let bytes = serde_json::to_vec(value).expect("texts and numbers are JSON");
        Ok(replace_file(&self.root.join(name), &bytes, PRIVATE.file, Durability::Synced)?)
    }
}

/// The identity of the agent or of a member below a state directory, which need not be locked.
pub(crate) fn identity_in(root: &Path, name: &str) -> Result<Option<Identity>, StateError> {
    let place = root.join("identities").join(name);
    if !place.join(crate::core::CURRENT).is_symlink() {
        return Ok(None);
    }
    let generations = Generations::open(place.clone(), PRIVATE)?;
    let malformed = || StateError::Malformed(place.clone());
    let read = |file: &str| -> Result<String, StateError> {
        let bytes = generations.read(file)?.ok_or_else(malformed)?;
        String::from_utf8(bytes).map_err(|_| malformed())
    };
    let record = serde_json::from_str(&read(RECORD)?).map_err(|_| malformed())?;
    let certificate = Certificate::installed(&read(CHAIN)?).ok_or_else(malformed)?;
    Ok(Some(Identity { record, certificate, roots: read(ROOTS)? }))
}

/// Ciphertext that somebody left behind.
fn remove_scratch(root: &Path) -> Result<(), StateError> {
    let failed = |path: &Path, source| StateError::File { path: path.to_owned(), source };
    for entry in fs::read_dir(root).map_err(|source| failed(root, source))? {
        let path = entry.map_err(|source| failed(root, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(SCRATCH) {
            fs::remove_dir_all(&path).map_err(|source| failed(&path, source))?;
        }
    }
    Ok(())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where a secret of the agent's own is, below a generation.
pub(crate) fn own_path(name: &str, key: &str) -> String {
    secret_path(&format!("{OWN_NAMESPACE}/{name}/{key}"))
}

/// Where a secret is, below a generation.
pub(crate) fn secret_path(name: &str) -> String {
    format!("{SECRETS}{name}{SEALED}")
}

/// Where sealed secrets of a namespace are below a generation.
pub(crate) fn secret_directory(namespace: &str) -> String {
    format!("{SECRETS}{namespace}/")
}

/// Numbers of keys by identity.
fn keys_of(paths: &[String]) -> BTreeMap<String, Vec<u64>> {
    let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for path in paths {
        let own = path.strip_prefix(SECRETS).and_then(|path| path.strip_suffix(SEALED));
        let Some((OWN_NAMESPACE, rest)) = own.and_then(|own| own.split_once('/')) else { continue };
        let Some((name, key)) = rest.split_once('/') else { continue };
        if let Some(number) = key_number(key) {
            keys.entry(name.to_owned()).or_default().push(number);
        }
    }
    keys
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(bytes) = read_file(path)? else { return Ok(None) };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|_| StateError::Malformed(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(paths: &[&str]) -> BTreeMap<String, Vec<u8>> {
        paths.iter().map(|path| (secret_path(path), path.as_bytes().to_vec())).collect()
    }

    fn listed(state: &StateDirectory) -> Vec<String> {
        let strip =
            |path: String| path.strip_prefix(SECRETS).unwrap().strip_suffix(SEALED).unwrap().to_owned();
        state.secrets.list().unwrap().into_iter().map(strip).collect()
    }

    #[test]
    fn one_agent_has_a_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        assert!(matches!(StateDirectory::open(directory.path()), Err(StateError::Busy(_))));
        drop(state);
        StateDirectory::open(directory.path()).unwrap();
    }

    #[test]
    fn new_secrets_come_beside_those_that_stay() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        let publish = |new: &[&str], stays: bool| state.publish_secrets(&sealed(new), |_| stays).unwrap();
        assert!(publish(&["zen/agent/key-1", "zen/agent/binding", "edge/w/github"], true));
        assert!(!publish(&["zen/agent/key-1"], true), "nothing new");
        assert!(publish(&["zen/edge/key-1"], true));
        assert_eq!(
            listed(&state),
            ["edge/w/github", "zen/agent/binding", "zen/agent/key-1", "zen/edge/key-1"]
        );
        assert!(publish(&["zen/agent/key-2", "zen/agent/key-3"], false));
        // Neither key belongs to a certificate yet, so the newest counts; the configuration's is not wanted any more.
        assert_eq!(
            listed(&state),
            ["zen/agent/binding", "zen/agent/key-2", "zen/agent/key-3", "zen/edge/key-1"]
        );
        assert_eq!(state.keys("agent").unwrap(), [2, 3]);
        assert!(state.has_own(BINDING).unwrap() && !state.has_own(WITNESS).unwrap());
    }

    #[test]
    fn what_was_begun_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(directory.path()).unwrap();
        assert_eq!(state.pending().unwrap(), None);
        let pending = Pending { bundle_id: zen_control_api::Hex16([3; 16]), key: 4 };
        state.set_pending(Some(pending)).unwrap();
        assert_eq!(state.pending().unwrap(), Some(pending));
        state.set_pending(None).unwrap();
        state.set_pending(None).unwrap();
        assert_eq!(state.pending().unwrap(), None);
        fs::write(directory.path().join("enrollment.json"), "{").unwrap();
        assert!(matches!(state.pending(), Err(StateError::Malformed(_))));
        assert!(state.identity(AGENT).unwrap().is_none());
    }
}
