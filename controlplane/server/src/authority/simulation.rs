//! Five years and more on a simulated clock: CAs that follow each other, a root that is rotated in the fourth year, agents that
//! renew all the way and are up to a day behind with the roots they know.

use std::collections::VecDeque;

use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use zen_identity::{PeerUsage, SpiffeId, SvidError, TrustBundle, TrustBundles, TrustDomain, check_svid};

use super::ledger::{Issuing, Ledger, Root};
use super::rotation::{Need, Spread, Step};
use super::{Authority, LEAF_LIFE_MS, end_of, made};

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const START_MS: u64 = 1_800_000_000_000;
/// What an agent may be behind.
const BEHIND_MS: u64 = 24 * HOUR_MS;

/// A control plane in memory.
struct World {
    ledger: Ledger,
    roots: Vec<(u64, made::Made)>,
    issuing: Vec<(u64, made::Made)>,
    /// Roots as they were published, with the time; the last is in force.
    bundles: VecDeque<(u64, String)>,
    leaves: Vec<Leaf>,
    used: Vec<(u64, u64)>,
}

struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    root: u64,
    ends_at_ms: u64,
}

impl World {
    fn new() -> Self {
        let root = made::root(START_MS).unwrap();
        let entry =
            Root { number: 1, prepared_at_ms: START_MS, ends_at_ms: end_of(&root.certificate).unwrap() };
        let key = KeyPair::from_pem(&root.key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&root.certificate, key).unwrap();
        let issuing = made::issuing(&issuer, entry.ends_at_ms, START_MS).unwrap();
        let first = Issuing {
            number: 1,
            root: 1,
            prepared_at_ms: START_MS,
            ends_at_ms: end_of(&issuing.certificate).unwrap(),
            used_from_ms: Some(START_MS),
        };
        Self {
            ledger: Ledger::first(entry, first),
            bundles: [(START_MS, root.certificate.clone())].into(),
            roots: vec![(1, root)],
            issuing: vec![(1, issuing)],
            leaves: Vec::new(),
            used: vec![(1, START_MS)],
        }
    }

    fn prepare(&mut self, root: u64, now_ms: u64) {
        let made = &self.roots.iter().find(|(number, _)| *number == root).unwrap().1;
        let key = KeyPair::from_pem(&made.key).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&made.certificate, key).unwrap();
        let issuing = made::issuing(&issuer, end_of(&made.certificate).unwrap(), now_ms).unwrap();
        let (number, ends_at_ms) = (self.ledger.next_issuing(), end_of(&issuing.certificate).unwrap());
        let entry = Issuing { number, root, prepared_at_ms: now_ms, ends_at_ms, used_from_ms: None };
        self.ledger.issuing.push(entry);
        self.issuing.push((number, issuing));
    }

    /// What the server's upkeep does.
    fn advance(&mut self, now_ms: u64, spread: Spread) {
        while let Some(step) = self.ledger.poll_step(now_ms, spread) {
            match step {
                Step::Prepare { root } => self.prepare(root, now_ms),
                Step::Use { number } => {
                    let next = self.ledger.issuing.iter_mut().find(|issuing| issuing.number == number);
                    next.unwrap().used_from_ms = Some(now_ms);
                    self.used.push((number, now_ms));
                }
                Step::Remove { number } => self.ledger.issuing.retain(|issuing| issuing.number != number),
            }
        }
    }

    fn publish(&mut self, now_ms: u64) {
        let roots = self.ledger.roots.iter().map(|root| {
            let made = &self.roots.iter().find(|(number, _)| *number == root.number).unwrap().1;
            made.certificate.as_str()
        });
        let bundle = roots.collect();
        self.bundles.push_back((now_ms, bundle));
    }

    fn issue(&mut self, now_ms: u64) {
        let active = *self.ledger.active();
        let made = &self.issuing.iter().find(|(number, _)| *number == active.number).unwrap().1;
        let key = KeyPair::from_pem(&made.key).unwrap();
        let authority =
            Authority::of((made.certificate.clone(), key), String::new(), String::new(), String::new());
        let id = SpiffeId::parse("spiffe://acme.example/agent/edge").unwrap();
        let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issued = authority.ok().unwrap().issue(&id, &own, now_ms).unwrap();
        assert_eq!(issued.not_after_ms, (now_ms + LEAF_LIFE_MS) / 1000 * 1000, "no leaf is cut short");
        let chain =
            CertificateDer::pem_slice_iter(issued.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        self.leaves.push(Leaf { chain, root: active.root, ends_at_ms: issued.not_after_ms });
    }

    /// Every leaf that is good, against every bundle that somebody who is a day behind may have.
    fn check(&mut self, now_ms: u64) {
        self.leaves.retain(|leaf| leaf.ends_at_ms > now_ms);
        while self.bundles.get(1).is_some_and(|(since_ms, _)| since_ms + BEHIND_MS < now_ms) {
            self.bundles.pop_front();
        }
        for (_, bundle) in &self.bundles {
            for leaf in &self.leaves {
                verify(leaf, bundle, now_ms).unwrap();
            }
        }
    }

    fn rotate_root(&mut self, now_ms: u64) {
        let root = made::root(now_ms).unwrap();
        let number = self.ledger.newest_root().number + 1;
        let ends_at_ms = end_of(&root.certificate).unwrap();
        self.ledger.roots.push(Root { number, prepared_at_ms: now_ms, ends_at_ms });
        self.roots.push((number, root));
        self.prepare(number, now_ms);
        self.publish(now_ms);
    }

    fn retire_root(&mut self, now_ms: u64) {
        let old = self.ledger.roots.remove(0).number;
        self.ledger.issuing.retain(|issuing| issuing.root != old);
        self.publish(now_ms);
    }
}

