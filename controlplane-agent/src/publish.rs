//! What the disk should hold, compared with what it holds: sealed secrets first, then the members that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine};
use zen_control_api::{Configuration, Member, Outcome, SealedSecret};

use crate::config::MemberConfig;
use crate::core::{Content, Entry, MemberState, Now, Published, with_private_key};
use crate::files::{FileError, Generations, SHARED};
use crate::holder::Holder;
use crate::state::{CHAIN, ROOTS, StateDirectory, StateError, secret_path};

const NODE: &str = "node.toml";
const DENY_LIST: &str = "deny.json";

/// A node that is looked after.
pub(crate) struct Node {
    pub(crate) admin_socket: PathBuf,
    pub(crate) holder: Holder,
    pub(crate) told: MemberState,
    managed: Generations,
}

impl Node {
    /// With what is on disk.
    pub(crate) fn load(config: &MemberConfig, state: &StateDirectory, now: Now) -> Result<Self, StateError> {
        let managed = Generations::open(config.managed.clone(), SHARED)?;
        let holder = Holder::load(&config.name, state, now)?;
        let admin_socket = config.admin_socket.clone();
        Ok(Self { admin_socket, holder, told: MemberState::default(), managed })
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
        now: Now,
    ) -> Result<(), FileError> {
        let Some(identity) = &self.holder.identity else { return Ok(()) };
        if identity.certificate.spiffe_id != member.spiffe_id {
            // Its configuration and its name change together.
            self.holder.renewal.hasten();
            return Ok(());
        }
        let version = configuration.version;
        let node = match with_private_key(&member.node, &self.holder.name, identity.record.key) {
            Ok(node) => node,
            Err(error) => {
                self.told.handle_refused(version, error.to_string());
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
                let entries = files.map(|(path, bytes)| Entry {
                    path: path.to_owned(),
                    content: Content::Bytes(bytes.to_vec()),
                });
                let generation = self.managed.publish(&entries)?;
                tracing::info!(member = self.holder.name, generation, version, "published");
                generation
            }
        };
        self.told.handle_published(Published { generation, version }, now);
        Ok(())
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
/// A secret of the configuration before stays until no node runs by it any more.
pub(crate) fn publish_secrets(
    state: &StateDirectory,
    configuration: &Configuration,
    nodes: &BTreeMap<String, Node>,
) -> Result<bool, StateError> {
    let new: BTreeMap<String, Vec<u8>> =
        configuration.secrets.iter().map(|(name, secret)| (secret_path(name), bytes_of(secret))).collect();
    let named: BTreeSet<&String> = configuration.members.keys().collect();
    let mut looked_after = nodes.iter().filter(|(name, _)| named.contains(name));
    let all_run = looked_after.all(|(_, node)| node.told.runs(configuration.version));
    state.publish_secrets(&new, |_| !all_run)
}

fn bytes_of(secret: &SealedSecret) -> Vec<u8> {
    BASE64_STANDARD.decode(&secret.0).expect("checked when the configuration was taken")
}
