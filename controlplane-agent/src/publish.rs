//! What the disk should hold, compared with what it holds: sealed secrets first, then the members that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine};
use zen_control_api::{
    Configuration, LINK_NAMESPACE, LinkRole, LinkUses, Member, Outcome, SealedSecret, with_link_keys,
};

use crate::config::MemberConfig;
use crate::core::{Content, Entry, LinkState, MemberState, Now, Published, with_private_key};
use crate::files::{FileError, Generations, SHARED};
use crate::holder::Holder;
use crate::link_keys::LinkKeyring;
use crate::state::{CHAIN, ROOTS, StateDirectory, StateError, secret_directory, secret_path};

const NODE: &str = "node.toml";
const DENY_LIST: &str = "deny.json";

/// A node that is looked after.
pub(crate) struct Node {
    pub(crate) admin_socket: PathBuf,
    pub(crate) holder: Holder,
    pub(crate) told: MemberState,
    /// Link keys in the text that is in force.
    links: LinkUses,
    managed: Generations,
}

impl Node {
    /// With what is on disk.
    pub(crate) fn load(config: &MemberConfig, state: &StateDirectory, now: Now) -> Result<Self, StateError> {
        let managed = Generations::open(config.managed.clone(), SHARED)?;
        let holder = Holder::load(&config.name, state, now)?;
        let admin_socket = config.admin_socket.clone();
        let (told, links) = Default::default();
        Ok(Self { admin_socket, holder, told, links, managed })
    }

    /// The generation in force.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.managed.current()
    }

    /// Publishes what a configuration says of it, if that is not what is there.
    pub(crate) fn publish(
        &mut self,
        configuration: &Configuration,
        member: &Member,
        links: &LinkState,
        now: Now,
    ) -> Result<(), FileError> {
        let Some(identity) = &self.holder.identity else { return Ok(()) };
        if identity.certificate.spiffe_id != member.spiffe_id {
            // Its configuration and its name change together.
            self.holder.renewal.hasten();
            return Ok(());
        }
        let version = configuration.version;
        let keyed = with_private_key(&member.node, &self.holder.name, identity.record.key);
        let keyed = keyed.map_err(|error| error.to_string()).and_then(|node| {
            with_link_keys(&node, |link, role| links.numbers(link, role)).map_err(|error| error.to_string())
        });
        let (node, uses) = match keyed {
            Ok(keyed) => keyed,
            Err(reason) => {
                self.told.handle_refused(version, reason);
                return Ok(());
            }
        };
        let files = [
            (NODE, node.as_bytes()),
            (CHAIN, identity.certificate.chain.as_bytes()),
            (ROOTS, configuration.trust_bundle.as_bytes()),
            (DENY_LIST, configuration.deny_list.as_bytes()),
        ];
        let is_there = |(path, bytes): &(&str, &[u8])| {
            self.managed.read(path).is_ok_and(|found| found.as_deref() == Some(*bytes))
        };
        let generation = match self.managed.current() {
            Some(current) if files.iter().all(is_there) => current,
            _ => {
                let entries = files.map(|(path, bytes)| {
                    // The same file: its time says when it was confirmed.
                    let is_same = path == DENY_LIST && is_there(&(path, bytes));
                    let content = if is_same { Content::Same } else { Content::Bytes(bytes.to_vec()) };
                    Entry { path: path.to_owned(), content }
                });
                let generation = self.managed.publish(&entries)?;
                tracing::info!(member = self.holder.name, generation, version, "published");
                generation
            }
        };
        self.links = uses;
        self.told.handle_published(Published { generation, version }, now);
        Ok(())
    }

    /// Whether it runs by the configuration, with these keys of an end of a link.
    pub(crate) fn runs_with(&self, end: &(String, LinkRole), keys: &[u64], version: u64, now: Now) -> bool {
        let is_answered = self.told.wait_ms(now).is_none() && self.told.runs(version);
        is_answered && self.links.get(end).is_some_and(|known| known == keys)
    }

    /// The deny list is known to be the newest: nodes read that from the time of its file.
    pub(crate) fn confirm(&self) -> Result<(), FileError> {
        self.managed.touch(DENY_LIST)
    }

    /// What it said, as reports have it.
    pub(crate) fn outcome(&self) -> Outcome {
        let unknown = || match self.holder.identity {
            None => "it has no certificate yet".to_owned(),
            Some(_) => "it was not asked yet".to_owned(),
        };
        self.told.outcome().cloned().unwrap_or_else(|| Outcome::Unreachable { reason: unknown() })
    }
}

/// Sealed secrets of a configuration, by their paths below a generation.
///
/// A secret of the configuration before stays until no node runs by it any more. Link keys are those of the keyring.
pub(crate) fn publish_secrets(
    state: &StateDirectory,
    configuration: &Configuration,
    nodes: &BTreeMap<String, Node>,
    links: &LinkKeyring,
) -> Result<bool, StateError> {
    let mut new: BTreeMap<String, Vec<u8>> =
        configuration.secrets.iter().map(|(name, secret)| (secret_path(name), bytes_of(secret))).collect();
    let named: BTreeSet<&String> = configuration.members.keys().collect();
    let mut looked_after = nodes.iter().filter(|(name, _)| named.contains(name));
    let all_run = looked_after.all(|(_, node)| node.told.runs(configuration.version));
    new.extend(links.secrets());
    let link_keys = secret_directory(LINK_NAMESPACE);
    state.publish_secrets(&new, |path| !all_run && !path.starts_with(&link_keys))
}

fn bytes_of(secret: &SealedSecret) -> Vec<u8> {
    BASE64_STANDARD.decode(&secret.0).expect("checked when the configuration was taken")
}
