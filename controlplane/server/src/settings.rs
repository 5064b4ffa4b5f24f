//! How a server runs: an operator's TOML file in, settings out. Options of the command line come first.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::sign_in::{OidcSettings, RawOidc};
use crate::{AuditSettings, ControlError, Settings, WebSettings, directory};

/// Longest file, bytes.
const SETTINGS_BYTES_MAX: u64 = 64 * 1024;
/// Most connections that may be asked for.
const CONNECTIONS_LIMIT_MAX: usize = 65_536;
/// Most names that browsers may know the listener by.
const WEB_NAMES_MAX: usize = 16;
/// Longest wait of a request for a configuration, s: agents give up after 90.
const LONG_POLL_SECONDS_MAX: u64 = 75;

/// All that `run` is told.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The control plane's directory.
    pub directory: PathBuf,
    /// The listener for agents.
    pub agents: Settings,
    /// Most connections of agents at a time.
    pub connections_max: usize,
    /// Where people connect.
    pub people: SocketAddr,
    /// Where browsers connect, if anywhere.
    pub web: Option<WebSettings>,
    /// Where metrics are asked for, if anywhere.
    pub metrics: Option<MetricsPlace>,
    /// Where the audit log is, beside the database.
    pub audit: AuditSettings,
    /// Go on although entries of it are lost.
    pub accept_truncation: bool,
    /// Filter of the log.
    pub log: String,
}

