//! Link keys with simulated time: two agents, two nodes each, messages that come late, get lost or come again, agents that
//! are killed between any two steps. What a sender's node signs with, every receiver's node takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use rcgen::{KeyPair, PublicKeyData, SubjectPublicKeyInfo};
use support::{Authority, HOUR_MS, NOW_MS, TRUST_DOMAIN};
use zen_agent::core::{Judge, LinkState, Now, OlderStatement, StatementFault};
use zen_control_api::{Link, LinkKeys, LinkRole, LinkStatement, LinkStatementError, SealedSecret};
use zen_identity::{DenyEntry, DenyList, SpiffeId};

const LINK: &str = "edge-core";
const STEPS: usize = 4_000;

fn links() -> BTreeMap<String, Link> {
    let link = Link { sender: "edge".to_owned(), receiver: "core".to_owned() };
    BTreeMap::from([(LINK.to_owned(), link)])
}

/// An agent with its nodes: what each has of the link's keys, and whether it was told the newest.
struct Side {
    cluster: &'static str,
    recipient: &'static str,
    role: LinkRole,
    state: LinkState,
    nodes: [Vec<u64>; 2],
}

impl Side {
    fn new(cluster: &'static str, recipient: &'static str, role: LinkRole) -> Self {
        let mut state = LinkState::default();
        state.handle_links(cluster, &links());
        Self { cluster, recipient, role, state, nodes: Default::default() }
    }

    fn wanted(&self) -> Vec<u64> {
        self.state.numbers(LINK, self.role)
    }

    fn is_settled(&self) -> bool {
        let wanted = self.wanted();
        !wanted.is_empty() && self.nodes.iter().all(|node| *node == wanted)
    }

    /// One step of the agent, as it does them: what it lacks afterwards is on disk.
    fn step(&mut self, now: Now, random: u64) {
        let is_settled = self.is_settled();
        while let Some(mint) =
            self.state.poll_mint(self.cluster, &links(), self.recipient, |_| is_settled, now)
        {
            let sealed = SealedSecret(format!("{} for {:?}", mint.number, mint.recipients.peer));
            self.state.handle_minted(mint, sealed, is_settled, now, random);
        }
        if is_settled && self.role == LinkRole::Receiver {
            self.state.handle_settled(LINK);
        }
        self.state.handle_news(self.cluster, &links());
        for (link, number) in self.state.unopened() {
            self.state.handle_opened(&link, number);
        }
    }

    /// What it says now, if that is news; `hears` is whether the control plane's answer comes back.
    fn say(&mut self, now: Now, hears: bool) -> Option<LinkKeys> {
        let is_settled = self.is_settled();
        let whose = (self.cluster, self.recipient, 1);
        let said = self.state.poll_statement(whose, &links(), |_| is_settled, now)?;
        if hears {
            self.state.handle_said(said.clone(), 1);
        }
        Some(said)
    }

    /// All that is in memory alone is lost.
    fn restart(&mut self) {
        let text = serde_json::to_vec(&self.state).unwrap();
        self.state = serde_json::from_slice(&text).unwrap();
    }

