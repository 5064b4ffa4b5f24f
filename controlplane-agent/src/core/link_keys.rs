//! Link keys of one cluster: which there are, which one its ingesters sign with, which its egresses take, when the next is made.
//!
//! A key that is made is published to both ends before anybody signs with it: it becomes the one in use when the receiver
//! says that all its nodes have it. The one before stays until the next is made, which waits until no node uses it.
//! So at each moment the receiver takes whatever the sender signs with, whoever is behind, killed, or away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zen_control_api::{LINK_KEYS_MAX, Link, LinkKeys, LinkRole, LinkSide, SealedLinkKey, SealedSecret};

use super::{Now, jittered};

/// How long a key is in use before the next one is made.
pub const LINK_KEY_LIFE_MS: u64 = 24 * 3_600_000;
const LIFE_JITTER_PERCENT: u64 = 10;
/// Two keys of a link are made at least so far apart, unless the receiver could read none so far.
const MINT_PAUSE_MS: u64 = 60_000;
/// Most keys that a receiver keeps for nodes which have not taken the new ones.
const RETIRING_MAX: usize = 2 * LINK_KEYS_MAX;

/// All that is kept of link keys; nothing in it is a secret in clear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkState {
    sending: BTreeMap<String, SendingKeys>,
    receiving: BTreeMap<String, ReceivingKeys>,
    /// What the agents of other clusters said last.
    peers: BTreeMap<String, LinkKeys>,
    /// What the control plane has of us, and with which certificate it was said.
    said: BTreeMap<String, Said>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    keys: LinkKeys,
    generation: u64,
}

/// A link's keys where it begins, oldest first: the one before, the one in use, the next; some of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SendingKeys {
    keys: Vec<MintedKey>,
    in_use: u64,
    next_at_ms: u64,
}

/// A key that was made here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintedKey {
    /// The key and its number.
    pub key: SealedLinkKey,
    /// To whom it is sealed.
    pub recipients: Recipients,
}

/// To whom a key is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipients {
    /// This host's lockd.
    pub own: String,
    /// The other end's; none before its agent has said it.
    pub peer: Option<String>,
}

/// A key that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mint {
    /// Of which link.
    pub link: String,
    /// Unix seconds, or one more than the last: none is used twice, even by an agent that has lost its state.
    pub number: u64,
    /// To whom it has to be sealed.
    pub recipients: Recipients,
}

/// A link's keys where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceivingKeys {
    keys: Vec<ReceivedKey>,
    /// Of nodes that have not taken the present ones.
    retiring: Vec<SealedLinkKey>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceivedKey {
    key: SealedLinkKey,
    /// Whether our lockd opened it and it was a key.
    is_good: bool,
}

/// What a peer said is not newer than what it said before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is older than what the same agent said before")]
pub struct OlderStatement;

impl LinkState {
    /// Forgets links and peers that a configuration does not name.
    pub fn handle_links(&mut self, cluster: &str, links: &BTreeMap<String, Link>) {
        let is = |name: &String, end: fn(&Link) -> &String| {
            links.get(name).is_some_and(|link| end(link) == cluster)
        };
        self.sending.retain(|name, _| is(name, |link| &link.sender));
        self.receiving.retain(|name, _| is(name, |link| &link.receiver));
        let peers: BTreeSet<&str> = links.values().map(|link| link.peer_of(cluster)).collect();
        self.peers.retain(|name, _| peers.contains(name.as_str()));
        self.said.retain(|name, _| peers.contains(name.as_str()));
        for (name, link) in links {
            if link.sender == cluster {
                self.sending.entry(name.clone()).or_default();
            }
            if link.receiver == cluster {
                self.receiving.entry(name.clone()).or_default();
            }
        }
    }

    /// When the peer said what is known of it, Unix ms.
    pub fn said_at_ms(&self, peer: &str) -> Option<u64> {
        self.peers.get(peer).map(|said| said.made_at_ms)
    }

    /// Takes what the agent of a peer said; that it said it was checked.
    pub fn handle_statement(&mut self, said: LinkKeys) -> Result<(), OlderStatement> {
        match self.peers.get(&said.cluster) {
            Some(known) if *known == said => return Ok(()),
            Some(known) if known.made_at_ms >= said.made_at_ms => return Err(OlderStatement),
            _ => {}
        }
        self.peers.insert(said.cluster.clone(), said);
        Ok(())
    }

