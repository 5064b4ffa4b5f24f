//! Link keys with files, the vault and the control plane: made here, sealed to both ends, told to the other end's agent.
//!
//! What is kept (`link-keys.json`) comes first; sealed files, nodes' texts and statements follow from it. So whoever is
//! killed between two of them does the rest at the next start.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use zen_control_api::{
    Configuration, LINK_NAMESPACE, LinkKeys, LinkRole, LinkStatement, LinkStatementError, LinkUses,
    SealedSecret, link_secret, with_link_keys,
};
use zen_identity::DenyList;
use zen_lock::{ClientError, SecretName};
use zeroize::Zeroizing;

use crate::clock::random;
use crate::control_plane::ControlError;
use crate::core::{Alarm, Backoff, EnrolledWith, Judge, LinkState, Mint, Now, key_name};
use crate::key::PrivateKey;
use crate::lockd::{Lockd, LockdError, own_secret};
use crate::publish::Node;
use crate::state::{AGENT, Identity, StateDirectory, StateError, secret_path};

const KEY_BYTES: usize = 32;
const KEY_PREFIX: &str = "whsec_";
/// As nodes take them.
const KEY_BYTES_TAKEN: std::ops::RangeInclusive<usize> = 24..=64;

/// Link keys of a running agent.
pub(crate) struct LinkKeyring {
    pub(crate) state: LinkState,
    /// What is on disk.
    kept: LinkState,
    steps: Attempts,
    statements: Attempts,
    /// What a peer said and is not taken.
    refused: Option<String>,
    alarm: Alarm,
}

/// What failed last, and when to try again.
#[derive(Default)]
struct Attempts {
    backoff: Backoff,
    retry_steady_ms: u64,
    trouble: Option<String>,
}

/// What a step needs.
pub(crate) struct LinkMeans<'a> {
    pub(crate) state: &'a StateDirectory,
    pub(crate) lockd: &'a Lockd,
    pub(crate) configuration: &'a Configuration,
    pub(crate) nodes: &'a BTreeMap<String, Node>,
    pub(crate) now: Now,
}

/// What is to be said to the agent of one peer.
pub(crate) struct Saying {
    pub(crate) keys: LinkKeys,
    /// Of the agent's certificate.
    pub(crate) generation: u64,
    pub(crate) signed: Result<LinkStatement, LinkError>,
}

