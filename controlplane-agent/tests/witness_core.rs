//! The machine of a witness: what it signs, and each reason for which it raises an alarm; and orders, each begun once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;

use support::{NOW_MS, enrolled};
use zen_agent::core::{LogWitness, Now, OrderState, WitnessAlarm, WitnessState};
use zen_audit::{
    Alarm, Checkpoint, Frontier, Hash, Node, Nodes, Note, SignatureKind, SigningKey, consistency_proof,
    leaf_hash,
};
use zen_control_api::{Base64, LogReport, Order, OrderEnd, OrderError, OrderResult, SignedOrder};

/// A log as its keeper has it.
#[derive(Clone, Default)]
struct Log {
    nodes: BTreeMap<Node, Hash>,
    frontier: Frontier,
}

impl Nodes for Log {
    type Error = Infallible;

    fn hash(&self, node: Node) -> Result<Hash, Infallible> {
        Ok(self.nodes[&node])
    }
}

impl Log {
    fn of(entries: &[&str]) -> Self {
        let mut log = Self::default();
        for entry in entries {
            let nodes = &mut log.nodes;
            log.frontier.append(leaf_hash(entry.as_bytes()), |node, hash| {
                nodes.insert(node, hash);
            });
        }
        log
    }

    /// As it is shown to whoever saw `seen` entries.
    fn shown(&self, seen: u64, key: &SigningKey) -> LogReport {
        let (size, root) = (self.frontier.size(), self.frontier.root());
        let origin = key.public().name().to_owned();
        let mut note = Note::new(Checkpoint { origin, size, root }.text());
        note.sign(key, 0);
        let proof = if seen <= size { consistency_proof(self, seen, size).unwrap() } else { Vec::new() };
        let proof = proof.into_iter().map(|hash| Base64(hash.0)).collect();
        LogReport { key: key.public().to_string(), checkpoint: note.to_string(), proof }
    }
}

fn log_key(seed: u8) -> SigningKey {
    SigningKey::new("acme.example/audit", SignatureKind::Note, &[seed; 32].into()).unwrap()
}

fn own_key() -> SigningKey {
    SigningKey::new("acme.example/agent/edge", SignatureKind::Cosignature, &[9; 32].into()).unwrap()
}

/// A witness that saw these entries, and what it keeps.
fn witness(entries: &[&str]) -> (LogWitness, WitnessState) {
    let mut witness = LogWitness::load(None, None).unwrap();
    let kept = witness.handle_log(Some(&Log::of(entries).shown(0, &log_key(1)))).unwrap().unwrap();
    (witness, kept)
}

#[test]
fn each_change_of_the_log_is_an_alarm_for_its_reason() {
    let (seen, _) = witness(&["a", "b", "c"]);
    let shown = |entries: &[&str]| Log::of(entries).shown(3, &log_key(1));
    let handle = |report: &LogReport| seen.clone().handle_log(Some(report));
    let log = |alarm: Alarm| WitnessAlarm::Log(alarm);
    assert_eq!(handle(&shown(&["a", "b"])), Err(log(Alarm::Shorter { found: 2, seen: 3 })));
    assert_eq!(handle(&shown(&["a", "x", "c"])), Err(log(Alarm::Fork { size: 3 })));
    for other in [["a", "x", "c", "d"], ["b", "a", "c", "d"], ["a", "a", "b", "c"], ["b", "c", "d", "e"]] {
        assert!(matches!(
            handle(&shown(&other)),
            Err(WitnessAlarm::Log(Alarm::Rewritten { found: 4, seen: 3, .. }))
        ));
    }
    let (pinned, other) = (log_key(1).public().to_string(), log_key(2).public().to_string());
    let key = handle(&Log::of(&["a", "b", "c", "d"]).shown(3, &log_key(2)));
    assert_eq!(key, Err(WitnessAlarm::Key { pinned, shown: other }));
    // The right key named, and another one's signature.
    let forged =
        LogReport { key: log_key(1).public().to_string(), ..Log::of(&["a", "b", "c"]).shown(3, &log_key(2)) };
    assert!(matches!(handle(&forged), Err(WitnessAlarm::Log(Alarm::Checkpoint(_)))));
    let good = shown(&["a", "b", "c", "d"]);
    assert!(matches!(handle(&LogReport { proof: Vec::new(), ..good.clone() }), Err(WitnessAlarm::Log(_))));
    assert_eq!(
        handle(&LogReport { checkpoint: "x".to_owned(), ..good.clone() }),
        Err(WitnessAlarm::Form("note"))
    );
    assert_eq!(handle(&LogReport { key: "x".to_owned(), ..good.clone() }), Err(WitnessAlarm::Form("key")));
    assert_eq!(seen.clone().handle_log(None), Err(WitnessAlarm::Gone { seen: 3 }));
    assert!(handle(&good).unwrap().is_some());
}