fn verify(leaf: &Leaf, bundle: &str, now_ms: u64) -> Result<SpiffeId, SvidError> {
    let domain = TrustDomain::parse("acme.example").unwrap();
    let bundles = TrustBundles::new([TrustBundle::from_pem(domain, bundle.as_bytes()).unwrap()]);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now_ms));
    check_svid(&leaf.chain, &bundles, now, PeerUsage::Server)
}

/// Agents renew every 11 hours; all have reported the second root two days and a bit after it was made.
#[test]
fn for_five_years_every_good_leaf_is_good_to_everybody_who_is_a_day_behind() {
    let mut world = World::new();
    let rotated_ms = START_MS + 4 * 365 * DAY_MS + 7 * HOUR_MS;
    let known_ms = rotated_ms + 50 * HOUR_MS;
    let (mut now_ms, mut is_rotated, mut retired_ms, mut checks) = (START_MS, false, None, 0_u32);
    while now_ms < START_MS + (5 * 365 + 120) * DAY_MS {
        if now_ms >= rotated_ms && !is_rotated {
            world.rotate_root(now_ms);
            is_rotated = true;
        }
        let spread = if now_ms >= known_ms { Spread::Everywhere } else { Spread::Partly };
        world.advance(now_ms, spread);
        let is_signing = world.ledger.active().root == 2;
        if is_signing && retired_ms.is_none() && world.leaves.iter().all(|leaf| leaf.root == 2) {
            world.retire_root(now_ms);
            retired_ms = Some(now_ms);
        }
        world.issue(now_ms);
        world.check(now_ms);
        checks += 1;
        // And at the last moment of the oldest.
        let last_ms = world.leaves[0].ends_at_ms - 1000;
        verify(&world.leaves[0], &world.bundles.back().unwrap().1, last_ms).unwrap();
        now_ms += 11 * HOUR_MS;
    }
    let after_known = retired_ms.unwrap() - known_ms;
    assert!((LEAF_LIFE_MS..=4 * DAY_MS).contains(&after_known), "{after_known}");
    assert_eq!(world.ledger.roots.len(), 1);
    assert!(world.ledger.issuing.len() <= 3, "what is over goes: {:?}", world.ledger.issuing);
    // The first CA signs for 75 days, each after it for 45: it was prepared 30 days before.
    assert!((42..=46).contains(&world.used.len()), "{:?}", world.used);
    for pair in world.used.windows(2) {
        let days = (pair[1].1 - pair[0].1) / DAY_MS;
        assert!(days <= 76, "{days}");
    }
    assert!(checks > 4000);
}