    /// Carries what is known of each link to its keys: receipts to those that are sent with, new ones to those received.
    /// Whether anything changed.
    pub fn handle_news(&mut self, cluster: &str, links: &BTreeMap<String, Link>) -> bool {
        let before = (self.sending.clone(), self.receiving.clone());
        for (name, link) in links {
            let peer = self.peers.get(link.peer_of(cluster)).and_then(|said| said.links.get(name));
            let is_inner = link.sender == link.receiver;
            if let Some(receiving) = self.receiving.get_mut(name) {
                let own = is_inner.then(|| self.sending.get(name).map(SendingKeys::offered)).flatten();
                let keys = own.or_else(|| peer.map(|side| side.keys.clone())).unwrap_or_default();
                receiving.handle_keys(keys);
            }
            let held = peer.map(|side| side.held.clone()).unwrap_or_default();
            if let Some(sending) = self.sending.get_mut(name).filter(|_| !is_inner) {
                sending.handle_held(&held);
            }
        }
        before != (self.sending.clone(), self.receiving.clone())
    }

    /// The next key of each link is due now.
    pub fn handle_order(&mut self) {
        self.sending.values_mut().for_each(|sending| sending.next_at_ms = 0);
    }

    /// A key that has to be made now; `is_settled` says whether all nodes use what they should of a link.
    pub fn poll_mint(
        &self,
        cluster: &str,
        links: &BTreeMap<String, Link>,
        recipient: &str,
        is_settled: impl Fn(&str) -> bool,
        now: Now,
    ) -> Option<Mint> {
        self.sending.iter().find_map(|(name, sending)| {
            let link = links.get(name)?;
            let own = recipient.to_owned();
            let peer = match link.peer_of(cluster) {
                peer if peer == cluster => Some(own.clone()),
                peer => self.peers.get(peer).map(|said| said.recipient.clone()),
            };
            let recipients = Recipients { own, peer };
            let number = sending.poll_mint(&recipients, is_settled(name), now)?;
            Some(Mint { link: name.clone(), number, recipients })
        })
    }

    /// A key was made and sealed, and nobody has it yet.
    pub fn handle_minted(
        &mut self,
        mint: Mint,
        sealed: SealedSecret,
        is_settled: bool,
        now: Now,
        random: u64,
    ) {
        let Mint { link, number, recipients } = mint;
        let key = SealedLinkKey { number, sealed };
        let sending = self.sending.entry(link).or_default();
        sending.handle_minted(MintedKey { key, recipients }, is_settled, now, random);
    }

    /// All nodes take a receiver's present keys: those before may go, and of a link within a cluster the next is used.
    /// Whether anything changed.
    pub fn handle_settled(&mut self, link: &str) -> bool {
        let Some(receiving) = self.receiving.get_mut(link) else { return false };
        let is_changed = !receiving.retiring.is_empty();
        receiving.retiring.clear();
        let held = receiving.numbers().into_iter().collect();
        let is_used = self.sending.get_mut(link).is_some_and(|sending| sending.handle_held(&held));
        is_changed || is_used
    }

    /// A received key that nobody here has opened yet.
    pub fn unopened(&self) -> Vec<(String, u64)> {
        let of = |(name, receiving): (&String, &ReceivingKeys)| {
            let name = name.clone();
            let unopened = receiving.keys.iter().filter(|key| !key.is_good);
            unopened.map(move |key| (name.clone(), key.key.number)).collect::<Vec<_>>()
        };
        self.receiving.iter().flat_map(of).collect()
    }

    /// Our lockd opened it, and it is a key.
    pub fn handle_opened(&mut self, link: &str, number: u64) {
        let keys = self.receiving.get_mut(link).into_iter().flat_map(|receiving| &mut receiving.keys);
        keys.filter(|key| key.key.number == number).for_each(|key| key.is_good = true);
    }

    /// Numbers that a node's text should have: of a sender the one in use.
    pub fn numbers(&self, link: &str, role: LinkRole) -> Vec<u64> {
        match role {
            LinkRole::Sender => self
                .sending
                .get(link)
                .map(|sending| sending.in_use)
                .filter(|key| *key > 0)
                .into_iter()
                .collect(),
            LinkRole::Receiver => self.receiving.get(link).map(ReceivingKeys::numbers).unwrap_or_default(),
        }
    }

    /// All that lockd should have, by link.
    pub fn sealed(&self) -> impl Iterator<Item = (&str, &SealedLinkKey)> {
        let minted = self
            .sending
            .iter()
            .flat_map(|(link, sending)| sending.keys.iter().map(move |key| (link.as_str(), &key.key)));
        let received = self.receiving.iter().flat_map(|(link, receiving)| {
            let keys = receiving.keys.iter().map(|key| &key.key).chain(&receiving.retiring);
            keys.map(move |key| (link.as_str(), key))
        });
        minted.chain(received)
    }