    /// Keys of nodes are in lockd, whoever restarts now.
    fn check_sealed(&self) {
        let sealed: BTreeSet<u64> = self.state.sealed().map(|(_, key)| key.number).collect();
        for key in self.nodes.iter().flatten() {
            assert!(
                sealed.contains(key),
                "{}: key {key} of a node is not in lockd: {sealed:?}",
                self.cluster
            );
        }
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn whatever_comes_late_or_is_killed_the_receiver_takes_what_the_sender_signs_with() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut edge = Side::new("edge", "age1edge", LinkRole::Sender);
        let mut core = Side::new("core", "age1core", LinkRole::Receiver);
        let mut now = Now { wall_ms: NOW_MS, steady_ms: 0 };
        let mut under_way: Vec<LinkKeys> = Vec::new();
        let mut used = BTreeSet::new();
        for step in 0..STEPS {
            let choice = random.below(9);
            match choice {
                0 => now.wall_ms += random.below(HOUR_MS),
                1 => edge.step(now, random.next()),
                2 => core.step(now, random.next()),
                3 => under_way.extend(edge.say(now, random.below(4) > 0)),
                4 => under_way.extend(core.say(now, random.below(4) > 0)),
                // The control plane keeps the last one; an older one that comes again is refused.
                5 if !under_way.is_empty() => {
                    let at = random.below(under_way.len() as u64) as usize;
                    let said = under_way[at].clone();
                    let to = if said.peer == "edge" { &mut edge } else { &mut core };
                    let _ = to.state.handle_statement(said);
                }
                6 => {
                    let side = if random.below(2) == 0 { &mut edge } else { &mut core };
                    let node = random.below(2) as usize;
                    if !side.wanted().is_empty() {
                        side.nodes[node] = side.wanted();
                    }
                }
                7 => edge.restart(),
                8 => core.restart(),
                _ => {}
            }
            // Before the receiver has confirmed anything, the first key is for the sender's nodes to start with.
            let is_connected = core.nodes.iter().all(|node| !node.is_empty());
            for key in edge.nodes.iter().flatten() {
                let is_first = used.is_empty() || used.iter().next() == Some(key);
                let is_taken = core.nodes.iter().all(|node| node.contains(key));
                assert!(is_first || (is_connected && is_taken), "seed {seed}, step {step} ({choice}): {key}");
                used.insert(*key);
            }
            edge.check_sealed();
            core.check_sealed();
        }
        assert!(used.len() > 5, "seed {seed}: {} keys in {} h", used.len(), (now.wall_ms - NOW_MS) / HOUR_MS);
    }
}

/// Both agents do all that they can.
fn exchange(edge: &mut Side, core: &mut Side, now: Now) {
    for _ in 0..6 {
        for side in [&mut *edge, &mut *core] {
            side.step(now, 0);
            if !side.wanted().is_empty() {
                side.nodes = [side.wanted(), side.wanted()];
            }
            side.step(now, 0);
        }
        for said in [edge.say(now, true), core.say(now, true)].into_iter().flatten() {
            let to = if said.peer == "edge" { &mut *edge } else { &mut *core };
            to.state.handle_statement(said).unwrap();
        }
    }
}

fn pair(now: Now) -> (Side, Side) {
    let mut edge = Side::new("edge", "age1edge", LinkRole::Sender);
    let mut core = Side::new("core", "age1core", LinkRole::Receiver);
    exchange(&mut edge, &mut core, now);
    (edge, core)
}

fn at(hours: u64) -> Now {
    Now { wall_ms: NOW_MS + hours * HOUR_MS, steady_ms: hours * HOUR_MS }
}

#[test]
fn a_key_is_used_for_a_day_and_two_overlap() {
    let (mut edge, mut core) = pair(at(0));
    let first = edge.wanted();
    assert_eq!(core.wanted(), first, "the key that was for the sender alone was never offered");
    let mut rotations = Vec::new();
    for hour in 0..240 {
        let before = edge.wanted();
        exchange(&mut edge, &mut core, at(hour));
        if edge.wanted() != before {
            rotations.push(hour);
            assert_eq!(core.wanted(), [before[0], edge.wanted()[0]], "the one before and the one in use");
        }
    }
    assert!((9..=11).contains(&rotations.len()), "{rotations:?}");
    assert!(edge.say(at(240), true).is_none() && core.say(at(240), true).is_none(), "nothing is said twice");
}