/// Where metrics are asked for; nobody proves who he is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsPlace {
    /// A unix socket, mode 0660.
    Socket(PathBuf),
    /// A loopback address.
    Loopback(SocketAddr),
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// In place of `directory`.
    pub directory: Option<PathBuf>,
    /// In place of `agents.listen`.
    pub listen: Option<SocketAddr>,
    /// In place of `people.listen`.
    pub people_listen: Option<SocketAddr>,
    /// In place of `web.listen`.
    pub web_listen: Option<SocketAddr>,
    /// In place of `agents.long_poll_seconds`.
    pub long_poll: Option<Duration>,
    /// Go on although entries of the audit log are lost.
    pub accept_truncation: bool,
    /// In place of `log`.
    pub log: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawSettings {
    directory: Option<PathBuf>,
    log: Option<String>,
    agents: RawAgents,
    people: RawPeople,
    web: RawWeb,
    oidc: Option<RawOidc>,
    metrics: RawMetrics,
    audit: RawAudit,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAgents {
    listen: Option<SocketAddr>,
    long_poll_seconds: Option<u64>,
    connections_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPeople {
    listen: Option<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawWeb {
    listen: Option<SocketAddr>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    names: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAudit {
    checkpoint_file: Option<PathBuf>,
    export_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMetrics {
    listen: Option<SocketAddr>,
    socket: Option<PathBuf>,
}

impl RunSettings {
    /// Of a file, if there is one, and the command line.
    pub fn read(file: Option<&Path>, options: RunOptions) -> Result<Self, ControlError> {
        let Some(path) = file else { return Self::new(RawSettings::default(), options, Path::new("")) };
        let text = directory::read_text(path, SETTINGS_BYTES_MAX)?;
        let raw = toml::from_str(&text)
            .map_err(|source| ControlError::Settings { path: path.to_owned(), source: Box::new(source) })?;
        Self::new(raw, options, path.parent().unwrap_or(Path::new("")))
    }

    /// Relative paths lead from the directory of the file.
    fn new(raw: RawSettings, options: RunOptions, from: &Path) -> Result<Self, ControlError> {
        let directory = options.directory.or(raw.directory.map(|path| from.join(path)));
        let connections_max = raw.agents.connections_max.unwrap_or(crate::listener::CONNECTIONS_MAX);
        if !(1..=CONNECTIONS_LIMIT_MAX).contains(&connections_max) {
            return Err(ControlError::Argument("agents.connections_max is 1 to 65536"));
        }
        let long_poll = raw.agents.long_poll_seconds.map(Duration::from_secs).or(options.long_poll);
        let long_poll = options.long_poll.or(long_poll).unwrap_or(Duration::from_secs(55));
        if !(1..=LONG_POLL_SECONDS_MAX).contains(&long_poll.as_secs()) {
            return Err(ControlError::Argument("agents.long_poll_seconds, or --long-poll, is 1 to 75 s"));
        }
        let metrics = match (raw.metrics.listen, raw.metrics.socket) {
            (None, None) => None,
            (None, Some(socket)) => Some(MetricsPlace::Socket(from.join(socket))),
            (Some(listen), None) if listen.ip().is_loopback() => Some(MetricsPlace::Loopback(listen)),
            (Some(_), None) => {
                return Err(ControlError::Argument(
                    "metrics.listen is a loopback address: nobody is asked who he is",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(ControlError::Argument("metrics has one of listen and socket"));
            }
        };
        let oidc = raw.oidc.map(|oidc| oidc.settings(from)).transpose()?;
        let web = raw.web.settings((options.web_listen, oidc), from)?;
        let address =
            |set: Option<SocketAddr>, default: ([u8; 4], u16)| set.unwrap_or_else(|| default.into());
        Ok(Self {
            directory: directory.ok_or(ControlError::Argument("say --dir, or directory in --config"))?,
            agents: Settings {
                listen: address(options.listen.or(raw.agents.listen), ([0; 4], 8444)),
                long_poll,
            },
            connections_max,
            people: address(options.people_listen.or(raw.people.listen), ([127, 0, 0, 1], 8445)),
            web,
            metrics,
            audit: AuditSettings {
                checkpoint_file: raw.audit.checkpoint_file.map(|path| from.join(path)),
                export_file: raw.audit.export_file.map(|path| from.join(path)),
            },
            accept_truncation: options.accept_truncation,
            log: options.log.or(raw.log).unwrap_or_else(|| "info".to_owned()),
        })
    }
}

impl RawWeb {
    /// None unless somebody says where.
    fn settings(
        self,
        (listen, oidc): (Option<SocketAddr>, Option<OidcSettings>),
        from: &Path,
    ) -> Result<Option<WebSettings>, ControlError> {
        let certificate = match (self.certificate, self.private_key) {
            (Some(certificate), Some(key)) => Some((from.join(certificate), from.join(key))),
            (None, None) if self.names.is_empty() => None,
            (None, None) => {
                return Err(ControlError::Argument(
                    "web.names need web.certificate and web.private_key: the own certificate is for localhost",
                ));
            }
            _ => return Err(ControlError::Argument("web.certificate and web.private_key come together")),
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
        let is_name = |name: &String| !name.is_empty() && name.bytes().all(is_host);
        if self.names.len() > WEB_NAMES_MAX || !self.names.iter().all(is_name) {
            return Err(ControlError::Argument("web.names are up to 16 names of hosts, without ports"));
        }
        let listen = listen.or(self.listen);
        Ok(listen.map(|listen| WebSettings { listen, certificate, names: self.names, oidc }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, options: RunOptions) -> Result<RunSettings, ControlError> {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("control.toml");
        std::fs::write(&path, text).unwrap();
        RunSettings::read(Some(&path), options)
    }

    #[test]
    fn a_file_says_all_of_it_and_the_command_line_more() {
        let text = "directory = \"/var/lib/zen-control\"\nlog = \"warn\"\n[agents]\nlisten = \"[::]:1\"\nlong_poll_seconds = 20\n\
            connections_max = 9\n[people]\nlisten = \"10.0.0.1:2\"\n[web]\nlisten = \"127.0.0.1:3\"\n[metrics]\nsocket = \"m.sock\"\n";
        let settings = read(text, RunOptions::default()).unwrap();
        assert_eq!(settings.directory, Path::new("/var/lib/zen-control"));
        assert_eq!((settings.agents.listen.port(), settings.agents.long_poll.as_secs()), (1, 20));
        assert_eq!((settings.connections_max, settings.people.port(), settings.log.as_str()), (9, 2, "warn"));
        assert_eq!(settings.web.map(|web| web.listen.port()), Some(3));
        assert!(matches!(settings.metrics, Some(MetricsPlace::Socket(path)) if path.is_absolute()));
        let options = RunOptions {
            directory: Some("here".into()),
            long_poll: Some(Duration::from_secs(5)),
            log: Some("debug".to_owned()),
            ..RunOptions::default()
        };
        let settings = read(text, options).unwrap();
        assert_eq!((settings.directory.to_str(), settings.log.as_str()), (Some("here"), "debug"));
        assert_eq!((settings.agents.long_poll.as_secs(), settings.agents.listen.port()), (5, 1));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, said) in [
            ("directory = \"a\"\nmore = 1", "more"),
            ("log = \"info\"", "--dir"),
            ("directory = \"a\"\n[agents]\nconnections_max = 0", "connections_max"),
            ("directory = \"a\"\n[agents]\nlong_poll_seconds = 76", "long_poll"),
            ("directory = \"a\"\n[web]\ncertificate = \"c\"", "private_key"),
            ("directory = \"a\"\n[web]\nnames = [\"control.example\"]", "web.certificate"),
            (
                "directory = \"a\"\n[web]\ncertificate = \"c\"\nprivate_key = \"k\"\nnames = [\"a b\"]",
                "web.names",
            ),
            ("directory = \"a\"\n[metrics]\nlisten = \"0.0.0.0:1\"", "loopback"),
            ("directory = \"a\"\n[metrics]\nlisten = \"127.0.0.1:1\"\nsocket = \"s\"", "one of"),
        ] {
            let error = read(text, RunOptions::default()).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