    /// What has to be said to another cluster's agent: what it does not know, or knows with an older certificate.
    pub fn poll_statement(
        &self,
        (cluster, recipient, generation): (&str, &str, u64),
        links: &BTreeMap<String, Link>,
        is_settled: impl Fn(&str) -> bool,
        now: Now,
    ) -> Option<LinkKeys> {
        let peers: BTreeSet<&str> = links.values().map(|link| link.peer_of(cluster)).collect();
        peers.into_iter().filter(|peer| *peer != cluster).find_map(|peer| {
            let said = self.said.get(peer);
            let own = links.iter().filter(|(_, link)| link.peer_of(cluster) == peer);
            let own = own.map(|(name, link)| {
                let known = said.and_then(|said| said.keys.links.get(name)).cloned().unwrap_or_default();
                (name.clone(), self.side(name, link.receiver == cluster, is_settled(name), known))
            });
            let last = said.map_or(0, |said| said.keys.made_at_ms);
            let keys = LinkKeys {
                cluster: cluster.to_owned(),
                peer: peer.to_owned(),
                made_at_ms: last,
                recipient: recipient.to_owned(),
                links: own.collect(),
            };
            let is_known = said.is_some_and(|said| said.keys == keys && said.generation == generation);
            let made_at_ms = now.wall_ms.max(last.saturating_add(1));
            (!is_known).then_some(LinkKeys { made_at_ms, ..keys })
        })
    }

    /// What was said is with the control plane.
    pub fn handle_said(&mut self, keys: LinkKeys, generation: u64) {
        self.said.insert(keys.peer.clone(), Said { keys, generation });
    }

    /// While nodes are being told, what was said of a receiver's keys stays.
    fn side(&self, link: &str, is_receiver: bool, is_settled: bool, known: LinkSide) -> LinkSide {
        if !is_receiver {
            let keys = self.sending.get(link).map(SendingKeys::offered).unwrap_or_default();
            return LinkSide { keys, held: BTreeSet::new() };
        }
        let held = if is_settled {
            self.numbers(link, LinkRole::Receiver).into_iter().collect()
        } else {
            known.held
        };
        LinkSide { keys: Vec::new(), held }
    }
}

impl SendingKeys {
    fn poll_mint(&self, recipients: &Recipients, is_settled: bool, now: Now) -> Option<u64> {
        let now_s = now.wall_ms / 1000;
        let Some(newest) = self.keys.last() else { return Some(now_s.max(1)) };
        let age_ms = now.wall_ms.saturating_sub(newest.key.number.saturating_mul(1000));
        // A clock that was set back would make the next one wait for as long.
        let is_over = now.wall_ms >= self.next_at_ms || self.next_at_ms - now.wall_ms > 2 * LINK_KEY_LIFE_MS;
        let is_due = self.in_use == newest.key.number && is_settled && is_over;
        let is_other =
            newest.recipients != *recipients && (age_ms >= MINT_PAUSE_MS || newest.recipients.peer.is_none());
        (is_due || is_other).then(|| now_s.max(newest.key.number + 1))
    }

    fn handle_minted(&mut self, minted: MintedKey, is_settled: bool, now: Now, random: u64) {
        let in_use = self.in_use;
        // A next one that nobody has confirmed is replaced; the one before goes when no node uses it.
        self.keys.retain(|key| key.key.number <= in_use && (!is_settled || key.key.number == in_use));
        if self.keys.is_empty() {
            self.in_use = minted.key.number;
        }
        self.next_at_ms = now.wall_ms.saturating_add(jittered(LINK_KEY_LIFE_MS, LIFE_JITTER_PERCENT, random));
        self.keys.push(minted);
        assert!(self.keys.len() < LINK_KEYS_MAX, "before, in use, next");
    }

    /// Whether another key is in use now.
    fn handle_held(&mut self, held: &BTreeSet<u64>) -> bool {
        let newest = self.keys.last().map_or(0, |key| key.key.number);
        let is_news = newest != self.in_use && held.contains(&newest);
        if is_news {
            self.in_use = newest;
        }
        is_news
    }

    /// What the other end can open.
    fn offered(&self) -> Vec<SealedLinkKey> {
        self.keys.iter().filter(|key| key.recipients.peer.is_some()).map(|key| key.key.clone()).collect()
    }
}

impl ReceivingKeys {
    /// A sender that begins anew has no key that we could open; until then those of before are good.
    fn handle_keys(&mut self, keys: Vec<SealedLinkKey>) {
        if keys.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.keys);
        let was_good = |key: &SealedLinkKey| before.iter().any(|known| known.is_good && known.key == *key);
        self.keys = keys.into_iter().map(|key| ReceivedKey { is_good: was_good(&key), key }).collect();
        let numbers: BTreeSet<u64> = self.keys.iter().map(|key| key.key.number).collect();
        self.retiring.extend(before.into_iter().filter(|key| key.is_good).map(|key| key.key));
        self.retiring.retain(|key| !numbers.contains(&key.number));
        let excess = self.retiring.len().saturating_sub(RETIRING_MAX);
        self.retiring.drain(..excess);
    }

    fn numbers(&self) -> Vec<u64> {
        self.keys.iter().filter(|key| key.is_good).map(|key| key.key.number).collect()
    }
}