#[test]
fn what_was_seen_is_kept_over_a_restart_and_cosigned_once() {
    let (mut seen, kept) = witness(&["a", "b"]);
    let cosigned = Note::parse(&seen.poll_cosigned(&own_key(), NOW_MS).unwrap()).unwrap();
    assert_eq!(cosigned.verify(own_key().public()), Ok(Some(NOW_MS / 1000)));
    assert_eq!(Checkpoint::parse(cosigned.text()).unwrap().size, 2);
    seen.handle_told(2);
    assert_eq!(seen.poll_cosigned(&own_key(), NOW_MS), None);
    assert_eq!(seen.handle_log(Some(&Log::of(&["a", "b"]).shown(2, &log_key(1)))), Ok(None));
    // What was not told before is told after.
    let mut again = LogWitness::load(None, Some(&kept)).unwrap();
    assert!(again.size() == 2 && again.poll_cosigned(&own_key(), NOW_MS).is_some());
    assert!(again.handle_log(Some(&Log::of(&["a"]).shown(2, &log_key(1)))).is_err());
    assert!(again.handle_log(Some(&Log::of(&["a", "b", "c"]).shown(2, &log_key(1)))).unwrap().is_some());
    let changed = WitnessState { seen: kept.seen.replace("\n2\n", "\n1\n"), ..kept };
    assert!(LogWitness::load(None, Some(&changed)).is_none(), "what is kept is checked");
}

#[test]
fn a_bundle_s_key_is_believed_before_what_is_shown() {
    let bundle_key = log_key(1).public().to_string();
    let mut witness = LogWitness::load(Some(&bundle_key), None).unwrap();
    let other = Log::of(&["a"]).shown(0, &log_key(2));
    assert!(matches!(witness.handle_log(Some(&other)), Err(WitnessAlarm::Key { .. })));
    assert_eq!(witness.handle_log(None), Ok(None), "there is no log yet");
    assert!(witness.handle_log(Some(&Log::of(&["a"]).shown(0, &log_key(1)))).unwrap().is_some());
    assert!(LogWitness::load(Some("no key"), None).is_none());
}

fn order(number: u64) -> Order {
    Order {
        number,
        tenant: "acme".to_owned(),
        cluster: "edge".to_owned(),
        member: "edge-1".to_owned(),
        expires_at_ms: NOW_MS + 1,
        replay: ["0-1-0".to_owned()].into(),
    }
}

#[test]
fn an_order_is_begun_once_whoever_is_killed_when() {
    let key = zen_control_api::SigningKey::generate();
    let enrolled = enrolled(&key);
    let now = Now { wall_ms: NOW_MS, steady_ms: 0 };
    let signed = |order: &Order| SignedOrder::sign(order, &key);
    let mut state = OrderState::default();
    assert_eq!(state.handle_order(&signed(&order(5)), &enrolled, now), Ok(order(5)));
    // Killed here: what is on disk says that it was begun.
    let mut restarted: OrderState = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
    assert!(!restarted.has_place() && restarted.handle_start());
    assert_eq!(restarted.ends(), [OrderResult { number: 5, end: OrderEnd::Unknown }]);
    let again = restarted.handle_order(&signed(&order(5)), &enrolled, now);
    assert_eq!(again, Err(OrderError::Again { number: 5, last: 5 }));
    // Not killed.
    let done = OrderEnd::Done { done: 1, skipped: 0 };
    state.handle_end(done.clone());
    assert!(!state.handle_start(), "nothing was under way");
    assert_eq!(
        state.handle_order(&signed(&order(4)), &enrolled, now),
        Err(OrderError::Again { number: 4, last: 5 })
    );
    let said = state.ends().to_vec();
    assert_eq!(said, [OrderResult { number: 5, end: done }]);
    state.handle_order(&signed(&order(6)), &enrolled, now).unwrap();
    state.handle_end(OrderEnd::Failed { reason: "no".to_owned() });
    state.handle_heard(&said);
    assert_eq!(state.ends().len(), 1, "what came meanwhile was not heard");
    // One that is over has an end as well, and is not begun.
    let over = Order { expires_at_ms: NOW_MS, ..order(7) };
    assert!(matches!(
        state.handle_order(&signed(&over), &enrolled, now),
        Err(OrderError::Over { number: 7, .. })
    ));
    assert!(matches!(state.ends().last().unwrap().end, OrderEnd::Failed { .. }) && state.last() == 7);
    let stranger = SignedOrder::sign(&order(9), &zen_control_api::SigningKey::generate());
    assert_eq!(state.handle_order(&stranger, &enrolled, now), Err(OrderError::Signature));
    assert_eq!(state.last(), 7, "what nobody signed changes nothing");
}