#[test]
fn without_a_control_plane_or_an_egress_the_key_in_use_stays() {
    let (mut edge, core) = pair(at(0));
    let key = edge.wanted();
    for hour in 0..200 {
        edge.step(at(hour), 0);
        edge.say(at(hour), true);
        assert_eq!(edge.wanted(), key, "hour {hour}: nobody has confirmed another");
        assert!(core.wanted().contains(&key[0]));
    }
    assert_eq!(edge.state.sealed().count(), 2, "one in use, one that waits; no more are made");
    // An ingester that does not take its configuration: the next key waits for it.
    let (mut edge, mut core) = pair(at(0));
    let before = edge.wanted();
    edge.nodes[1] = vec![before[0] - 1];
    for hour in 0..60 {
        edge.step(at(hour), 0);
        assert_eq!(edge.state.sealed().map(|(_, key)| key.number).max(), Some(before[0]), "hour {hour}");
    }
    edge.nodes[1].clone_from(&before);
    exchange(&mut edge, &mut core, at(60));
    assert!(edge.wanted() > before);
}

#[test]
fn another_recipient_is_another_key_and_a_clock_that_is_set_back_changes_little() {
    let (mut edge, mut core) = pair(at(0));
    let before = edge.wanted();
    core.recipient = "age1other";
    exchange(&mut edge, &mut core, at(1));
    let sealed: Vec<String> = edge.state.sealed().map(|(_, key)| key.sealed.0.clone()).collect();
    assert!(sealed.last().unwrap().contains("age1other") && edge.wanted() > before, "{sealed:?}");
    let (mut edge, mut core) = pair(at(1000));
    let before = edge.wanted();
    exchange(&mut edge, &mut core, at(0));
    assert!(edge.wanted() > before, "it does not wait for 1000 hours, and no number comes again");
    assert!(core.wanted().contains(&edge.wanted()[0]));
}

#[test]
fn an_agent_that_lost_its_state_uses_no_number_again_and_nothing_breaks_meanwhile() {
    let (edge, mut core) = pair(at(0));
    let (old, taken) = (edge.wanted(), core.wanted());
    let mut edge = Side::new("edge", "age1edge", LinkRole::Sender);
    edge.step(at(1), 0);
    // It does not know the other end's recipient yet: nothing in it is for the other end.
    let said = edge.say(at(1), true).unwrap();
    assert!(said.links[LINK].keys.is_empty());
    core.state.handle_statement(said).unwrap();
    core.step(at(1), 0);
    assert_eq!(core.wanted(), taken);
    // The control plane has what the other agent said last, which comes with the configuration.
    let whose = ("core", "age1core", 2);
    let said = core.state.poll_statement(whose, &links(), |_| true, at(2)).unwrap();
    edge.state.handle_statement(said).unwrap();
    exchange(&mut edge, &mut core, at(3));
    assert!(edge.wanted() > old && core.wanted().contains(&edge.wanted()[0]));
}

#[test]
fn within_a_cluster_both_ends_take_turns_too() {
    let within =
        BTreeMap::from([(LINK.to_owned(), Link { sender: "edge".to_owned(), receiver: "edge".to_owned() })]);
    let mut state = LinkState::default();
    state.handle_links("edge", &within);
    let (mut sends, mut takes) = (Vec::new(), Vec::new());
    let mut used = BTreeSet::new();
    for hour in 0..100 {
        for _ in 0..4 {
            let is_settled =
                !sends.is_empty() && sends == state.numbers(LINK, LinkRole::Sender) && !takes.is_empty();
            while let Some(mint) = state.poll_mint("edge", &within, "age1edge", |_| is_settled, at(hour)) {
                assert_eq!(mint.recipients.peer.as_deref(), Some("age1edge"));
                state.handle_minted(mint, SealedSecret(String::new()), is_settled, at(hour), 0);
            }
            if takes == state.numbers(LINK, LinkRole::Receiver) && !takes.is_empty() {
                state.handle_settled(LINK);
            }
            state.handle_news("edge", &within);
            for (link, number) in state.unopened() {
                state.handle_opened(&link, number);
            }
            takes = state.numbers(LINK, LinkRole::Receiver);
            sends = state.numbers(LINK, LinkRole::Sender);
            assert!(sends.iter().all(|key| takes.contains(key)), "hour {hour}: {sends:?} {takes:?}");
            used.extend(sends.iter().copied());
        }
        assert!(state.poll_statement(("edge", "age1edge", 1), &within, |_| true, at(hour)).is_none());
    }
    assert!((4..=6).contains(&used.len()), "{used:?}");
}