/// Why a step or a statement came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Lockd(#[from] LockdError),
    #[error("{0}: {1}; does a grant give the agent {LINK_NAMESPACE}/*?")]
    Open(SecretName, ClientError),
    #[error("{0}: the other end sealed something else than a link key")]
    NoKey(SecretName),
    #[error(transparent)]
    Statement(#[from] LinkStatementError),
    #[error("{0}: what lockd hands out is no key of ours")]
    OwnKey(SecretName),
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl LinkKeyring {
    /// With what is on disk.
    pub(crate) fn load(state: &StateDirectory) -> Result<Self, StateError> {
        let kept = state.links()?;
        let state = kept.clone();
        let (steps, statements) = Default::default();
        Ok(Self { state, kept, steps, statements, refused: None, alarm: Alarm::default() })
    }

    /// Takes the links of a configuration, and what it brings of other agents, if they said it.
    pub(crate) fn handle_configuration(
        &mut self,
        configuration: &Configuration,
        enrolled: &EnrolledWith,
        now: Now,
    ) {
        self.state.handle_links(&configuration.cluster, &configuration.link_keys);
        let deny_list = DenyList::from_json(configuration.deny_list.as_bytes()).unwrap_or_default();
        let judge = Judge {
            trust_domain: &enrolled.trust_domain,
            cluster: &configuration.cluster,
            roots: &configuration.trust_bundle,
            deny_list: &deny_list,
            wall_ms: now.wall_ms,
        };
        self.refused = None;
        for (peer, statement) in &configuration.link_statements {
            if let Err(reason) = self.take(&judge, peer, statement) {
                let reason = format!("what the agent of {peer} is said to say: {reason}");
                if self.alarm.handle_fault(&reason, now) {
                    tracing::error!(
                        reason,
                        "alarm: a statement about link keys is not taken; the keys in force stay"
                    );
                }
                self.refused = Some(reason);
            }
        }
        self.steps = Attempts::default();
    }

    /// One that was taken before may have been signed with a certificate that is over now.
    fn take(&mut self, judge: &Judge<'_>, peer: &str, statement: &LinkStatement) -> Result<(), String> {
        let known = self.state.said_at_ms(peer);
        if statement.unverified().is_ok_and(|said| Some(said.made_at_ms) == known) {
            return Ok(());
        }
        let said = judge.check(peer, statement).map_err(|fault| fault.to_string())?;
        self.state.handle_statement(said).map_err(|fault| fault.to_string())
    }

    /// Makes the next key of each link now.
    pub(crate) fn handle_order(&mut self) {
        self.state.handle_order();
        self.steps = Attempts::default();
    }

    /// Does what is due; whether nodes or lockd have to have something else now.
    pub(crate) fn step(&mut self, means: &LinkMeans<'_>) -> bool {
        if means.configuration.link_keys.is_empty() && self.state == self.kept {
            return false;
        }
        if means.now.steady_ms < self.steps.retry_steady_ms {
            return false;
        }
        let before = self.state.clone();
        match self.advance(means) {
            Ok(()) => self.steps = Attempts::default(),
            Err(error) => self.steps.handle_failure(&error, None, means.now),
        }
        self.state != before
    }

    fn advance(&mut self, means: &LinkMeans<'_>) -> Result<(), LinkError> {
        let Configuration { cluster, link_keys: links, .. } = means.configuration;
        let recipient = &means.lockd.0.recipient;
        let settled = settled(&self.state, means);
        let is = |link: &str, role| settled.get(&(link.to_owned(), role)).copied().unwrap_or_default();
        while let Some(mint) =
            self.state.poll_mint(cluster, links, recipient, |link| is(link, LinkRole::Sender), means.now)
        {
            let sealed = make(&mint, means)?;
            tracing::info!(link = mint.link, key = mint.number, "a new link key");
            let is_settled = is(&mint.link, LinkRole::Sender);
            self.state.handle_minted(mint, sealed, is_settled, means.now, random());
        }
        for (link, role) in settled.iter().filter(|(_, is_settled)| **is_settled).map(|(end, _)| end) {
            if *role == LinkRole::Receiver {
                self.state.handle_settled(link);
            }
        }
        self.state.handle_news(cluster, links);
        self.keep(means.state)?;
        let opened = self.open(means);
        self.keep(means.state)?;
        opened
    }

    /// Sealed keys that came go to lockd, and are used when it opens them.
    fn open(&mut self, means: &LinkMeans<'_>) -> Result<(), LinkError> {
        let unopened = self.state.unopened();
        if unopened.is_empty() {
            return Ok(());
        }
        means.state.publish_secrets(&self.secrets(), |_| true)?;
        let mut result = Ok(());
        for (link, number) in unopened {
            match check(means.lockd, &link, number) {
                Ok(()) => self.state.handle_opened(&link, number),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    fn keep(&mut self, state: &StateDirectory) -> Result<(), StateError> {
        if self.state != self.kept {
            state.set_links(&self.state)?;
            self.kept = self.state.clone();
        }
        Ok(())
    }

    /// Sealed files, by their paths below a generation of secrets.
    pub(crate) fn secrets(&self) -> BTreeMap<String, Vec<u8>> {
        let file = |(link, key): (&str, &zen_control_api::SealedLinkKey)| {
            let path = secret_path(secret(link, key.number).as_str());
            // What a peer sealed is opened before it counts; what is no base64 is opened by nobody.
            (path, BASE64_STANDARD.decode(&key.sealed.0).unwrap_or_default())
        };
        self.state.sealed().map(file).collect()
    }

    /// What has to be said now, signed.
    pub(crate) fn poll_statement(&self, means: &LinkMeans<'_>, own: &Identity) -> Option<Saying> {
        let Configuration { cluster, link_keys: links, .. } = means.configuration;
        if links.is_empty() || means.now.steady_ms < self.statements.retry_steady_ms {
            return None;
        }
        let settled = settled(&self.state, means);
        let is_settled =
            |link: &str| settled.get(&(link.to_owned(), LinkRole::Receiver)).copied().unwrap_or_default();
        let generation = own.record.generation;
        let whose = (cluster.as_str(), means.lockd.0.recipient.as_str(), generation);
        let keys = self.state.poll_statement(whose, links, is_settled, means.now)?;
        let signed = sign(&keys, means.lockd, own);
        Some(Saying { keys, generation, signed })
    }

    /// The control plane has it.
    pub(crate) fn handle_said(
        &mut self,
        keys: LinkKeys,
        generation: u64,
        state: &StateDirectory,
    ) -> Result<(), LinkError> {
        self.state.handle_said(keys, generation);
        self.statements = Attempts::default();
        Ok(self.keep(state)?)
    }

    /// It was not said.
    pub(crate) fn handle_unsaid(&mut self, error: &LinkError, now: Now) {
        let retry_after_ms = match error {
            LinkError::Control(error) => error.retry_after_ms(),
            _ => None,
        };
        self.statements.handle_failure(error, retry_after_ms, now);
    }

    /// When something that failed is tried again, ms from now.
    pub(crate) fn wait_ms(&self, now: Now) -> Option<u64> {
        let failed =
            [&self.steps, &self.statements].into_iter().filter(|attempts| attempts.trouble.is_some());
        failed.map(|attempts| attempts.retry_steady_ms.saturating_sub(now.steady_ms)).min()
    }

    /// What is wrong.
    pub(crate) fn trouble(&self) -> Option<&String> {
        self.refused.as_ref().or(self.steps.trouble.as_ref()).or(self.statements.trouble.as_ref())
    }
}

impl Attempts {
    fn handle_failure(&mut self, error: &LinkError, retry_after_ms: Option<u64>, now: Now) {
        let wait = self.backoff.handle_failure(retry_after_ms, random());
        self.retry_steady_ms = now.steady_ms.saturating_add(wait);
        let trouble = error.to_string();
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(%error, "link keys: it is tried again; the keys in force stay");
        }
        self.trouble = Some(trouble);
    }
}

/// Of each end of a link that nodes have, whether all of them run by the keys that they should have.
fn settled(state: &LinkState, means: &LinkMeans<'_>) -> BTreeMap<(String, LinkRole), bool> {
    let Configuration { version, members, .. } = means.configuration;
    let mut settled = BTreeMap::new();
    for (name, node) in means.nodes {
        let Some(member) = members.get(name) else { continue };
        for (end, _) in uses_of(&member.node) {
            let wanted = state.numbers(&end.0, end.1);
            let is_settled = node.runs_with(&end, &wanted, *version, means.now);
            *settled.entry(end).or_insert(true) &= is_settled && !wanted.is_empty();
        }
    }
    settled
}

/// Ends of links that a text names.
fn uses_of(text: &str) -> LinkUses {
    with_link_keys(text, |_, _| vec![0]).map(|(_, uses)| uses).unwrap_or_default()
}

/// A new key, sealed; it is nowhere in clear but in this process and the program that seals it.
fn make(mint: &Mint, means: &LinkMeans<'_>) -> Result<SealedSecret, LinkError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut *bytes).expect("the kernel has randomness once it has started");
    let mut value = Zeroizing::new(String::with_capacity(KEY_PREFIX.len() + 2 * KEY_BYTES));
    value.push_str(KEY_PREFIX);
    BASE64_STANDARD.encode_string(*bytes, &mut value);
    let (namespace, name, key) = link_secret(&mint.link, mint.number);
    let peer = mint.recipients.peer.iter().filter(|peer| **peer != mint.recipients.own);
    let recipients: Vec<&str> =
        std::iter::once(&mint.recipients.own).chain(peer).map(String::as_str).collect();
    let sealed =
        means.lockd.seal_for((namespace, &name), &recipients, &[(key, value)], &means.state.scratch())?;
    let sealed = sealed.first().expect("as many as there were values");
    Ok(SealedSecret(BASE64_STANDARD.encode(sealed)))
}

/// Whether lockd opens a key that came, and it is one.
fn check(lockd: &Lockd, link: &str, number: u64) -> Result<(), LinkError> {
    let name = secret(link, number);
    let value = match lockd.open(&name) {
        Ok(value) => value,
        Err(LockdError::Open(error)) => return Err(LinkError::Open(name, error)),
        Err(error) => return Err(error.into()),
    };
    let decoded = value.strip_prefix(KEY_PREFIX.as_bytes()).and_then(|key| BASE64_STANDARD.decode(key).ok());
    let is_key = decoded.map(Zeroizing::new).is_some_and(|key| KEY_BYTES_TAKEN.contains(&key.len()));
    if is_key { Ok(()) } else { Err(LinkError::NoKey(name)) }
}

fn secret(link: &str, number: u64) -> SecretName {
    let (namespace, name, key) = link_secret(link, number);
    SecretName::new(namespace, &name, &key).expect("names of links are parts of names of secrets")
}

/// As the agent, whose key is opened for it.
fn sign(keys: &LinkKeys, lockd: &Lockd, own: &Identity) -> Result<LinkStatement, LinkError> {
    let name = own_secret(AGENT, &key_name(own.record.key));
    let key = PrivateKey::from_pem(&lockd.open(&name)?);
    let key =
        key.filter(|key| key.public_key() == own.certificate.public_key).ok_or(LinkError::OwnKey(name))?;
    Ok(keys.sign(&own.certificate.chain, &key.der())?)
}
