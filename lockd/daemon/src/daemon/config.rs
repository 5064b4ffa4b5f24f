//! The daemon's configuration: a TOML file becomes checked settings. Every path may be relative to the file.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use serde::Deserialize;

use super::caller::is_unit;
use crate::files::{KeyFile, KeyFileError, KeySource, PathFault, SealedFiles, check_path};
use crate::memory::LockMemory;
use crate::policy::{Grant, Pattern, Policy, Signed};
use crate::receipts::Limits;
use crate::vault::{AuthorError, Identities, KeyError};

/// Longest configuration, bytes.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;
const GRANTS_MAX: usize = 1024;
const RECEIPTS_BYTES_DEFAULT: u64 = 64 << 20;
const RECEIPTS_BYTES_MIN: u64 = 64 << 10;
const DIGEST_INTERVAL_S_DEFAULT: u64 = 3600;
const DIGEST_RECEIPTS_DEFAULT: u64 = 4096;
const SOCKET_MODE_DEFAULT: u32 = 0o666;

/// What a daemon runs by.
#[derive(Debug)]
pub struct Config {
    /// Where it listens.
    pub socket: PathBuf,
    /// Who may connect; policy decides what then.
    pub socket_mode: u32,
    /// Whether memory must be locked.
    pub lock_memory: LockMemory,
    /// Where receipts go, and what bounds them.
    pub receipts: (PathBuf, Limits),
    /// Prometheus text, written every ten seconds.
    pub metrics_file: Option<PathBuf>,
    /// What can change while it runs.
    pub changing: Changing,
}

/// What a reload brings into force.
#[derive(Debug)]
pub struct Changing {
    /// lockd's own keys.
    pub keys: Identities,
    /// Where sealed files are.
    pub files: SealedFiles,
    /// Who may have what.
    pub policy: Policy,
}

