//! The lab's control plane and agent: identities and configurations of the nodes come over enrollment, as in the field.
//!
//! In: a sealed lab. Out: `control/` with the control plane's files, `owner/` with the certificate of the person who says
//! over its API what the lab is, `agent/` with what the agent publishes: secrets for zen-lockd, and a directory for each node
//! to watch.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use zen_lock::{Client, Listener, SecretName};
use zeroize::Zeroizing;

use super::api::Api;
use super::process::READY_SECONDS_MAX;
use super::vault::socket;
use super::{INGESTER, Lab, Process, Shape, Steps, TARGET_IDENTITY, Vault, beside, claim_port, objects};
use crate::error::LabError;
use crate::pki::{TRUST_DOMAIN, write_file};

const CONTROL: &str = "zen-control";
const AGENT: &str = "zen-agent";
const TENANT: &str = "acme";
/// The lab's only cluster.
pub(super) const CLUSTER: &str = "demo";
/// The person who says what the lab is.
const OWNER: &str = "owner";
const POLL: Duration = Duration::from_millis(20);

/// The control plane, the agent, and their files.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    directory: PathBuf,
    shape: Shape,
    workers: u32,
    listen: SocketAddr,
    people: SocketAddr,
    browsers: SocketAddr,
    control: PathBuf,
    agent: PathBuf,
}

