//! The host's vault: keys are sealed by running `zen-lockd seal`, and opened over the daemon's socket.
//!
//! A key reaches `zen-lockd` through a pipe: neither arguments nor the environment, which others can read.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use zen_identity::PrivateKeyVault;
use zen_lock::{Client, ClientError, SecretName};
use zeroize::Zeroizing;

use crate::config::LockdConfig;
use crate::core::OWN_NAMESPACE;
use crate::files::{FileError, PRIVATE, make_directory, read_file};

/// Sealing takes milliseconds.
const SEAL_TIMEOUT: Duration = Duration::from_secs(10);
const SEAL_POLL: Duration = Duration::from_millis(5);

/// The host's lockd.
#[derive(Clone, Debug)]
pub(crate) struct Lockd(pub(crate) LockdConfig);

/// A private key in lockd.
#[derive(Clone, Debug)]
pub(crate) struct KeyInLockd {
    pub(crate) lockd: Lockd,
    pub(crate) name: SecretName,
}

/// Why a key could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum LockdError {
    /// The program cannot be run.
    #[error("{}: {source}; lockd_program names zen-lockd", program.display())]
    Run {
        /// Which program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not seal.
    #[error("{} seal: {said}", program.display())]
    Seal {
        /// Which program.
        program: PathBuf,
        /// Its words.
        said: String,
    },
    /// It does not hand out what was sealed.
    #[error(
        "{0}; does its `recipient` belong to this host's lockd, and does a grant give the agent zen/agent/*?"
    )]
    Open(#[from] ClientError),
    /// It hands out something else.
    #[error("{0}: what lockd hands out is not what was sealed")]
    Other(SecretName),
    /// The file system.
    #[error("{}: {source}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<FileError> for LockdError {
    fn from(FileError { path, source }: FileError) -> Self {
        Self::File { path, source }
    }
}

/// The name of a secret of the agent's own.
pub(crate) fn own_secret(name: &str, key: &str) -> SecretName {
    SecretName::new(OWN_NAMESPACE, name, key)
        .expect("names of members and keys are parts of names of secrets")
}

impl Lockd {
    /// Seals values, by their keys, for `zen/NAME`: ciphertexts in the same order. `scratch` is made and removed.
    pub(crate) fn seal(
        &self,
        name: &str,
        values: &[(String, Zeroizing<String>)],
        scratch: &Path,
    ) -> Result<Vec<Vec<u8>>, LockdError> {
        self.seal_for((OWN_NAMESPACE, name), &[&self.0.recipient], values, scratch)
    }

    /// The same for `NAMESPACE/NAME`, to several recipients.
    pub(crate) fn seal_for(
        &self,
        (namespace, name): (&str, &str),
        recipients: &[&str],
        values: &[(String, Zeroizing<String>)],
        scratch: &Path,
    ) -> Result<Vec<Vec<u8>>, LockdError> {
        clear(scratch)?;
        make_directory(scratch, PRIVATE.directory)?;
        let program = &self.0.program;
        let run = |source| LockdError::Run { program: program.clone(), source };
        let mut command = Command::new(program);
        command.arg("seal").args(recipients.iter().flat_map(|recipient| ["--recipient", recipient]));
        command
            .args(["--namespace", namespace, "--name", name, "--from-json", "-", "--out-dir"])
            .arg(scratch);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(run)?;
        let json = json_of(values);
        let mut stdin = child.stdin.take().expect("it is a pipe");
        // A program that ended says why on its standard error.
        let _ = stdin.write_all(json.as_bytes());
        drop(stdin);
        let is_done = wait(&mut child).map_err(run)?;
        let output = child.wait_with_output().map_err(run)?;
        if !is_done || !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let said = if is_done { said } else { format!("killed after {SEAL_TIMEOUT:?} {said}") };
            return Err(LockdError::Seal { program: program.clone(), said });
        }
        let place = scratch.join(namespace).join(name);
        let missing =
            |path: &Path| LockdError::File { path: path.to_owned(), source: io::ErrorKind::NotFound.into() };
        let read = |(key, _): &(String, _)| {
            let path = place.join(format!("{key}.age"));
            read_file(&path)?.ok_or_else(|| missing(&path))
        };
        let sealed = values.iter().map(read).collect::<Result<_, LockdError>>()?;
        clear(scratch)?;
        Ok(sealed)
    }

    /// Opens a secret; blocks for some milliseconds, five seconds at most.
    pub(crate) fn open(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, LockdError> {
        Ok(Client::connect(&self.0.socket, self.0.listener)?.open(name)?)
    }
}

impl PrivateKeyVault for KeyInLockd {
    fn open(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        self.lockd.open(&self.name).map_err(io::Error::other)
    }
}

impl std::fmt::Display for KeyInLockd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lockd:{}", self.name)
    }
}

/// An object of texts; nothing of it is in memory that is not wiped.
fn json_of(values: &[(String, Zeroizing<String>)]) -> Zeroizing<String> {
    let length = values.iter().map(|(key, value)| key.len() + 2 * value.len() + 8).sum::<usize>() + 2;
    let mut json = Zeroizing::new(String::with_capacity(length));
    json.push('{');
    for (at, (key, value)) in values.iter().enumerate() {
        json.push_str(if at == 0 { "\"" } else { ",\"" });
        json.push_str(key);
        json.push_str("\":\"");
        for letter in value.chars() {
            assert!(letter == '\n' || (' '..='~').contains(&letter), "keys are printable");
            match letter {
                '\n' => json.push_str("\\n"),
                '"' | '\\' => json.extend(['\\', letter]),
                letter => json.push(letter),
            }
        }
        json.push('"');
    }
    json.push('}');
    json
}

/// Whether it ended in time; it has ended either way.
fn wait(child: &mut Child) -> io::Result<bool> {
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > SEAL_TIMEOUT {
            child.kill()?;
            return Ok(false);
        }
        std::thread::sleep(SEAL_POLL);
    }
    Ok(true)
}

fn clear(scratch: &Path) -> Result<(), LockdError> {
    match fs::remove_dir_all(scratch) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LockdError::File { path: scratch.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_s_text_is_the_json_that_was_meant() {
        let values = [("key-1", "-----BEGIN\nab\"\\+/=\n"), ("binding", "x")];
        let values = values.map(|(key, value)| (key.to_owned(), Zeroizing::new(value.to_owned())));
        let json = json_of(&values);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read, serde_json::json!({ "key-1": &*values[0].1, "binding": "x" }));
        assert!(json.capacity() >= json.len());
    }
}
