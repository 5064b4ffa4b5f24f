//! Collecting faults: every reader answers with an option, so that the next key is still looked at.

use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zen_core::crypto::Mac;
use zen_core::deliver::parse_secret;
use zen_core::id::is_name;
use zeroize::Zeroizing;

use super::lockd::{Vault, in_lockd};
use super::reach::check_literal;
use crate::config::Fault;
use crate::config::settings::HostPort;
use crate::crypto::NodeCrypto;
use crate::reach::LINK_PEERS;

/// Longest secret, bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// Collects faults; every reader returns an option so that the next key is still looked at.
pub(in crate::config) struct Faults {
    file: String,
    base: PathBuf,
    pub(super) vault: Vault,
    /// In the order of discovery.
    pub(in crate::config) found: Vec<Fault>,
}

impl Faults {
    pub(in crate::config) fn new(file: &Path) -> Self {
        let base = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self { file: file.display().to_string(), base, vault: Vault::Absent, found: Vec::new() }
    }

    /// Relative paths are relative to the configuration file.
    pub(in crate::config) fn resolve(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    pub(in crate::config) fn push(&mut self, key: impl Display, problem: impl Display, remedy: impl Display) {
        self.found.push(Fault {
            file: self.file.clone(),
            key: key.to_string(),
            problem: problem.to_string(),
            remedy: remedy.to_string(),
        });
    }

    pub(super) fn bound<T: PartialOrd + Display>(&mut self, key: impl Display, value: T, low: T, high: T) {
        if value < low || value > high {
            self.push(key, format_args!("{value} is out of bounds"), format_args!("give {low} to {high}"));
        }
    }

    pub(super) fn name(&mut self, key: impl Display, value: &str) {
        if !is_name(value) {
            self.push(key, format_args!("\"{value}\" is not a name"), "use 1 to 64 of A-Z a-z 0-9 . _ -");
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(
        &mut self,
        key: impl Display,
        value: &str,
        remedy: &str,
    ) -> Option<T> {
        value.parse().map_err(|error| self.push(key, format_args!("\"{value}\": {error}"), remedy)).ok()
    }

    /// Text in a file, or in lockd.
    pub(super) fn secret(&mut self, key: impl Display + Copy, place: &str) -> Option<Zeroizing<String>> {
        match in_lockd(place) {
            Some(name) => {
                let value = self.open(key, name)?;
                self.text(key, place, &value)
            }
            None => self.secret_file(key, place),
        }
    }

    fn secret_file(&mut self, key: impl Display + Copy, name: &str) -> Option<Zeroizing<String>> {
        let path = self.resolve(name);
        let shown = path.display().to_string();
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.push(key, format_args!("{shown}: {error}"), "write the secret to this file, mode 0600");
                return None;
            }
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            self.push(key, format_args!("{shown} is readable by others"), format_args!("chmod 0600 {shown}"));
            return None;
        }
        if metadata.len() > SECRET_BYTES_MAX as u64 {
            self.push(key, format_args!("{shown} is over {SECRET_BYTES_MAX} bytes"), "put one secret in it");
            return None;
        }
        match std::fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => self.text(key, &shown, &bytes),
            Err(error) => {
                self.push(key, format_args!("{shown}: {error}"), "let this user read it");
                None
            }
        }
    }

    /// A secret without the white space around it.
    fn text(&mut self, key: impl Display, shown: &str, bytes: &[u8]) -> Option<Zeroizing<String>> {
        if bytes.len() > SECRET_BYTES_MAX {
            self.push(key, format_args!("{shown} is over {SECRET_BYTES_MAX} bytes"), "put one secret in it");
            return None;
        }
        match std::str::from_utf8(bytes).map(str::trim) {
            Ok("") => self.push(key, format_args!("{shown} is empty"), "write the secret to it"),
            Ok(text) => return Some(Zeroizing::new(text.to_owned())),
            Err(error) => self.push(key, format_args!("{shown}: {error}"), "the secret must be text"),
        }
        None
    }

    /// A `whsec_` secret as a prepared key.
    pub(super) fn key(&mut self, key: impl Display + Copy, name: &str) -> Option<zen_hmac::PreparedKey> {
        self.whsec(key, name).map(|secret| NodeCrypto.prepare(&secret))
    }

    /// A `whsec_` secret.
    pub(super) fn whsec(&mut self, key: impl Display + Copy, name: &str) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.secret(key, name)?;
        match parse_secret(&text) {
            Ok(secret) => Some(secret),
            Err(error) => {
                self.push(key, error, "write whsec_ and the base64 of 24 to 64 random bytes");
                None
            }
        }
    }

    pub(super) fn host_port(&mut self, key: impl Display + Copy, value: &str) -> Option<HostPort> {
        let parsed = value.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            Some(HostPort { host: host.to_owned(), port: port.parse().ok()? })
        });
        match parsed {
            Some(address) if !address.host.is_empty() && address.port != 0 => Some(address),
            _ => {
                self.push(
                    key,
                    format_args!("\"{value}\" is not host:port"),
                    "give a name or address and a port",
                );
                None
            }
        }
    }

    pub(super) fn dial_address(
        &mut self,
        key: &str,
        dials: bool,
        listens: bool,
        address: Option<&String>,
    ) -> Option<HostPort> {
        let address_key = format!("{key}.address");
        match (dials, address) {
            (true, Some(address)) => {
                let address = self.host_port(&address_key, address)?;
                let remedy = "give the address in its own form, or name another";
                check_literal(&address_key, &LINK_PEERS, &address, remedy, self);
                Some(address)
            }
            (true, None) => {
                self.push(&address_key, "is missing", "this side dials: say where");
                None
            }
            (false, Some(_)) => {
                self.push(&address_key, "is given, but the peer dials", "remove it or change the direction");
                None
            }
            (false, None) if !listens => {
                self.push(key, "the peer dials, but link_listen is not set", "set link_listen");
                None
            }
            (false, None) => None,
        }
    }
}
