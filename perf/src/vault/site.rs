//! Files of the `vault` command: secrets of as many endpoints as are asked for, in clear and sealed, a lockd, and
//! the configurations of a node that takes them from either.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use nix::unistd::getuid;
use zen_lock::SecretName;

use crate::error::LabError;
use crate::lab::{Process, beside, claim};
use crate::pki::{Pki, Role, TRUST_DOMAIN, spiffe_id, write_file};
use crate::random::system_bytes;
use crate::signature::{base64, hex};

const NODE: &str = "edge-1";
/// The secret of its link.
const LINK: &str = "link";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Where a node's secrets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Custody {
    Files,
    Lockd,
}

impl Custody {
    fn config(self) -> &'static str {
        match self {
            Self::Files => "files.toml",
            Self::Lockd => "lockd.toml",
        }
    }
}

/// The directory and the programs.
pub(super) struct Site {
    directory: PathBuf,
    keys: Vec<String>,
    node: PathBuf,
    lockd: PathBuf,
    _lock: Flock<File>,
}

impl Site {
    /// Makes everything for `count` secrets.
    pub(super) fn make(directory: &Path, count: usize, node: PathBuf) -> Result<Self, LabError> {
        let (directory, lock) = claim(directory)?;
        let keys = (0..count).map(|index| format!("{index:032x}")).collect();
        let site = Self { directory, keys, node, lockd: beside("zen-lockd")?, _lock: lock };
        let mut values: BTreeMap<&str, String> =
            site.keys.iter().map(|key| (key.as_str(), hex(&system_bytes::<20>()))).collect();
        values.insert(LINK, format!("whsec_{}", base64(&system_bytes::<32>())));
        let folder = site.directory.join("secrets");
        fs::create_dir(&folder).map_err(LabError::file(&folder))?;
        for (key, value) in &values {
            write_file(&folder.join(key), value.as_bytes(), 0o600)?;
        }
        let own_key = site.directory.join("own.key").display().to_string();
        let recipient = site.run_lockd(&["keygen", "--out", &own_key], &[])?;
        let input = serde_json::to_vec(&values).expect("texts are JSON");
        let sealed = site.directory.join("sealed").display().to_string();
        let names = ["--namespace", "perf", "--name", "endpoints", "--from-json", "-", "--out-dir", &sealed];
        site.run_lockd(&[&["seal", "--recipient", recipient.trim()], &names[..]].concat(), &input)?;
        let pki = Pki::make(&site.directory.join("pki"), &[(Role::Ingester, NODE)])?;
        for custody in [Custody::Files, Custody::Lockd] {
            let path = site.directory.join(custody.config());
            write_file(&path, site.node_text(&pki, custody).as_bytes(), 0o644)?;
        }
        write_file(&site.directory.join("vault.toml"), site.lockd_text()?.as_bytes(), 0o600)?;
        Ok(site)
    }

    /// Where lockd listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("vault.sock")
    }

    /// Names of all secrets.
    pub(super) fn names(&self) -> Vec<SecretName> {
        let name = |key| SecretName::new("perf", "endpoints", key).expect("hex digits are a name's");
        self.keys.iter().map(|key| name(key)).collect()
    }

    /// Starts lockd, and waits until it listens; call it on the main thread.
    pub(super) async fn start(&self) -> Result<Process, LabError> {
        let config = self.directory.join("vault.toml");
        let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        let log = self.directory.join("zen-lockd.log");
        let mut process = Process::start("zen-lockd", &self.lockd, &arguments, &log)?;
        let begun = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            process.check()?;
            if begun.elapsed() > READY_TIMEOUT {
                return Err(process.not_ready());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(process)
    }

    /// Milliseconds that a node takes to read and check its configuration, and to end.
    pub(super) fn check_config(&self, custody: Custody) -> Result<f64, LabError> {
        let mut command = Command::new(&self.node);
        command.arg("--config").arg(self.directory.join(custody.config())).arg("--check-config");
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output();
        let took = begun.elapsed();
        let output = output.map_err(|source| LabError::Start { program: self.node.clone(), source })?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).chars().take(500).collect();
            return Err(LabError::Tool { what: "zen-dataplane --check-config".to_owned(), reason });
        }
        Ok(took.as_secs_f64() * 1e3)
    }

    fn run_lockd(&self, arguments: &[&str], input: &[u8]) -> Result<String, LabError> {
        let started = |source| LabError::Start { program: self.lockd.clone(), source };
        let mut command = Command::new(&self.lockd);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(started)?;
        // A command that does not read says itself what is wrong.
        drop(child.stdin.take().expect("standard input is piped").write_all(input));
        let output = child.wait_with_output().map_err(started)?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(LabError::Tool { what: format!("zen-lockd {}", arguments[0]), reason });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn lockd_text(&self) -> Result<String, LabError> {
        let own = std::env::current_exe().and_then(|own| own.canonicalize());
        let own = own.map_err(|source| LabError::Start { program: "zen-perf".into(), source })?;
        let mut text = "socket = \"vault.sock\"\nkey_file = \"own.key\"\n[secrets]\ndirectory = \"sealed\"\n\
                        [receipts]\ndirectory = \"receipts\"\n[memory]\nlock = \"try\"\n"
            .to_owned();
        for program in [&own, &self.node] {
            let (user, program) = (getuid(), program.display());
            let grant = format!(
                "[[grants]]\nuser = \"{user}\"\nexecutable = \"{program}\"\nsecrets = [\"perf/*\"]\n"
            );
            text.push_str(&grant);
        }
        Ok(text)
    }

    fn node_text(&self, pki: &Pki, custody: Custody) -> String {
        let secret = |key: &str| match custody {
            Custody::Files => format!("secrets/{key}"),
            Custody::Lockd => format!("lockd:perf/endpoints/{key}"),
        };
        let mut text = format!(
            "[node]\nname = \"{NODE}\"\nworkers = 1\ndata_dir = \"data\"\nmemory_bytes_max = 4294967296\n\
             [lockd]\nsocket = \"vault.sock\"\n\
             [identity]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\ntrust_bundle_file = \"{}\"\n\
             trust_domain = \"{TRUST_DOMAIN}\"\n[ingester]\nlisten = [\"127.0.0.1:1\"]\ncertificate_file = \"{}\"\n\
             private_key_file = \"{}\"\n",
            pki.certificate(NODE).display(),
            pki.key(NODE).display(),
            pki.bundle().display(),
            pki.certificate("public").display(),
            pki.key("public").display(),
        );
        let link = secret(LINK);
        let mut line = |line: String| text.push_str(&line);
        line(format!(
            "link_listen = \"127.0.0.1:2\"\n[[ingester.egresses]]\nname = \"inside\"\ndirection = \"egress-dials\"\n\
             spiffe_ids = [\"{}\"]\nkey_id = \"link-1\"\nkey_file = \"{link}\"\n",
            spiffe_id(Role::Egress, "inside")
        ));
        for key in &self.keys {
            line(format!(
                "[[ingester.endpoints]]\nid = \"{key}\"\ntenant = \"acme\"\nscheme = \"github\"\nsecret_files = [\"{}\"]\n\
                 [[ingester.flows]]\nendpoint = \"{key}\"\negress = \"inside\"\ntargets = [\"one\"]\n",
                secret(key)
            ));
        }
        text
    }
}
