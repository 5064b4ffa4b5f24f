//! Seeds without a planted bug keep every promise; each planted bug breaks one within a thousand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use zen_sim::{Planted, Summary, Violation, run};

const EVENTS: usize = 50;

/// The first violation within a thousand seeds.
fn first(planted: Planted) -> Violation {
    let failed = (1..=1000).find_map(|seed| run(seed, EVENTS, Some(planted)).err());
    failed.expect("a planted bug is found within 1,000 seeds").violation
}

#[test]
fn a_hundred_seeds_keep_every_promise() {
    let mut total = Summary::default();
    for seed in 1..=100 {
        match run(seed, EVENTS, None) {
            Ok(summary) => total.add(&summary),
            Err(failure) => panic!("seed {seed}: {}\n{}", failure.violation, failure.trace.join("\n")),
        }
    }
    assert!(total.accepted > 4_000 && total.delivered > 4_000 && total.crashes > 200, "{total:?}");
    assert!(
        total.duplicates > 400 && total.dead_letters > 20 && total.sent_again > 10 && total.lost > 0,
        "{total:?}"
    );
}

#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    for seed in [5_356, 200_824, 202_383, 203_246] {
        assert_eq!(run(seed, EVENTS, None).err(), None, "seed {seed}");
    }
}

#[test]
fn a_seed_fixes_everything() {
    assert_eq!(run(7, EVENTS, None), run(7, EVENTS, None));
    assert_ne!(run(7, EVENTS, None), run(8, EVENTS, None));
}

#[test]
fn an_answer_before_the_disk_has_it_is_found() {
    assert!(matches!(first(Planted::AnswerBeforeDurable), Violation::AnsweredNotDurable(_)));
}

#[test]
fn a_trim_before_the_acknowledgement_is_found() {
    assert!(matches!(first(Planted::TrimBeforeAck), Violation::TrimmedTooEarly { .. }));
}

#[test]
fn a_replay_at_the_edge_of_the_window_is_found() {
    assert!(matches!(first(Planted::ReplayWindowOffByOne), Violation::ReplayTaken(_)));
}

#[test]
fn a_discard_that_a_restart_forgets_is_found() {
    assert!(matches!(first(Planted::DiscardForgotten), Violation::DiscardUndone { .. }));
}

#[test]
fn a_letter_that_is_not_sent_again_though_it_is_no_letter_any_more_is_found() {
    assert!(matches!(first(Planted::LetterNotSent), Violation::NoProgress { .. }));
}

#[test]
fn a_key_that_a_restart_forgets_is_found() {
    assert!(matches!(first(Planted::KeyNotRestored), Violation::KeyTwice { .. }));
}

#[test]
fn a_key_that_is_freed_before_its_write_succeeds_is_found() {
    assert!(matches!(first(Planted::KeyFreedOnFailedWrite), Violation::KeyTwice { .. }));
}

#[test]
fn an_order_that_a_restart_turns_around_is_found() {
    assert!(matches!(first(Planted::OrderNotRestored), Violation::Overtaken { .. }));
}