/// Nothing here is so for want of looking: a root that goes too early is noticed, and so is a CA whose root nobody knows.
#[test]
fn the_check_sees_a_root_that_goes_too_early_or_signs_too_early() {
    let mut world = World::new();
    world.issue(START_MS);
    world.rotate_root(START_MS);
    world.retire_root(START_MS + HOUR_MS);
    let now_ms = START_MS + 2 * HOUR_MS;
    assert_eq!(verify(&world.leaves[0], &world.bundles[2].1, now_ms), Err(SvidError::UnknownIssuer));

    let mut world = World::new();
    world.rotate_root(START_MS);
    world.ledger.issuing[1].used_from_ms = Some(START_MS + HOUR_MS);
    world.issue(START_MS + 2 * HOUR_MS);
    let now_ms = START_MS + 3 * HOUR_MS;
    assert_eq!(verify(&world.leaves[0], &world.bundles[0].1, now_ms), Err(SvidError::UnknownIssuer));
}

#[test]
fn a_successor_is_prepared_at_half_of_the_life_and_signs_at_five_sixths() {
    let mut world = World::new();
    let at = |days: u64| START_MS + days * DAY_MS;
    assert_eq!(world.ledger.poll_step(at(45) - 1, Spread::Everywhere), None);
    assert_eq!(world.ledger.poll_step(at(45), Spread::Everywhere), Some(Step::Prepare { root: 1 }));
    assert_eq!(
        world.ledger.poll_need(at(45)),
        Some(Need::RootKey { by_ms: at(90) }),
        "if the key is elsewhere"
    );
    world.prepare(1, at(45));
    assert_eq!(world.ledger.poll_need(at(46)), None);
    assert_eq!(world.ledger.poll_step(at(75) - 1, Spread::Everywhere), None);
    assert_eq!(world.ledger.poll_step(at(75), Spread::Everywhere), Some(Step::Use { number: 2 }));
    world.advance(at(75), Spread::Everywhere);
    assert_eq!(world.ledger.poll_step(at(91) - 1, Spread::Everywhere), Some(Step::Prepare { root: 1 }));
    world.advance(at(91), Spread::Everywhere);
    assert!(world.ledger.issuing.iter().all(|issuing| issuing.number != 1), "a day after its end");
}

#[test]
fn a_successor_that_comes_late_waits_a_day_unless_leaves_are_cut_short() {
    let at = |hours: u64| START_MS + hours * HOUR_MS;
    let mut world = World::new();
    let late = 80 * 24;
    world.prepare(1, at(late));
    assert_eq!(world.ledger.poll_step(at(late + 24) - 1, Spread::Everywhere), None);
    assert_eq!(world.ledger.poll_step(at(late + 24), Spread::Everywhere), Some(Step::Use { number: 2 }));
    let mut world = World::new();
    let too_late = 90 * 24 - 36;
    world.prepare(1, at(too_late));
    assert_eq!(world.ledger.poll_step(at(too_late), Spread::Everywhere), Some(Step::Use { number: 2 }));
}

#[test]
fn a_second_root_signs_when_everybody_knows_it_and_a_day_has_passed() {
    let at = |hours: u64| START_MS + hours * HOUR_MS;
    let mut world = World::new();
    world.rotate_root(at(1));
    assert_eq!(world.ledger.poll_step(at(24), Spread::Everywhere), None);
    assert_eq!(world.ledger.poll_step(at(100), Spread::Partly), None);
    assert_eq!(world.ledger.poll_step(at(25), Spread::Everywhere), Some(Step::Use { number: 2 }));
    // Whoever never reports holds the root up, and no certificate.
    world.advance(at(90 * 24), Spread::Partly);
    assert_eq!(world.ledger.active().root, 1);
    assert!(world.ledger.active().ends_at_ms > at(90 * 24));
}

#[test]
fn near_the_end_of_its_root_no_ca_follows_another_for_nothing() {
    let mut world = World::new();
    let end_ms = world.ledger.newest_root().ends_at_ms;
    let mut now_ms = START_MS;
    while now_ms < end_ms {
        world.advance(now_ms, Spread::Everywhere);
        now_ms += DAY_MS;
    }
    assert!(world.used.len() <= 41, "{}", world.used.len());
    assert_eq!(world.ledger.poll_need(end_ms - 300 * DAY_MS), Some(Need::Root { by_ms: end_ms }));
}
