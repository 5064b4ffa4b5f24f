//! The running agent: identities, the configuration in force, nodes, and what is due next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zen_control_api::{Configuration, SignedConfiguration};
use zen_identity::{IdentityError, PrivateKeySource, SvidFiles, TrustDomain};

use crate::clock::{Clock, random};
use crate::config::Config;
use crate::control_plane::{ControlError, ControlPlane};
use crate::core::{Acceptance, Alarm, Backoff, EnrolledWith, Now, Refusal, agent_id, key_name};
use crate::files::{Durability, SHARED, replace_file};
use crate::holder::{Holder, Means, Renewed, Way};
use crate::link_keys::{LinkError, LinkKeyring, LinkMeans, Saying};
use crate::lockd::{KeyInLockd, Lockd, own_secret};
use crate::metrics;
use crate::node::{self, Told};
use crate::publish::{self, Node};
use crate::reach::Reach;
use crate::relay::Relay;
use crate::run::RunError;
use crate::state::{AGENT, CHAIN, ROOTS, StateDirectory, StateError};
use crate::status::{MemberSnapshot, Snapshot, status_file};
use crate::sync::{SyncMeans, Syncing};

/// Everything that a running agent knows.
pub(crate) struct Agent {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    state: StateDirectory,
    lockd: Lockd,
    enrolled: EnrolledWith,
    own: Holder,
    control: Option<Arc<ControlPlane>>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) configuration: Option<Configuration>,
    links: LinkKeyring,
    acceptance: Acceptance,
    alarm: Alarm,
    configuration_trouble: Option<String>,
    publication: Publication,
    pub(crate) syncing: Syncing,
    relay: Relay,
    pub(crate) reach: Reach,
    skew_ms: Option<i64>,
}