impl Trust {
    /// Makes a control plane with its owner, and the directories that zen-lockd and the nodes watch.
    pub(super) fn make(lab: &Lab, shape: Shape, workers: u32) -> Result<Self, LabError> {
        let [listen, people, browsers] = [claim_port(None)?, claim_port(None)?, claim_port(None)?];
        let (control, agent) = (beside(CONTROL)?, beside(AGENT)?);
        let directory = lab.directory.clone();
        let trust = Self { directory, shape, workers, listen, people, browsers, control, agent };
        let (dir, owner) = (text(&trust.control_dir()), text(&trust.owner_dir()));
        let init =
            ["init", "--dir", &dir, "--trust-domain", TRUST_DOMAIN, "--tenant", TENANT, "--owner", OWNER];
        run(&trust.control, &init)?;
        run(&trust.control, &["person", "certificate", "--dir", &dir, "--name", OWNER, "--out", &owner])?;
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

    /// Where people connect.
    pub(crate) fn people(&self) -> SocketAddr {
        self.people
    }

    /// Where browsers connect.
    pub(crate) fn browsers(&self) -> SocketAddr {
        self.browsers
    }

    /// The directory that a node watches.
    pub(crate) fn managed(&self, node: &str) -> PathBuf {
        self.state_dir().join("members").join(node)
    }

    /// Starts the control plane; call it on the main thread.
    pub(crate) fn start_control(&self, lab: &Lab) -> Result<Process, LabError> {
        let control = self.control_dir();
        let [listen, people, browsers] =
            [self.listen, self.people, self.browsers].map(|address| address.to_string());
        let arguments = [
            "run".as_ref(),
            "--dir".as_ref(),
            control.as_os_str(),
            "--listen".as_ref(),
            listen.as_ref(),
            "--people-listen".as_ref(),
            people.as_ref(),
            "--web-listen".as_ref(),
            browsers.as_ref(),
        ];
        Process::start(CONTROL, &self.control, &arguments, &lab.log(CONTROL))
    }

    /// A cluster, its bundle, an enrolled agent, then everything else of the lab, published; each over the API.
    pub(crate) async fn enroll(
        &self,
        lab: &Lab,
        vault: &Vault,
        control: &mut Process,
        steps: &mut Steps,
    ) -> Result<(), LabError> {
        let mut api = self.connect(control).await?;
        steps.done("zen-control has CAs, a database and an owner, and answers over mutual TLS");
        let (tenant, cluster) =
            (format!("/v1/tenants/{TENANT}"), format!("/v1/tenants/{TENANT}/clusters/{CLUSTER}"));
        api.ask("PUT", &cluster, Some(&json!({"description": "this machine"}))).await?;
        let order = json!({"urls": [format!("https://{}", self.listen)]});
        let made = api.ask("POST", &format!("{cluster}/bundles"), Some(&order)).await?;
        let bundle = self.directory.join("bundle.json");
        write_file(&bundle, made["text"].as_str().unwrap_or_default().as_bytes(), 0o600)?;
        steps.done(format!("the cluster {CLUSTER}, and a bundle that lets its agent in once"));
        let config = self.directory.join("agent.toml");
        write_file(&config, self.agent_text(lab, vault).as_bytes(), 0o644)?;
        run(&self.agent, &["enroll", "--bundle", &text(&bundle), "--config", &text(&config)])?;
        // Whoever has it is let in once, and the agent was.
        fs::remove_file(&bundle).map_err(LabError::file(&bundle))?;
        steps.done(format!("zen-agent has enrolled: a certificate with the URI SAN {}", self.agent_id()?));
        let objects = objects::of(lab, self.shape, self.workers, &vault.sealed())?;
        for (path, object) in &objects {
            api.ask("PUT", &format!("{tenant}/{path}"), Some(object)).await?;
        }
        let published = api.ask("POST", &format!("{cluster}/configurations"), None).await?;
        let (count, version) = (objects.len(), &published["version"]);
        steps.done(format!("{count} objects became configuration {version}, signed"));
        Ok(())
    }

    /// The API, as soon as it is there.
    async fn connect(&self, control: &mut Process) -> Result<Api, LabError> {
        let begun = Instant::now();
        loop {
            match Api::connect(self.people, &self.owner_dir()).await {
                Ok(api) => return Ok(api),
                Err(error) if begun.elapsed() > Duration::from_secs(READY_SECONDS_MAX) => return Err(error),
                Err(_) => control.check()?,
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The agent's SPIFFE id, if its certificate has it as a URI name (RFC 5280 section 4.2.1.6: context tag 6, length, text).
    fn agent_id(&self) -> Result<String, LabError> {
        let file = self.state_dir().join("identities/agent/current/identity.pem");
        let leaf = CertificateDer::from_pem_file(&file).map_err(|error| LabError::Tls(error.to_string()))?;
        let id = format!("spiffe://{TRUST_DOMAIN}/agent/{CLUSTER}");
        let name = [&[0x86, id.len() as u8], id.as_bytes()].concat();
        if leaf.windows(name.len()).any(|window| window == name) {
            return Ok(id);
        }
        Err(LabError::Tool { what: text(&file), reason: format!("has no URI SAN {id}") })
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
        while members(lab).any(|name| !self.managed(name).join("current").exists()) {
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
        let own = fs::read_to_string(&node).map_err(LabError::file(&node))?;
        let name = own.lines().find_map(|line| line.strip_prefix("private_key_file = \"lockd:"));
        let name = SecretName::parse(name.unwrap_or_default().trim_end_matches('"'))
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

    /// Key and certificate of the person, and the root that the API's certificate leads to.
    fn owner_dir(&self) -> PathBuf {
        self.directory.join("owner")
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
        for name in members(lab) {
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
        let owner = self.owner_dir();
        let owner = owner.display();
        write!(
            f,
            "identities and configurations come from zen-control at {} ({}, its keys with mode 0400) through zen-agent ({})\n\
             what the lab is was said over its API; look with the owner's certificate and key ({owner}, mode 0600, good for 12 hours):\n\n\
             curl -sS --cacert {owner}/root.pem --cert {owner}/certificate.pem --key {owner}/key.pem \\\n  \
             https://localhost:{}/v1/tenants/{TENANT}/members\n\n\
             delivery-flows, destinations, endpoints, clusters/{CLUSTER}/configurations, /v1/openapi.json are there too\n\
             the dashboard is at https://localhost:{web}, for a browser that trusts {owner}/root.pem; sign in once with the link of\n\n\
             {program} person link --dir {control} --name {OWNER} --web-url https://localhost:{web}\n",
            self.listen,
            self.control_dir().display(),
            self.state_dir().display(),
            self.people.port(),
            web = self.browsers.port(),
            program = self.control.display(),
            control = self.control_dir().display(),
        )
    }
}

/// Everything of the lab that gets an identity.
fn members(lab: &Lab) -> impl Iterator<Item = &str> {
    [INGESTER, TARGET_IDENTITY].into_iter().chain(lab.egresses.iter().map(|node| node.name.as_str()))
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
