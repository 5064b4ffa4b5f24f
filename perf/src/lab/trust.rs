//! The lab's control plane and agent: identities and configurations of the nodes come over enrollment, as in the field.
//!
//! In: a sealed lab whose configurations name no key of their own. Out: `control/` with the control plane's files, `agent/`
//! with what the agent publishes: secrets for zen-lockd, and a directory for each node to watch.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use serde_json::json;
use zen_lock::{Client, Listener, SecretName};
use zeroize::Zeroizing;

use super::process::READY_SECONDS_MAX;
use super::vault::socket;
use super::{INGESTER, Lab, Process, TARGET_IDENTITY, Vault, beside, ground};
use crate::error::LabError;
use crate::pki::{Role, TRUST_DOMAIN, spiffe_id, write_file};
use crate::signature::base64;

const CONTROL: &str = "zen-control";
const AGENT: &str = "zen-agent";
const CLUSTER: &str = "demo";
const TENANT: &str = "acme";
const POLL: Duration = Duration::from_millis(20);

/// Where a configuration of this lab has the place of its private key.
pub(super) const PRIVATE_KEY: &str = "{{private_key}}";

/// The control plane, the agent, and their files.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    directory: PathBuf,
    listen: SocketAddr,
    control: PathBuf,
    agent: PathBuf,
}

impl Trust {
    /// Makes a control plane, and the directories that zen-lockd and the nodes watch.
    pub(super) fn make(lab: &Lab) -> Result<Self, LabError> {
        let listen = ground::Ports::default().claim(None)?;
        let directory = lab.directory.clone();
        let trust = Self { directory, listen, control: beside(CONTROL)?, agent: beside(AGENT)? };
        let control = text(&trust.control_dir());
        run(
            &trust.control,
            &["init", "--dir", &control, "--trust-domain", TRUST_DOMAIN, "--tenant", TENANT],
        )?;
        fs::create_dir_all(trust.secrets()).map_err(LabError::file(&trust.secrets()))?;
        Ok(trust)
    }

    /// Where zen-lockd finds generations of sealed files.
    pub(super) fn secrets(&self) -> PathBuf {
        self.state_dir().join("secrets")
    }

    /// Where agents connect.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The directory that a node watches.
    pub(crate) fn managed(&self, node: &str) -> PathBuf {
        self.state_dir().join("members").join(node)
    }

    /// Starts the control plane; call it on the main thread.
    pub(crate) fn start_control(&self, lab: &Lab) -> Result<Process, LabError> {
        let (control, listen) = (self.control_dir(), self.listen.to_string());
        let arguments =
            ["run".as_ref(), "--dir".as_ref(), control.as_os_str(), "--listen".as_ref(), listen.as_ref()];
        Process::start(CONTROL, &self.control, &arguments, &lab.log(CONTROL))
    }

    /// A bundle, an enrolled agent, and the cluster's first configuration, with what the vault has sealed.
    pub(crate) fn enroll(&self, lab: &Lab, vault: &Vault) -> Result<(), LabError> {
        let (control, bundle) = (text(&self.control_dir()), self.directory.join("bundle.json"));
        let url = format!("https://{}", self.listen);
        let create = ["bundle", "create", "--dir", &control, "--cluster", CLUSTER, "--url", &url];
        run(&self.control, &[&create[..], &["--out", &text(&bundle)]].concat())?;
        let config = self.directory.join("agent.toml");
        write_file(&config, self.agent_text(lab, vault).as_bytes(), 0o644)?;
        run(&self.agent, &["enroll", "--bundle", &text(&bundle), "--config", &text(&config)])?;
        // Whoever has it is let in once, and the agent was.
        fs::remove_file(&bundle).map_err(LabError::file(&bundle))?;
        let input = self.directory.join("configuration.json");
        write_file(&input, &configuration(lab, vault)?, 0o644)?;
        run(
            &self.control,
            &["configuration", "set", "--dir", &control, "--cluster", CLUSTER, &text(&input)],
        )?;
        Ok(())
    }

    /// Starts the agent; call it on the main thread.
    pub(crate) fn start_agent(&self, lab: &Lab) -> Result<Process, LabError> {
        let config = self.directory.join("agent.toml");
        let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        Process::start(AGENT, &self.agent, &arguments, &lab.log(AGENT))
    }