/// Why a configuration is refused. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("{}: {source}; give the configuration with --config, docs/secrets.md has one", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else could write it.
    #[error("{0}")]
    Path(#[from] PathFault),
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{}: {message}see docs/secrets.md for the keys", file.display())]
    Parse {
        /// Which.
        file: PathBuf,
        /// Line and key.
        message: String,
    },
    /// A value that is none.
    #[error("{key}: {problem}")]
    Value {
        /// The key, with its index.
        key: String,
        /// What is wrong and what to give.
        problem: String,
    },
    /// The own key.
    #[error("key_file: {0}")]
    KeyFile(#[from] KeyFileError),
    /// What is in its file.
    #[error("key_file: {0}")]
    Key(#[from] KeyError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    socket: PathBuf,
    socket_mode: Option<String>,
    key_file: PathBuf,
    metrics_file: Option<PathBuf>,
    secrets: RawSecrets,
    receipts: RawReceipts,
    #[serde(default)]
    memory: RawMemory,
    #[serde(default)]
    grants: Vec<RawGrant>,
    #[serde(default)]
    signed: Vec<RawSigned>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSecrets {
    directory: Option<PathBuf>,
    generations: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReceipts {
    directory: PathBuf,
    bytes_max: Option<u64>,
    digest_interval_s: Option<u64>,
    digest_receipts_max: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawMemory {
    lock: LockMemory,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    user: Option<String>,
    group: Option<String>,
    executable: Option<PathBuf>,
    unit: Option<String>,
    secrets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSigned {
    secrets: Vec<String>,
    authors: Vec<String>,
}

impl Config {
    /// Reads and checks a configuration, the own key and the directory that it names.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let (raw, base) = read_raw(file)?;
        checked(raw, &|path: &Path| base.join(path))
    }

    /// Where receipts go by a configuration, without its keys: for commands beside the daemon.
    pub fn read_receipts(file: &Path) -> Result<(PathBuf, Limits), ConfigError> {
        let (raw, base) = read_raw(file)?;
        receipts(&raw.receipts, &|path: &Path| base.join(path))
    }
}

/// With the directory that its paths are relative to.
fn read_raw(file: &Path) -> Result<(Raw, PathBuf), ConfigError> {
    let failed = |source| ConfigError::Read { file: file.to_owned(), source };
    let file = std::path::absolute(file).map_err(failed)?;
    std::fs::metadata(&file).map_err(failed)?;
    check_path(&file)?;
    let text = std::fs::read_to_string(&file).map_err(failed)?;
    Ok((parse(&file, &text)?, file.parent().unwrap_or(Path::new("/")).to_owned()))
}

/// Only the rules of a text, for fuzzing: whatever is refused is refused with a reason.
pub(crate) fn policy_of(text: &str) -> Result<Policy, ConfigError> {
    let raw = parse(Path::new("text"), text)?;
    policy(&raw.grants, &raw.signed)
}

fn parse(file: &Path, text: &str) -> Result<Raw, ConfigError> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(value("file", format_args!("over {CONFIG_BYTES_MAX} bytes")));
    }
    toml::from_str(text)
        .map_err(|error| ConfigError::Parse { file: file.to_owned(), message: error.to_string() })
}

fn checked(raw: Raw, resolve: &dyn Fn(&Path) -> PathBuf) -> Result<Config, ConfigError> {
    let files = match (&raw.secrets.directory, &raw.secrets.generations) {
        (Some(directory), None) => SealedFiles::Directory(resolve(directory)),
        (None, Some(generations)) => SealedFiles::Generations(resolve(generations)),
        _ => return Err(value("secrets", "give either directory or generations")),
    };
    files.check()?;
    let key_file = resolve(&raw.key_file);
    if key_file.starts_with(files.root()) {
        return Err(value(
            "key_file",
            "lies among what it opens; keep it elsewhere, so that no copy has both",
        ));
    }
    let keys = Identities::parse(&KeyFile(key_file).read()?)?;
    let policy = policy(&raw.grants, &raw.signed)?;
    let socket = resolve(&raw.socket);
    // Whoever may rename in this directory could listen in our place.
    check_path(socket.parent().unwrap_or(Path::new("/")))?;
    let receipts = receipts(&raw.receipts, resolve)?;
    Ok(Config {
        socket,
        socket_mode: raw.socket_mode.as_deref().map_or(Ok(SOCKET_MODE_DEFAULT), socket_mode)?,
        lock_memory: raw.memory.lock,
        receipts,
        metrics_file: raw.metrics_file.as_deref().map(resolve),
        changing: Changing { keys, files, policy },
    })
}

fn receipts(raw: &RawReceipts, resolve: &dyn Fn(&Path) -> PathBuf) -> Result<(PathBuf, Limits), ConfigError> {
    let bytes_max = raw.bytes_max.unwrap_or(RECEIPTS_BYTES_DEFAULT);
    if bytes_max < RECEIPTS_BYTES_MIN {
        return Err(value("receipts.bytes_max", format_args!("give {RECEIPTS_BYTES_MIN} or more")));
    }
    let interval_s = raw.digest_interval_s.unwrap_or(DIGEST_INTERVAL_S_DEFAULT);
    let digest_receipts_max = raw.digest_receipts_max.unwrap_or(DIGEST_RECEIPTS_DEFAULT);
    for (key, given) in [("digest_interval_s", interval_s), ("digest_receipts_max", digest_receipts_max)] {
        if given == 0 {
            return Err(value(&format!("receipts.{key}"), "give 1 or more"));
        }
    }
    let digest_interval_ms = interval_s.saturating_mul(1000);
    Ok((resolve(&raw.directory), Limits { bytes_max, digest_interval_ms, digest_receipts_max }))
}

fn policy(grants: &[RawGrant], signed: &[RawSigned]) -> Result<Policy, ConfigError> {
    if grants.len() + signed.len() > GRANTS_MAX {
        return Err(value("grants", format_args!("at most {GRANTS_MAX}")));
    }
    let grants = grants.iter().enumerate().map(|(index, raw)| grant(&format!("grants[{index}]"), raw));
    let signed =
        signed.iter().enumerate().map(|(index, raw)| must_be_signed(&format!("signed[{index}]"), raw));
    Ok(Policy { grants: grants.collect::<Result<_, _>>()?, signed: signed.collect::<Result<_, _>>()? })
}

fn grant(key: &str, raw: &RawGrant) -> Result<Grant, ConfigError> {
    if raw.user.is_none() && raw.group.is_none() && raw.executable.is_none() && raw.unit.is_none() {
        return Err(value(key, "names nobody; give user, group, executable or unit"));
    }
    if let Some(executable) = &raw.executable {
        check_path(executable).map_err(|fault| value(&format!("{key}.executable"), fault))?;
    }
    if raw.unit.as_ref().is_some_and(|unit| !is_unit(unit)) {
        return Err(value(
            &format!("{key}.unit"),
            "give the name of a service or scope, such as zen.service",
        ));
    }
    Ok(Grant {
        uid: raw.user.as_deref().map(|name| user(&format!("{key}.user"), name)).transpose()?,
        gid: raw.group.as_deref().map(|name| group(&format!("{key}.group"), name)).transpose()?,
        executable: raw.executable.clone(),
        unit: raw.unit.clone(),
        secrets: patterns(key, &raw.secrets)?,
    })
}

fn must_be_signed(key: &str, raw: &RawSigned) -> Result<Signed, ConfigError> {
    if raw.authors.is_empty() {
        return Err(value(&format!("{key}.authors"), "is empty, so nothing could be opened; name an author"));
    }
    let authors = raw.authors.iter().map(|author| author.parse());
    let authors = authors.collect::<Result<_, AuthorError>>();
    let authors = authors.map_err(|error| value(&format!("{key}.authors"), error))?;
    Ok(Signed { secrets: patterns(key, &raw.secrets)?, authors })
}

fn patterns(key: &str, texts: &[String]) -> Result<Vec<Pattern>, ConfigError> {
    let of = |text: &String| {
        let problem =
            format_args!("\"{text}\" is none; give NAMESPACE/NAME/KEY, NAMESPACE/NAME/* or NAMESPACE/*");
        Pattern::parse(text).ok_or_else(|| value(&format!("{key}.secrets"), problem))
    };
    if texts.is_empty() {
        return Err(value(&format!("{key}.secrets"), "is empty; name a secret"));
    }
    texts.iter().map(of).collect()
}

/// A name, or a number.
fn user(key: &str, name: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(value(key, format_args!("there is no user \"{name}\""))),
        Err(errno) => Err(value(key, errno)),
    }
}

/// A name, or a number.
fn group(key: &str, name: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(value(key, format_args!("there is no group \"{name}\""))),
        Err(errno) => Err(value(key, errno)),
    }
}

fn socket_mode(text: &str) -> Result<u32, ConfigError> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| mode & !0o777 == 0);
    mode.ok_or_else(|| value("socket_mode", "give an octal mode, such as \"0660\""))
}

fn value(key: &str, problem: impl ToString) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), problem: problem.to_string() }
}
