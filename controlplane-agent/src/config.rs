//! The agent's own configuration: where its state is, which lockd, which nodes.
//!
//! TOML; relative paths are beside the file. What a node runs by is not here: the control plane says it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use serde::Deserialize;
use zen_lock::{Listener, SecretName};

use crate::core::OWN_NAMESPACE;
use crate::state::AGENT;

/// Most members of one agent.
pub(crate) const MEMBERS_MAX: usize = 256;
const CONFIG_BYTES_MAX: u64 = 1 << 20;
const LOCKD_PROGRAM: &str = "/usr/bin/zen-lockd";

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state directory.
    pub state_dir: PathBuf,
    /// Metrics for a textfile collector.
    pub metrics_file: Option<PathBuf>,
    pub(crate) lockd: LockdConfig,
    pub(crate) members: Vec<MemberConfig>,
}

/// How keys get into lockd, and out of it.
#[derive(Clone, Debug)]
pub(crate) struct LockdConfig {
    pub(crate) socket: PathBuf,
    pub(crate) listener: Listener,
    pub(crate) recipient: String,
    pub(crate) program: PathBuf,
    /// Where it keeps its receipts.
    pub(crate) receipts: Option<PathBuf>,
}

/// A node that is looked after.
#[derive(Clone, Debug)]
pub(crate) struct MemberConfig {
    pub(crate) name: String,
    pub(crate) managed: PathBuf,
    pub(crate) admin_socket: PathBuf,
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No TOML of this form.
    #[error("{}: {source}", file.display())]
    Form {
        /// Which file.
        file: PathBuf,
        /// What is wrong where.
        source: toml::de::Error,
    },
    /// A value that cannot be.
    #[error("{key}: {reason}")]
    Value {
        /// Which one.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    state_dir: PathBuf,
    recipient: String,
    #[serde(default = "lockd_program")]
    lockd_program: PathBuf,
    metrics_file: Option<PathBuf>,
    lockd: RawLockd,
    #[serde(default)]
    members: Vec<RawMember>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLockd {
    socket: PathBuf,
    user: Option<String>,
    receipts: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    name: String,
    managed: Option<PathBuf>,
    admin_socket: PathBuf,
}

impl Config {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { file: file.to_owned(), source };
        let is_short = fs::metadata(file).map_err(read)?.len() <= CONFIG_BYTES_MAX;
        is_short.then_some(()).ok_or_else(|| value("the file", "has over 1 MiB"))?;
        let text = fs::read_to_string(file).map_err(read)?;
        let raw =
            toml::from_str(&text).map_err(|source| ConfigError::Form { file: file.to_owned(), source })?;
        let directory = file.canonicalize().map_err(read)?;
        let directory = directory.parent().expect("a file is in a directory");
        raw_checked(raw, directory)
    }
}

fn raw_checked(raw: Raw, directory: &Path) -> Result<Config, ConfigError> {
    if !raw.recipient.starts_with("age1") {
        return Err(value(
            "recipient",
            "not the age1... that `zen-lockd pubkey` prints of the host's own key",
        ));
    }
    if raw.members.len() > MEMBERS_MAX {
        return Err(value("members", &format!("over {MEMBERS_MAX}")));
    }
    let state_dir = directory.join(raw.state_dir);
    let listener = match raw.lockd.user.as_deref() {
        None => Listener::RootOrSelf,
        Some(user) => Listener::User(user_id(user)?),
    };
    let mut names = BTreeSet::new();
    let mut members = Vec::with_capacity(raw.members.len());
    for RawMember { name, managed, admin_socket } in raw.members {
        let is_name = name.len() <= zen_control_api::MEMBER_BYTES_MAX && SecretName::is_segment(&name);
        if !is_name || name == AGENT || !names.insert(name.clone()) {
            let reason =
                "each has a name of its own: 1 to 64 of A-Z a-z 0-9 . _ -, not `agent`, no dot first";
            return Err(value("members.name", reason));
        }
        let managed = match managed {
            Some(managed) => directory.join(managed),
            None => state_dir.join("members").join(&name),
        };
        members.push(MemberConfig { name, managed, admin_socket: directory.join(admin_socket) });
    }
    Ok(Config {
        lockd: LockdConfig {
            socket: directory.join(raw.lockd.socket),
            listener,
            recipient: raw.recipient,
            program: directory.join(raw.lockd_program),
            receipts: raw.lockd.receipts.map(|receipts| directory.join(receipts)),
        },
        metrics_file: raw.metrics_file.map(|file| directory.join(file)),
        state_dir,
        members,
    })
}

fn user_id(user: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let found = User::from_name(user).ok().flatten();
    found.map(|user| user.uid.as_raw()).ok_or_else(|| value("lockd.user", "no such user on this host"))
}

fn value(key: &str, reason: &str) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), reason: reason.to_owned() }
}

fn lockd_program() -> PathBuf {
    LOCKD_PROGRAM.into()
}

const _: () = assert!(!OWN_NAMESPACE.is_empty());

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "state_dir = \"state\"\nrecipient = \"age1abc\"\n[lockd]\nsocket = \"/run/lockd.sock\"\n\
                        [[members]]\nname = \"edge-1\"\nadmin_socket = \"admin.sock\"\n";

    fn read(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agent.toml");
        fs::write(&file, text).unwrap();
        Config::read(&file)
    }

    #[test]
    fn defaults_work() {
        let config = read(GOOD).unwrap();
        assert_eq!(config.lockd.program, Path::new(LOCKD_PROGRAM));
        assert_eq!(config.members[0].managed, config.state_dir.join("members/edge-1"));
        assert!(config.state_dir.is_absolute() && config.members[0].admin_socket.is_absolute());
    }

    #[test]
    fn a_file_may_be_named_without_its_directory() {
        let error = Config::read(Path::new("Cargo.toml")).unwrap_err();
        assert!(matches!(error, ConfigError::Form { .. }), "found, and no configuration: {error}");
        let linked = tempfile::tempdir().unwrap();
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("agent.toml"), GOOD).unwrap();
        let link = linked.path().join("agent.toml");
        std::os::unix::fs::symlink(place.path().join("agent.toml"), &link).unwrap();
        let config = Config::read(&link).unwrap();
        assert_eq!(config.state_dir, place.path().canonicalize().unwrap().join("state"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        let member = "[[members]]\nname = \"edge-1\"\nadmin_socket = \"x\"\n";
        for (text, key) in [
            (GOOD.replace("age1abc", "AGE-SECRET-KEY-1"), "recipient"),
            (GOOD.replace("edge-1", "../x"), "members.name"),
            (GOOD.replace("edge-1", "agent"), "members.name"),
            (format!("{GOOD}{member}"), "members.name"),
            (GOOD.replace("[[members]]", "user = \"no-such-user\"\n[[members]]"), "lockd.user"),
            (GOOD.replace("state_dir", "state"), "state"),
            (format!("{GOOD}more = 1\n"), "more"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
