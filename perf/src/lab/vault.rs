//! The lab's zen-lockd: seals the lab's secrets, and hands each to the nodes that need it.
//!
//! In: secrets in memory. Out: `sealed/` with age files, and `lockd/` with the daemon's configuration, socket,
//! receipts, and its own key: the one thing in clear, mode 0400.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::getuid;
use zeroize::Zeroizing;

use super::process::{Process, READY_SECONDS_MAX};
use super::secrets::{Kind, NAMESPACE, Secret, needs};
use super::{Lab, Shape, TARGET_IDENTITY, Trust, beside};
use crate::error::LabError;
use crate::pki::write_file;

const PROGRAM: &str = "zen-lockd";
const POLL: Duration = Duration::from_millis(10);

/// Where the daemon of the lab in `directory` listens.
pub(super) fn socket(directory: &Path) -> PathBuf {
    directory.join("lockd/lockd.sock")
}

/// The lab's zen-lockd and its files.
#[derive(Clone, Debug)]
pub(crate) struct Vault {
    program: PathBuf,
    directory: PathBuf,
    log: PathBuf,
    recipient: String,
    /// Generations of sealed files, where an agent brings them.
    generations: Option<PathBuf>,
}

impl Vault {
    /// Seals what nodes need of `lab`, and says who may have it; `node` is the nodes' program.
    pub(super) fn make(lab: &Lab, shape: Shape, node: &Path) -> Result<Self, LabError> {
        let vault = Self::seal_all(lab, shape, None)?;
        write_file(&vault.config(), vault.configuration(lab, shape, node).as_bytes(), 0o600)?;
        Ok(vault)
    }

    /// As [`Self::make`], for what the agent of `trust` publishes; identities are the agent's own business.
    pub(super) fn make_managed(
        lab: &Lab,
        shape: Shape,
        node: &Path,
        trust: &Trust,
    ) -> Result<Self, LabError> {
        let vault = Self::seal_all(lab, shape, Some(trust.secrets()))?;
        let mut config = vault.configuration(lab, shape, node);
        grant(&mut config, trust.agent_program(), &["zen/agent/*".to_owned(), "zen-link/*".to_owned()]);
        for own in lab.nodes() {
            grant(&mut config, node, &[format!("zen/{}/*", own.name), "zen-link/*".to_owned()]);
        }
        grant(&mut config, &beside("zen-perf")?, &[format!("zen/{TARGET_IDENTITY}/*")]);
        write_file(&vault.config(), config.as_bytes(), 0o600)?;
        Ok(vault)
    }

    fn seal_all(lab: &Lab, shape: Shape, generations: Option<PathBuf>) -> Result<Self, LabError> {
        let (directory, log) = (lab.directory.clone(), lab.log(PROGRAM));
        let vault = Self { program: beside(PROGRAM)?, directory, log, recipient: String::new(), generations };
        for directory in [vault.sealed(), vault.directory.join("lockd")] {
            DirBuilder::new().mode(0o700).create(&directory).map_err(LabError::file(&directory))?;
        }
        let own_key = vault.own_key();
        let recipient = vault.run(&["keygen", "--out", &text(&own_key)], &[])?;
        let vault = Self { recipient: recipient.trim().to_owned(), ..vault };
        for kind in Kind::ALL {
            vault.seal(&vault.recipient, kind, lab, shape)?;
        }
        Ok(vault)
    }

    /// The program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// To whom all is sealed.
    pub(super) fn recipient(&self) -> &str {
        &self.recipient
    }

    /// Where the sealed files are.
    pub(crate) fn sealed(&self) -> PathBuf {
        self.directory.join("sealed")
    }

    /// The daemon's own key.
    pub(crate) fn own_key(&self) -> PathBuf {
        self.directory.join("lockd/own.key")
    }

    /// Starts the daemon; call it on the main thread.
    pub(crate) fn start(&self) -> Result<Process, LabError> {
        let config = self.config();
        let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        Process::start(PROGRAM, &self.program, &arguments, &self.log)
    }

    /// Waits until the daemon takes connections.
    pub(crate) async fn wait_ready(&self, process: &mut Process) -> Result<(), LabError> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(READY_SECONDS_MAX) {
            process.check()?;
            if UnixStream::connect(socket(&self.directory)).is_ok() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(process.not_ready())
    }

    /// A shell command that prints the secret of an endpoint.
    pub(crate) fn get_command(&self, endpoint: &str) -> String {
        let (program, socket) = (self.program.display(), socket(&self.directory));
        format!("'{program}' get --socket '{}' {}", socket.display(), Kind::Endpoint.sealed_name(endpoint))
    }