    /// Waits until all members have a generation.
    pub(crate) async fn wait_published(&self, lab: &Lab, agent: &mut Process) -> Result<(), LabError> {
        let begun = Instant::now();
        while members(lab).any(|(_, name)| !self.managed(name).join("current").exists()) {
            agent.check()?;
            if begun.elapsed() > Duration::from_secs(READY_SECONDS_MAX) {
                return Err(agent.not_ready());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Certificate and trust bundle of what plays the targets, and its key, which zen-lockd has.
    pub(crate) fn target(&self) -> Result<(PathBuf, PathBuf, Zeroizing<Vec<u8>>), LabError> {
        let current = self.managed(TARGET_IDENTITY).join("current");
        let node = current.join("node.toml");
        let name = fs::read_to_string(&node).map_err(LabError::file(&node))?;
        let name = SecretName::parse(name.trim().trim_start_matches("lockd:"))
            .map_err(|error| LabError::Tool { what: text(&node), reason: error.to_string() })?;
        let key = Client::connect(&socket(&self.directory), Listener::RootOrSelf)?.open(&name)?;
        Ok((current.join("identity.pem"), current.join("bundle.pem"), key))
    }

    /// The agent's program, for a grant.
    pub(super) fn agent_program(&self) -> &Path {
        &self.agent
    }

    fn control_dir(&self) -> PathBuf {
        self.directory.join("control")
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.join("agent")
    }

    fn agent_text(&self, lab: &Lab, vault: &Vault) -> String {
        let recipient = vault.recipient();
        let mut config = format!(
            "state_dir = \"{}\"\nrecipient = \"{recipient}\"\nlockd_program = \"{}\"\n[lockd]\nsocket = \"{}\"\n",
            self.state_dir().display(),
            vault.program().display(),
            socket(&self.directory).display()
        );
        for (_, name) in members(lab) {
            let socket = lab.directory.join(name).join("admin.sock");
            let admin = format!("[[members]]\nname = \"{name}\"\nadmin_socket = \"{}\"\n", socket.display());
            config.push_str(&admin);
        }
        config
    }
}

/// What a person is told of it.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "identities and configurations come from zen-control at {} ({}, its keys with mode 0400) through zen-agent ({})",
            self.listen,
            self.control_dir().display(),
            self.state_dir().display()
        )
    }
}

/// Everything of the lab that gets an identity.
fn members(lab: &Lab) -> impl Iterator<Item = (Role, &str)> {
    let egresses = lab.egresses.iter().map(|node| (Role::Egress, node.name.as_str()));
    [(Role::Ingester, INGESTER), (Role::Target, TARGET_IDENTITY)].into_iter().chain(egresses)
}

/// What an operator sets: each node's text, and the sealed files as they are.
fn configuration(lab: &Lab, vault: &Vault) -> Result<Vec<u8>, LabError> {
    let mut nodes = BTreeMap::new();
    for (role, name) in members(lab) {
        // What plays the targets is no node: its key's place is all that it needs to know.
        let node = match lab.nodes().find(|node| node.name == name) {
            Some(node) => fs::read_to_string(&node.config).map_err(LabError::file(&node.config))?,
            None => PRIVATE_KEY.to_owned(),
        };
        nodes.insert(name, json!({"spiffe_id": spiffe_id(role, name), "node": node}));
    }
    let mut secrets = BTreeMap::new();
    for secret in &lab.secrets {
        let path = vault.sealed().join(format!("{}.age", secret.name()));
        if let Ok(sealed) = fs::read(path) {
            secrets.insert(secret.name(), base64(&sealed));
        }
    }
    Ok(serde_json::to_vec_pretty(&json!({"members": nodes, "secrets": secrets})).expect("texts are JSON"))
}

fn run(program: &Path, arguments: &[&str]) -> Result<(), LabError> {
    let started = |source| LabError::Start { program: program.to_owned(), source };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(started)?;
    if output.status.success() {
        return Ok(());
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Tool { what: format!("{name} {}", arguments[0]), reason })
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