/// Whether the disk may differ from what it should hold.
#[derive(Default)]
struct Publication {
    is_due: bool,
    retry_steady_ms: u64,
    backoff: Backoff,
    trouble: Option<String>,
}

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("our own identity cannot be used: {0}")]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Agent {
    /// With what is on disk.
    pub(crate) fn load(config: Config) -> Result<Self, RunError> {
        let clock = Clock::start();
        let now = clock.now();
        let state = StateDirectory::open(&config.state_dir)?;
        let own = Holder::load(AGENT, &state, now)?;
        let record = own.identity.as_ref().and_then(|identity| identity.record.enrolled.clone());
        let enrolled = record.ok_or(RunError::NotEnrolled)?;
        let nodes =
            config.members.iter().map(|member| Ok((member.name.clone(), Node::load(member, &state, now)?)));
        let nodes = nodes.collect::<Result<_, StateError>>()?;
        let mut agent = Self {
            lockd: Lockd(config.lockd.clone()),
            links: LinkKeyring::load(&state)?,
            syncing: Syncing::load(&state, &enrolled)?,
            relay: Relay::of(config.lockd.receipts.clone()),
            acceptance: Acceptance::new(enrolled.clone(), 0),
            config,
            clock,
            state,
            enrolled,
            own,
            control: None,
            nodes,
            configuration: None,
            alarm: Alarm::default(),
            configuration_trouble: None,
            publication: Publication::default(),
            reach: Reach::default(),
            skew_ms: None,
        };
        if let Some(signed) = agent.state.configuration()? {
            agent.handle_configuration(&signed, Kept::OnDisk);
        }
        Ok(agent)
    }

    /// The version in force, 0 if there is none.
    pub(crate) fn version(&self) -> u64 {
        self.acceptance.in_force()
    }

    /// The control plane, as whom we are now.
    pub(crate) fn control(&mut self) -> Result<Arc<ControlPlane>, ExchangeError> {
        if let Some(control) = &self.control {
            return Ok(Arc::clone(control));
        }
        let directory = self.state.identity_directory(AGENT)?.unwrap_or_default();
        let key = self.own.identity.as_ref().map_or(0, |own| own.record.key);
        let name = own_secret(AGENT, &key_name(key));
        let vault = KeyInLockd { lockd: self.lockd.clone(), name };
        let files = SvidFiles {
            certificate_file: directory.join(CHAIN),
            private_key: PrivateKeySource::Vault(Arc::new(vault)),
            trust_bundle_file: directory.join(ROOTS),
            trust_domain: TrustDomain::parse(&self.enrolled.trust_domain)
                .expect("checked when the bundle was read"),
        };
        let control = ControlPlane::by_identity(&self.enrolled, files)?;
        self.control = Some(Arc::clone(&control));
        Ok(control)
    }

    /// Takes a configuration, or says in log and status why not; whether it was taken.
    pub(crate) fn handle_configuration(&mut self, signed: &SignedConfiguration, kept: Kept) -> bool {
        let now = self.clock.now();
        let own = self.own.identity.as_ref().expect("an agent that runs has enrolled");
        let before = self.acceptance.in_force();
        let taken = self.acceptance.handle_configuration(signed, &own.certificate.chain, now);
        let kept = taken.map_err(Fault::Refused).and_then(|configuration| match kept {
            Kept::OnDisk => Ok(configuration),
            Kept::Nowhere => {
                self.state.set_configuration(signed).map(|()| configuration).map_err(Fault::Disk)
            }
        });
        match kept {
            Ok(configuration) => {
                tracing::info!(version = configuration.version, "a configuration was taken");
                self.configuration_trouble = None;
                self.alarm.handle_success();
                self.take_roots(&configuration.trust_bundle);
                self.links.handle_configuration(&configuration, &self.enrolled, now);
                self.configuration = Some(configuration);
                self.publication.is_due = true;
                true
            }
            Err(fault) => {
                self.acceptance = Acceptance::new(self.enrolled.clone(), before);
                let reason = fault.to_string();
                if self.alarm.handle_fault(&reason, now) {
                    tracing::error!(
                        reason,
                        in_force = before,
                        "alarm: a configuration is not taken; nothing changes"
                    );
                }
                self.configuration_trouble = Some(reason);
                false
            }
        }
    }

    /// Trusts a control plane whose CA has changed.
    fn take_roots(&mut self, roots: &str) {
        let Some(own) = self.own.identity.as_mut().filter(|own| own.roots != roots) else { return };
        let before = std::mem::replace(&mut own.roots, roots.to_owned());
        match self.state.install(AGENT, own) {
            Ok(()) => self.control = None,
            Err(error) => {
                own.roots = before;
                tracing::warn!(%error, "the new trust bundle is not installed; the one in force stays");
            }
        }
    }

    /// Renews all certificates now.
    pub(crate) fn handle_order(&mut self) {
        tracing::info!("an order to renew all certificates");
        self.own.renewal.handle_order();
        self.links.handle_order();
        self.nodes.values_mut().for_each(|node| node.holder.renewal.handle_order());
    }

    /// Renews what is due; whether the agent's own identity was over, and is good again.
    pub(crate) async fn renew(&mut self) -> bool {
        let mut is_back = false;
        if self.own.renewal.poll_due(self.clock.now()) {
            let spiffe_id = agent_id(&self.enrolled.trust_domain, &self.enrolled.cluster);
            let was_over = self.own.is_over(self.clock.now());
            if self.renew_one(None, &spiffe_id).await {
                self.control = None;
                is_back = was_over;
            }
        }
        self.renew_members().await;
        is_back
    }

    async fn renew_members(&mut self) {
        let Some(configuration) = &self.configuration else { return };
        let now = self.clock.now();
        let due: Vec<(String, String)> = configuration
            .members
            .iter()
            .filter(|(name, _)| self.nodes.get(*name).is_some_and(|node| node.holder.renewal.poll_due(now)))
            .map(|(name, member)| (name.clone(), member.spiffe_id.clone()))
            .collect();
        for (name, spiffe_id) in due {
            self.publication.is_due |= self.renew_one(Some(&name), &spiffe_id).await;
        }
    }

    /// Renews the agent's own certificate, or a member's; whether there is a new one.
    async fn renew_one(&mut self, member: Option<&str>, spiffe_id: &str) -> bool {
        let is_over = member.is_none() && self.own.is_over(self.clock.now());
        let way = if is_over { Ok(Way::Binding) } else { self.control().map(Way::Certificate) };
        let holder = match member {
            None => &mut self.own,
            Some(name) => &mut self.nodes.get_mut(name).expect("only nodes that are looked after").holder,
        };
        let way = match way {
            Ok(way) => way,
            Err(error) => {
                holder.handle_failure(error.to_string(), None, self.clock.now());
                return false;
            }
        };
        let (state, lockd, clock, enrolled) = (&self.state, &self.lockd, self.clock, &self.enrolled);
        let means = Means { state, lockd, clock, enrolled, way };
        let renewed = holder.renew(&means, spiffe_id).await;
        let now = self.clock.now();
        match renewed {
            Ok(Renewed::InForce(skew_ms)) => {
                self.skew_ms = skew_ms.or(self.skew_ms);
                self.reach.handle_answer(now);
                true
            }
            Ok(Renewed::Early) => false,
            Err(error) => {
                holder.handle_failure(error.to_string(), error.retry_after_ms(), now);
                false
            }
        }
    }

    /// Makes link keys that are due, and takes those that came.
    pub(crate) fn advance_links(&mut self) {
        let Some(configuration) = &self.configuration else { return };
        let (state, lockd, nodes) = (&self.state, &self.lockd, &self.nodes);
        let means = LinkMeans { state, lockd, configuration, nodes, now: self.clock.now() };
        self.publication.is_due |= self.links.step(&means);
    }

    /// Says what other agents do not know yet of link keys.
    pub(crate) async fn state_links(&mut self) {
        while let Some(Saying { keys, generation, signed }) = self.poll_saying() {
            let Ok(control) = self.control() else { return };
            let sent = match signed {
                Ok(statement) => control.state_links(&statement).await.map_err(LinkError::from),
                Err(error) => Err(error),
            };
            let kept = sent.and_then(|()| self.links.handle_said(keys, generation, &self.state));
            if let Err(error) = kept {
                self.links.handle_unsaid(&error, self.clock.now());
            }
        }
    }

    fn poll_saying(&self) -> Option<Saying> {
        let (configuration, own) = (self.configuration.as_ref()?, self.own.identity.as_ref()?);
        let (state, lockd, nodes) = (&self.state, &self.lockd, &self.nodes);
        let means = LinkMeans { state, lockd, configuration, nodes, now: self.clock.now() };
        self.links.poll_statement(&means, own)
    }

    /// Sees the audit log, and does orders.
    pub(crate) async fn sync(&mut self) {
        if !self.syncing.poll_due(self.clock.now()) {
            return;
        }
        let Ok(control) = self.control() else { return };
        let sockets = self.sockets();
        let (state, lockd, enrolled, clock) = (&self.state, &self.lockd, &self.enrolled, self.clock);
        let means = SyncMeans { state, lockd, enrolled, sockets: &sockets, clock };
        self.syncing.step(&control, &means).await;
    }

    /// Says what nodes keep of what they did.
    pub(crate) async fn relay(&mut self) {
        if self.relay.wait_ms(self.clock.now().steady_ms) > 0 {
            return;
        }
        let Ok(control) = self.control() else { return };
        let sockets = self.sockets();
        self.relay.step(&control, &sockets, self.clock).await;
    }

    /// Admin sockets of the nodes that the configuration names.
    fn sockets(&self) -> BTreeMap<String, PathBuf> {
        let Some(configuration) = &self.configuration else { return BTreeMap::new() };
        let named = self.nodes.iter().filter(|(name, _)| configuration.members.contains_key(*name));
        named.map(|(name, node)| (name.clone(), node.admin_socket.clone())).collect()
    }

    /// Puts on disk what should be there.
    pub(crate) fn publish(&mut self) {
        let now = self.clock.now();
        let Some(configuration) = self.configuration.as_ref().filter(|_| self.publication.poll_due(now))
        else {
            return;
        };
        let secrets = publish::publish_secrets(&self.state, configuration, &self.nodes, &self.links);
        let published = secrets.and_then(|_| {
            for (name, member) in &configuration.members {
                if let Some(node) = self.nodes.get_mut(name) {
                    node.publish(configuration, member, &self.links.state, now)?;
                }
            }
            Ok(())
        });
        match published {
            Ok(()) => self.publication = Publication::default(),
            Err(error) => {
                tracing::error!(%error, "cannot publish; the generations in force stay, and it is tried again");
                self.publication.handle_failure(error.to_string(), now);
            }
        }
    }

    /// The control plane has nothing newer than what is in force; what is not on disk yet confirms nothing.
    pub(crate) fn confirm(&self) {
        let Some(configuration) = self.configuration.as_ref().filter(|_| !self.publication.is_due) else {
            return;
        };
        for node in configuration.members.keys().filter_map(|name| self.nodes.get(name)) {
            if let Err(error) = node.confirm() {
                tracing::warn!(%error, "a deny list cannot be confirmed");
            }
        }
    }

    /// Tells nodes what was published.
    pub(crate) async fn tell(&mut self) {
        let version = self.acceptance.in_force();
        for (name, node) in &mut self.nodes {
            if !node.told.poll_ask(self.clock.now()) {
                continue;
            }
            let told = node::reload(&node.admin_socket).await;
            let now = self.clock.now();
            let before = node.told.outcome().cloned();
            match told {
                // Its old secrets may go now.
                Told::Applied(managed) => {
                    node.told.handle_applied(managed, now);
                    self.publication.is_due |= node.told.runs(version);
                }
                Told::Rejected(reason) => node.told.handle_rejected(reason, now),
                Told::Unreachable(reason) => node.told.handle_unreachable(reason, now),
            }
            if node.told.outcome() != before.as_ref() {
                tracing::info!(member = name, outcome = ?node.told.outcome(), "the node was told to reload");
            }
        }
    }

    /// Until when nothing is due, ms from now.
    pub(crate) fn wait_ms(&self) -> u64 {
        let now = self.clock.now();
        let named =
            |name: &str| self.configuration.as_ref().is_some_and(|read| read.members.contains_key(name));
        let renewals = self
            .nodes
            .iter()
            .filter(|(name, _)| named(name))
            .map(|(_, node)| node.holder.renewal.wait_ms(now));
        let asks = self.nodes.values().filter_map(|node| node.told.wait_ms(now));
        let publication =
            self.publication.is_due.then(|| self.publication.retry_steady_ms.saturating_sub(now.steady_ms));
        let all = renewals.chain(asks).chain(publication).chain(self.links.wait_ms(now));
        let all = all.chain(self.syncing.wait_ms(now));
        let all = all.chain([self.own.renewal.wait_ms(now), self.relay.wait_ms(now.steady_ms)]);
        all.min().unwrap_or(0)
    }

    /// What status and metrics say.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let named =
            |name: &str| self.configuration.as_ref().is_none_or(|read| read.members.contains_key(name));
        let members = self.nodes.iter().map(|(name, node)| {
            let snapshot = MemberSnapshot {
                is_configured: named(name),
                generation: node.generation(),
                outcome: node.told.outcome().cloned(),
                renewal_trouble: node.holder.trouble.clone(),
            };
            (name.clone(), snapshot)
        });
        Snapshot {
            at_ms: self.clock.now().wall_ms,
            configuration: self.acceptance.in_force(),
            configuration_trouble: self.configuration_trouble.clone(),
            publication_trouble: self.publication.trouble.clone(),
            link_trouble: self.links.trouble().cloned(),
            control_plane: self.reach.snapshot(),
            clock_skew_ms: self.skew_ms,
            witness: self.syncing.snapshot(),
            relay_trouble: self.relay.troubles(),
            renewal_trouble: self.own.trouble.clone(),
            recoveries: self.own.identity.as_ref().map_or(0, |own| own.record.recoveries),
            members: members.collect(),
        }
    }

    /// Writes status and metrics; a failure is logged and tried again with the next.
    pub(crate) fn write_snapshot(&self, snapshot: &Snapshot) {
        let bytes = serde_json::to_vec(snapshot).expect("names and numbers are JSON");
        let write = |path: &Path, bytes: &[u8]| {
            if let Err(error) = replace_file(path, bytes, SHARED.file, Durability::Cached) {
                tracing::warn!(%error, "cannot be written");
            }
        };
        write(&status_file(&self.config.state_dir), &bytes);
        if let Some(path) = &self.config.metrics_file {
            let now = self.clock.now();
            let holders = std::iter::once(&self.own).chain(self.nodes.values().map(|node| &node.holder));
            let identities =
                holders.map(|holder| (holder.name.as_str(), &holder.renewal, holder.renewal.health(now)));
            write(path, metrics::text(snapshot, identities).as_bytes());
        }
    }
}

/// Where a configuration is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It came from there.
    OnDisk,
    /// It came from the control plane.
    Nowhere,
}

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Disk(StateError),
}

impl Publication {
    fn poll_due(&self, now: Now) -> bool {
        self.is_due && now.steady_ms >= self.retry_steady_ms
    }

    fn handle_failure(&mut self, reason: String, now: Now) {
        let wait = self.backoff.handle_failure(None, random());
        self.retry_steady_ms = now.steady_ms.saturating_add(wait);
        self.trouble = Some(reason);
    }
}