    fn config(&self) -> PathBuf {
        self.directory.join("lockd/lockd.toml")
    }

    /// Seals all secrets of one kind that a node needs.
    fn seal(&self, recipient: &str, kind: Kind, lab: &Lab, shape: Shape) -> Result<(), LabError> {
        let needed = |secret: &Secret| lab.nodes().any(|node| needs(shape, &node.name, secret));
        let entries: BTreeMap<&str, &str> = lab
            .secrets
            .iter()
            .filter(|secret| secret.kind == kind && needed(secret))
            .map(|secret| (secret.key.as_str(), secret.value.as_str()))
            .collect();
        if entries.is_empty() {
            return Ok(());
        }
        let input = Zeroizing::new(serde_json::to_vec(&entries).expect("texts are JSON"));
        let out = text(&self.sealed());
        let names = ["--namespace", NAMESPACE, "--name", kind.folder()];
        let files = ["--from-json", "-", "--out-dir", &out];
        self.run(&[&["seal", "--recipient", recipient], &names[..], &files].concat(), &input)?;
        Ok(())
    }

    /// A grant for each node, and one for the command that a person's curl line runs.
    fn configuration(&self, lab: &Lab, shape: Shape, node: &Path) -> String {
        let (kind, place) = match &self.generations {
            Some(generations) => ("generations", generations.clone()),
            None => ("directory", self.sealed()),
        };
        let mut config = format!(
            "socket = \"{}\"\nkey_file = \"{}\"\n[secrets]\n{kind} = \"{}\"\n\
             [receipts]\ndirectory = \"receipts\"\n[memory]\nlock = \"try\"\n",
            socket(&self.directory).display(),
            self.own_key().display(),
            place.display()
        );
        for own in lab.nodes() {
            let needed = lab.secrets.iter().filter(|secret| needs(shape, &own.name, secret));
            grant(&mut config, node, &needed.map(Secret::name).collect::<Vec<_>>());
        }
        grant(&mut config, &self.program, &[Kind::Endpoint.sealed_name("*")]);
        config
    }

    /// Runs a command of zen-lockd with `input`; what it prints.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<String, LabError> {
        let started = |source| LabError::Start { program: self.program.clone(), source };
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(started)?;
        // A command that does not read says itself what is wrong.
        drop(std::io::Write::write_all(&mut child.stdin.take().expect("standard input is piped"), input));
        let output = child.wait_with_output().map_err(started)?;
        if !output.status.success() {
            return Err(LabError::Tool {
                what: format!("{PROGRAM} {}", arguments[0]),
                reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Lets `executable` have `secrets`, if the lab's own user runs it.
fn grant(config: &mut String, executable: &Path, secrets: &[String]) {
    let (user, executable) = (getuid(), executable.display());
    write!(config, "[[grants]]\nuser = \"{user}\"\nexecutable = \"{executable}\"\nsecrets = {secrets:#?}\n")
        .expect("a String takes any text");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Custody, Tuning};
    use super::*;

    #[test]
    fn each_is_granted_what_it_needs() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::build(directory.path(), Shape::CRASH, 1, Tuning::NONE, Custody::Lockd).unwrap();
        let vault = Vault {
            program: "/programs/zen-lockd".into(),
            directory: lab.directory.clone(),
            log: lab.log(PROGRAM),
            recipient: String::new(),
            generations: None,
        };
        let config = vault.configuration(&lab, Shape::CRASH, Path::new("/programs/node"));
        let grants: Vec<&str> = config.split("[[grants]]").skip(1).collect();
        let [edge, inside, branch, own] = grants[..] else { panic!("four grants: {config}") };
        assert_eq!(edge.matches("\"lab/endpoints/").count(), 16);
        assert!(
            edge.contains("\"lab/private-keys/public\"") && edge.contains("\"lab/links/branch\""),
            "{edge}"
        );
        for (egress, other) in [(inside, branch), (branch, inside)] {
            let mut secrets = egress.lines().filter(|line| line.contains("\"lab/"));
            assert!(secrets.clone().count() == 5 && secrets.all(|line| !other.contains(line)), "{egress}");
        }
        assert!(own.contains("executable = \"/programs/zen-lockd\""), "{own}");
        assert!(own.contains("\"lab/endpoints/*\"") && own.matches("\"lab/").count() == 1, "{own}");
        assert!(!config.contains("lab/private-keys/demo"), "the target has its key from the lab: {config}");
    }
}