/// A statement of the agent of `cluster`, with a certificate for `id`.
fn stated(authority: &Authority, id: &str, keys: &LinkKeys) -> LinkStatement {
    let key = KeyPair::generate().unwrap();
    let public = SubjectPublicKeyInfo::from_der(&key.subject_public_key_info()).unwrap();
    let chain = authority.certify(&public, id, NOW_MS);
    keys.sign(&chain, &key.serialize_der()).unwrap()
}

#[test]
fn only_the_peer_s_agent_is_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let core_agent = format!("spiffe://{TRUST_DOMAIN}/agent/core");
    let keys = LinkKeys {
        cluster: "core".to_owned(),
        peer: "edge".to_owned(),
        made_at_ms: 1,
        recipient: "age1core".to_owned(),
        links: BTreeMap::new(),
    };
    let nobody = DenyList::default();
    let roots = authority.roots();
    let judge = Judge {
        trust_domain: TRUST_DOMAIN,
        cluster: "edge",
        roots: &roots,
        deny_list: &nobody,
        wall_ms: NOW_MS + 1,
    };
    let good = stated(&authority, &core_agent, &keys);
    assert_eq!(judge.check("core", &good), Ok(keys.clone()));
    let is_certificate = |fault: StatementFault| matches!(fault, StatementFault::Certificate(_));

    let of_a_node = stated(&authority, &format!("spiffe://{TRUST_DOMAIN}/core/node-1"), &keys);
    assert!(is_certificate(judge.check("core", &of_a_node).unwrap_err()), "a node is no agent");
    assert!(is_certificate(judge.check("branch", &good).unwrap_err()), "another agent's");
    assert!(
        is_certificate(judge.check("core", &stated(&other, &core_agent, &keys)).unwrap_err()),
        "another CA"
    );
    let late = Judge { wall_ms: NOW_MS + 24 * 365 * HOUR_MS, ..judge };
    assert!(is_certificate(late.check("core", &good).unwrap_err()), "over");
    let empty = LinkStatement { chain: String::new(), ..good.clone() };
    assert!(is_certificate(judge.check("core", &empty).unwrap_err()));

    let text = good.text.replace("age1core", "age1evil");
    let changed = LinkStatement { text, ..good.clone() };
    assert_eq!(judge.check("core", &changed), Err(StatementFault::Statement(LinkStatementError::Signature)));
    let swapped = LinkStatement { chain: stated(&authority, &core_agent, &keys).chain, ..good.clone() };
    assert_eq!(judge.check("core", &swapped), Err(StatementFault::Statement(LinkStatementError::Signature)));

    for (cluster, peer) in [("core", "branch"), ("branch", "edge")] {
        let elsewhere = LinkKeys { cluster: cluster.to_owned(), peer: peer.to_owned(), ..keys.clone() };
        let fault = judge.check("core", &stated(&authority, &core_agent, &elsewhere)).unwrap_err();
        assert!(matches!(fault, StatementFault::Elsewhere { .. }), "{fault}");
    }
    let denied = DenyList::new([DenyEntry::Id(SpiffeId::parse(&core_agent).unwrap())]);
    let denies = Judge { deny_list: &denied, ..judge };
    assert_eq!(denies.check("core", &good), Err(StatementFault::Denied));

    let mut state = LinkState::default();
    state.handle_links("edge", &links());
    let newer = LinkKeys { made_at_ms: 5, recipient: "age1new".to_owned(), ..keys.clone() };
    state.handle_statement(newer.clone()).unwrap();
    state.handle_statement(newer).unwrap();
    assert_eq!(state.handle_statement(keys), Err(OlderStatement), "what was said once cannot be said again");
}
