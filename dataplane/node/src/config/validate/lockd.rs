//! Secrets of the host's lockd: `lockd:NAMESPACE/NAME/KEY` where a file could be named.
//!
//! One connection serves one look at a configuration. That lockd cannot be asked is one fault, however many
//! secrets are in it; what it refuses is a fault of the key that names it.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;
use std::{io, mem};

use nix::unistd::User;
use zen_identity::{IdentityError, PrivateKeySource, PrivateKeyVault};
use zen_lock::{Client, ClientError, Listener, Refusal, SecretName};
use zeroize::Zeroizing;

use super::faults::Faults;
use crate::config::raw;

/// What a name in lockd begins with.
const SCHEME: &str = "lockd:";

/// Where lockd listens, and who it must be.
#[derive(Clone, Debug)]
pub(super) struct Lockd {
    socket: PathBuf,
    listener: Listener,
}

/// The host's lockd during one look at a configuration.
pub(super) enum Vault {
    /// No section names one.
    Absent,
    /// Not asked yet.
    Closed(Lockd),
    /// Being asked.
    Open(Lockd, Client),
    /// It cannot be asked, which is a fault already.
    Lost,
}

/// A private key in lockd; each opening is a connection of its own.
#[derive(Debug)]
struct PrivateKey {
    lockd: Lockd,
    name: SecretName,
}

impl Faults {
    /// Says which lockd is asked from here on.
    pub(in crate::config) fn set_lockd(&mut self, raw: Option<&raw::Lockd>) {
        let Some(raw) = raw else { return };
        let socket = self.resolve(&raw.socket);
        let listener = match &raw.user {
            None => Some(Listener::RootOrSelf),
            Some(user) => self.user(user).map(Listener::User),
        };
        self.vault = match listener {
            Some(listener) => Vault::Closed(Lockd { socket, listener }),
            None => Vault::Lost,
        };
    }

    /// Where a private key is: at this path, or in lockd.
    pub(in crate::config) fn private_key(&mut self, key: &str, place: &str) -> Option<PrivateKeySource> {
        let Some(name) = in_lockd(place) else { return Some(PrivateKeySource::File(self.resolve(place))) };
        let name = self.secret_name(key, name)?;
        let lockd = self.lockd(key)?;
        Some(PrivateKeySource::Vault(Arc::new(PrivateKey { lockd, name })))
    }

    /// Why a certificate is not there: a fault of `key`, or of its private key at `private_key`.
    pub(in crate::config) fn push_identity(&mut self, key: &str, private_key: &str, error: &IdentityError) {
        let refused = match error {
            IdentityError::Vault { source } => source.get_ref().and_then(|error| error.downcast_ref()),
            _ => None,
        };
        match refused {
            Some(error) => self.push_lockd(private_key, error),
            None => self.push(key, error, "see docs/operations.md"),
        }
    }

    /// The value of a secret in lockd.
    pub(super) fn open(&mut self, key: impl Display + Copy, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let name = self.secret_name(key, name)?;
        let lockd = self.lockd(key)?;
        if let Vault::Closed(_) = self.vault {
            match lockd.connect() {
                Ok(client) => self.vault = Vault::Open(lockd, client),
                Err(error) => self.push_lockd(key, &error),
            }
        }
        let Vault::Open(_, client) = &mut self.vault else { return None };
        client.open(&name).map_err(|error| self.push_lockd(key, &error)).ok()
    }

    fn secret_name(&mut self, key: impl Display, name: &str) -> Option<SecretName> {
        self.parse(key, name, "give lockd:NAMESPACE/NAME/KEY, or a path")
    }

    /// Which lockd there is to ask; that there is none is said for the first key that needs it.
    fn lockd(&mut self, key: impl Display) -> Option<Lockd> {
        if let Vault::Closed(lockd) | Vault::Open(lockd, _) = &self.vault {
            return Some(lockd.clone());
        }
        if let Vault::Absent = mem::replace(&mut self.vault, Vault::Lost) {
            self.push(key, "names a secret of lockd, which is not configured", "add [lockd] with its socket");
        }
        None
    }

    /// Whose fault it is that there is no secret: this key's, or once for all of them lockd's.
    fn push_lockd(&mut self, key: impl Display, error: &ClientError) {
        let is_of_key = match error {
            ClientError::Refused { refusal, .. } => is_of_name(*refusal),
            _ => false,
        };
        if !is_of_key && matches!(mem::replace(&mut self.vault, Vault::Lost), Vault::Lost) {
            return;
        }
        match error {
            ClientError::Refused { name, refusal } if is_of_key => {
                self.push(key, format_args!("{SCHEME}{name}: {refusal}"), remedy(*refusal));
            }
            ClientError::Refused { refusal, .. } => self.push("lockd.socket", refusal, remedy(*refusal)),
            ClientError::Connect { socket, source } => self.push(
                "lockd.socket",
                format_args!("{}: {source}", socket.display()),
                "start zen-lockd, and let this user reach its socket",
            ),
            ClientError::Stranger { socket, uid } => self.push(
                "lockd.user",
                format_args!(
                    "{}: user {uid} listens there, who is not trusted with secrets",
                    socket.display()
                ),
                "give the user that runs zen-lockd, or find out who took its place",
            ),
            ClientError::Io { socket, source } => self.push(
                "lockd.socket",
                format_args!("{}: {source}", socket.display()),
                "see the log of zen-lockd",
            ),
            ClientError::Wire { socket, source } => self.push(
                "lockd.socket",
                format_args!("{}: {source}", socket.display()),
                "name the socket of zen-lockd, of the same release as the node",
            ),
        }
    }

    /// The id of a user, by number or name.
    fn user(&mut self, user: &str) -> Option<u32> {
        if let Ok(uid) = user.parse() {
            return Some(uid);
        }
        let (key, remedy) = ("lockd.user", "give the name or number of the user that runs zen-lockd");
        match User::from_name(user) {
            Ok(Some(user)) => return Some(user.uid.as_raw()),
            Ok(None) => self.push(key, format_args!("\"{user}\": there is no such user"), remedy),
            Err(errno) => self.push(key, format_args!("\"{user}\": {errno}"), remedy),
        }
        None
    }
}

impl Lockd {
    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket, self.listener)
    }
}

impl PrivateKeyVault for PrivateKey {
    fn open(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let opened = self.lockd.connect().and_then(|mut client| client.open(&self.name));
        opened.map_err(io::Error::other)
    }
}

impl Display for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.name)
    }
}

/// What names a secret in lockd, if it is not a path.
pub(super) fn in_lockd(place: &str) -> Option<&str> {
    place.strip_prefix(SCHEME)
}

/// Whether another name might have been answered.
fn is_of_name(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Denied | Refusal::Missing | Refusal::Sealed => true,
        Refusal::Malformed | Refusal::Busy => false,
    }
}

fn remedy(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Denied => "grant it to this node in lockd's policy, or correct the name",
        Refusal::Missing => "seal it under this name, or correct the name",
        Refusal::Sealed => "mend what they say, or seal it again",
        Refusal::Malformed => "run a zen-lockd of the same release as the node",
        Refusal::Busy => "try again; if it stays so, see the log of zen-lockd",
    }
}
