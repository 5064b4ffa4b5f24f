//! The queue with what is composed in it, case by case.

use alloc::vec;

use super::super::breaker::BreakerLimits;
use super::super::outcome::ConnectFailure;
use super::super::rate::RateLimit;
use super::super::throttle::ThrottleLimits;
use super::*;

const OK: Outcome = Outcome::Answered { status: 200, retry_after_ms: None };
const GONE: Outcome = Outcome::Answered { status: 410, retry_after_ms: None };
const FAILED: Outcome = Outcome::ConnectFailed(ConnectFailure::Refused);

fn delivery(key: u64) -> Delivery {
    Delivery { key, attempt: 0, bytes: 100, order_key: 0 }
}

fn queue(in_flight_max: u32, queue_max: u32) -> TargetQueue {
    TargetQueue::new(TargetLimits { in_flight_max, queue_max, ..TargetLimits::default() }, 1)
}

fn next_key(queue: &mut TargetQueue, now_ms: u64) -> Option<u64> {
    queue.poll_attempt(now_ms).map(|delivery| delivery.key)
}

#[test]
fn a_delivery_dies_after_the_whole_schedule() {
    let mut queue = queue(1, 1);
    let schedule = queue.limits().retry_schedule_ms.clone();
    queue.handle_event(delivery(1), 0).unwrap();
    let mut now_ms = 0;
    for (index, scheduled_ms) in schedule.iter().enumerate() {
        assert_eq!(queue.poll_attempt(now_ms).map(|taken| taken.attempt), Some(index as u32));
        let Next::Retry { attempt, due_ms } = queue.handle_outcome(1, &FAILED, now_ms) else {
            panic!("entry {index} of the schedule is a retry");
        };
        assert_eq!(attempt, index as u32 + 1);
        let delay_ms = due_ms - now_ms;
        assert!((scheduled_ms * 8 / 10..=scheduled_ms * 12 / 10).contains(&delay_ms), "{delay_ms}");
        assert_eq!((queue.poll_timeout(), queue.poll_attempt(due_ms - 1)), (Some(due_ms), None));
        now_ms = due_ms;
    }
    assert_eq!(queue.poll_attempt(now_ms).map(|taken| taken.attempt), Some(7));
    let dead = Next::Dead { reason: DeadReason::ConnectFailed };
    assert_eq!(queue.handle_outcome(1, &FAILED, now_ms), dead);
    assert_eq!((queue.waiting(), queue.in_flight(), queue.bytes(), queue.oldest_ms()), (0, 0, 0, None));
}

#[test]
fn a_throttled_answer_holds_the_whole_target_back() {
    for (status, asked_ms, low, high) in [
        (503, Some(60_000), 60_000, 60_000),
        (429, Some(60_000), 60_000, 60_000),
        (429, Some(1), 1_000, 1_000),
        (429, None, 800, 1_200),
        (503, Some(u64::MAX), 24 * 3_600_000, 24 * 3_600_000),
    ] {
        let mut queue = queue(2, 2);
        queue.handle_event(delivery(1), 0).unwrap();
        assert_eq!(next_key(&mut queue, 0), Some(1));
        queue.handle_event(delivery(2), 0).unwrap();
        let outcome = Outcome::Answered { status, retry_after_ms: asked_ms };
        let Next::Retry { attempt: 1, due_ms } = queue.handle_outcome(1, &outcome, 0) else {
            panic!("{status} is a retry");
        };
        assert!((low..=high).contains(&due_ms), "{status} {asked_ms:?}: {due_ms}");
        assert_eq!((queue.poll_timeout(), queue.poll_attempt(due_ms - 1)), (Some(due_ms), None));
        assert_eq!(queue.throttled_until_ms(), due_ms);
        assert!(next_key(&mut queue, due_ms).is_some() && next_key(&mut queue, due_ms).is_some());
    }
    let mut queue = queue(1, 2);
    queue.handle_event(delivery(1), 0).unwrap();
    queue.handle_event(delivery(2), 0).unwrap();
    assert_eq!(next_key(&mut queue, 0), Some(1));
    let outcome = Outcome::Answered { status: 500, retry_after_ms: Some(60_000) };
    assert!(matches!(queue.handle_outcome(1, &outcome, 0), Next::Retry { due_ms: 800..=1_200, .. }));
    assert_eq!(next_key(&mut queue, 0), Some(2), "a 500 is one delivery's");
}

#[test]
fn throttled_attempts_count_from_their_bound_on() {
    let throttle = ThrottleLimits { uncounted_max: 3, ..ThrottleLimits::default() };
    let limits = TargetLimits { retry_schedule_ms: vec![10, 10], throttle, ..TargetLimits::default() };
    let mut queue = TargetQueue::new(limits, 1);
    queue.handle_event(delivery(1), 0).unwrap();
    let outcome = Outcome::Answered { status: 429, retry_after_ms: Some(5_000) };
    for expected in [1, 1, 1, 2] {
        let now_ms = queue.poll_timeout().unwrap();
        assert_eq!(next_key(&mut queue, now_ms), Some(1));
        let next = queue.handle_outcome(1, &outcome, now_ms);
        assert_eq!(next, Next::Retry { attempt: expected, due_ms: now_ms + 5_000 });
    }
    let now_ms = queue.poll_timeout().unwrap();
    assert_eq!(next_key(&mut queue, now_ms), Some(1));
    let dead = Next::Dead { reason: DeadReason::ClientError };
    assert_eq!(queue.handle_outcome(1, &outcome, now_ms), dead);
}

#[test]
fn a_permanent_answer_is_the_last() {
    let mut queue = queue(1, 1);
    queue.handle_event(delivery(1), 0).unwrap();
    assert_eq!(next_key(&mut queue, 0), Some(1));
    let outcome = Outcome::Answered { status: 422, retry_after_ms: None };
    let dead = Next::Dead { reason: DeadReason::ClientError };
    assert_eq!((queue.handle_outcome(1, &outcome, 0), queue.waiting()), (dead, 0));
}

#[test]
fn an_open_breaker_keeps_what_waits_and_sends_one_probe() {
    let breaker = BreakerLimits { failures_max: 2, pause_ms: 10_000, ..BreakerLimits::default() };
    let limits = TargetLimits { retry_jitter_percent: 0, breaker: Some(breaker), ..TargetLimits::default() };
    let mut queue = TargetQueue::new(limits, 1);
    for key in 1..=4 {
        queue.handle_event(delivery(key), 0).unwrap();
    }
    assert_eq!([(); 2].map(|()| next_key(&mut queue, 0)), [1, 2].map(Some));
    for key in [1, 2] {
        let next = queue.handle_outcome(key, &FAILED, 0);
        assert_eq!(next, Next::Retry { attempt: 1, due_ms: 1_000 });
    }
    assert_eq!(queue.breaker(), BreakerState::Open { probe_ms: 10_000 });
    assert_eq!((queue.poll_timeout(), queue.poll_attempt(9_999)), (Some(10_000), None));
    let probe = queue.poll_attempt(10_000).unwrap();
    assert_eq!((queue.breaker(), queue.waiting()), (BreakerState::HalfOpen, 3));
    assert_eq!((queue.poll_timeout(), queue.poll_attempt(10_000)), (None, None));
    assert_eq!(queue.handle_outcome(probe.key, &OK, 10_000), Next::Delivered);
    let rest = [(); 3].map(|()| queue.poll_attempt(10_000).unwrap());
    assert_eq!(rest.map(|delivery| delivery.attempt).iter().sum::<u32>() + probe.attempt, 2);
}

#[test]
fn what_an_attempt_at_the_former_target_met_is_not_the_present_ones() {
    let breaker = BreakerLimits { failures_max: 1, ..BreakerLimits::default() };
    let mut queue = TargetQueue::new(TargetLimits { breaker: Some(breaker), ..TargetLimits::default() }, 1);
    for key in 1..=3 {
        queue.handle_event(delivery(key), 0).unwrap();
    }
    assert_eq!([(); 3].map(|()| next_key(&mut queue, 0)), [1, 2, 3].map(Some));
    assert!(matches!(queue.handle_outcome(1, &FAILED, 0), Next::Retry { .. }));
    assert_ne!(queue.breaker(), BreakerState::Closed);
    queue.hasten(5);
    let throttled = Outcome::Answered { status: 503, retry_after_ms: Some(60_000) };
    assert!(matches!(queue.handle_outcome(2, &throttled, 5), Next::Retry { .. }));
    assert!(matches!(queue.handle_outcome(3, &FAILED, 5), Next::Retry { .. }));
    assert_eq!((queue.breaker(), queue.throttled_until_ms()), (BreakerState::Closed, 0));
    assert_eq!(next_key(&mut queue, 5), Some(1));
}

#[test]
fn attempts_keep_to_the_rate() {
    let rate = Some(RateLimit { per_second: 10, burst: 2 });
    let mut queue = TargetQueue::new(TargetLimits { rate, ..TargetLimits::default() }, 1);
    for key in 1..=4 {
        queue.handle_event(delivery(key), 1_000).unwrap();
    }
    assert_eq!([(); 3].map(|()| next_key(&mut queue, 1_000)), [Some(1), Some(2), None]);
    assert_eq!((queue.poll_timeout(), queue.poll_attempt(1_099)), (Some(1_100), None));
    assert_eq!([(); 2].map(|()| next_key(&mut queue, 1_100)), [Some(3), None]);
}

#[test]
fn a_slow_target_gets_one_attempt_at_a_time() {
    let limits = TargetLimits { answer_ms_max: Some(500), ..TargetLimits::default() };
    let (mut queue, mut now_ms) = (TargetQueue::new(limits, 1), 0);
    for (round, (answer_ms, started)) in
        [(500, 1), (500, 2), (500, 4), (501, 8), (501, 4), (501, 2), (501, 1), (1, 1), (1, 2)]
            .into_iter()
            .enumerate()
    {
        for key in 0..100 {
            queue.handle_event(delivery(round as u64 * 1_000 + key), now_ms).unwrap();
        }
        let keys: Vec<u64> = core::iter::from_fn(|| next_key(&mut queue, now_ms)).collect();
        assert_eq!((keys.len(), queue.poll_timeout()), (started, None), "round {round}");
        now_ms += answer_ms;
        for key in keys {
            assert_eq!(queue.handle_outcome(key, &OK, now_ms), Next::Delivered);
        }
        now_ms += 1;
    }
}

fn ordered(key: u64, order_key: u64) -> Delivery {
    Delivery { order_key, ..delivery(key) }
}

#[test]
fn a_failed_first_holds_back_its_own_key_alone() {
    let mut queue = queue(8, 10);
    for (key, order_key) in [(1, 7), (2, 7), (3, 8), (4, 0), (5, 7), (6, 0)] {
        queue.handle_event(ordered(key, order_key), 0).unwrap();
    }
    assert_eq!([(); 5].map(|()| next_key(&mut queue, 0)), [Some(1), Some(3), Some(4), Some(6), None]);
    let Next::Retry { due_ms, .. } = queue.handle_outcome(1, &FAILED, 0) else {
        panic!("a first failure is a retry");
    };
    assert_eq!((queue.poll_attempt(due_ms - 1), queue.poll_timeout()), (None, Some(due_ms)));
    assert_eq!([(); 2].map(|()| next_key(&mut queue, due_ms)), [Some(1), None]);
    assert_eq!(queue.handle_outcome(1, &OK, due_ms), Next::Delivered);
    assert_eq!([(); 2].map(|()| next_key(&mut queue, due_ms)), [Some(2), None]);
    let dead = Next::Dead { reason: DeadReason::ClientError };
    let refused = Outcome::Answered { status: 422, retry_after_ms: None };
    assert_eq!(queue.handle_outcome(2, &refused, due_ms), dead);
    assert_eq!(
        [(); 2].map(|()| next_key(&mut queue, due_ms)),
        [Some(5), None],
        "a dead first frees the next"
    );
    assert_eq!(queue.handle_outcome(5, &GONE, due_ms), Next::Disabled { attempt: 1, due_ms });
    queue.handle_event(ordered(9, 7), due_ms).unwrap();
    queue.resume(due_ms);
    assert_eq!([(); 2].map(|()| next_key(&mut queue, due_ms)), [Some(5), None]);
}

#[test]
fn the_next_of_a_key_does_not_queue_anew() {
    let mut queue = queue(1, 100);
    for key in 1..=3 {
        queue.handle_event(ordered(key, 7), key).unwrap();
    }
    for key in 10..20 {
        queue.handle_event(delivery(key), key).unwrap();
    }
    let order = [1, 2, 10, 3, 11, 12].map(|expected| {
        let key = next_key(&mut queue, 100).unwrap();
        assert_eq!(queue.handle_outcome(key, &OK, 100), Next::Delivered);
        (key, expected)
    });
    assert!(order.iter().all(|(key, expected)| key == expected), "{order:?}");
}

#[test]
fn restored_deliveries_of_a_key_keep_their_order() {
    let mut queue = queue(8, 10);
    queue.handle_restored(Delivery { attempt: 3, ..ordered(4, 7) }, 500).unwrap();
    queue.handle_restored(ordered(5, 7), 0).unwrap();
    queue.handle_event(ordered(2, 7), 0).unwrap();
    for (key, start_ms) in [(4, 500), (5, 500), (2, 500)] {
        assert_eq!(queue.poll_timeout().map(|at_ms| at_ms.max(500)), Some(start_ms));
        assert_eq!([(); 2].map(|()| next_key(&mut queue, start_ms)), [Some(key), None]);
        assert_eq!(queue.handle_outcome(key, &OK, start_ms), Next::Delivered);
    }
    queue.handle_event(ordered(6, 7), 500).unwrap();
    queue.handle_event(ordered(8, 7), 500).unwrap();
    assert_eq!(next_key(&mut queue, 500), Some(6));
    assert_eq!(queue.poll_removed().map(|delivery| delivery.key), Some(8), "behind one in flight");
    assert_eq!(queue.poll_removed(), None);
}

#[test]
fn another_target_need_not_wait_for_the_first_ones_pause() {
    let mut queue = queue(1, 1);
    queue.handle_event(delivery(1), 0).unwrap();
    assert_eq!(next_key(&mut queue, 0), Some(1));
    let outcome = Outcome::Answered { status: 503, retry_after_ms: Some(60_000) };
    assert_eq!(queue.handle_outcome(1, &outcome, 0), Next::Retry { attempt: 1, due_ms: 60_000 });
    queue.hasten(5);
    assert_eq!((queue.poll_timeout(), next_key(&mut queue, 5)), (Some(5), Some(1)));
}

#[test]
fn gone_disables_and_its_events_go_first_after_resume() {
    let mut queue = queue(2, 10);
    for key in 1..=4 {
        queue.handle_event(delivery(key), 5).unwrap();
    }
    assert_eq!((next_key(&mut queue, 5), next_key(&mut queue, 5)), (Some(1), Some(2)));
    assert_eq!(queue.handle_outcome(2, &GONE, 9), Next::Disabled { attempt: 1, due_ms: 9 });
    assert_eq!(queue.state(), TargetState::Disabled { since_ms: 9 });
    assert_eq!((queue.poll_attempt(99), queue.poll_timeout()), (None, None));
    assert_eq!(queue.handle_outcome(1, &GONE, 100), Next::Disabled { attempt: 1, due_ms: 100 });
    queue.pause(100);
    assert_eq!(queue.state(), TargetState::Disabled { since_ms: 9 });
    assert_eq!((queue.waiting(), queue.oldest_ms()), (4, Some(5)));
    queue.handle_event(delivery(5), 100).unwrap();
    queue.resume(200);
    assert_eq!((next_key(&mut queue, 200), next_key(&mut queue, 200)), (Some(2), Some(1)));
    assert_eq!((queue.handle_outcome(1, &OK, 200), next_key(&mut queue, 200)), (Next::Delivered, Some(3)));
}

#[test]
fn what_waits_for_its_time_is_hastened() {
    let mut queue = queue(2, 10);
    for key in 1..=3 {
        queue.handle_restored(Delivery { attempt: 1, ..delivery(key) }, 1_000 * key).unwrap();
    }
    assert_eq!((queue.poll_attempt(10), queue.poll_timeout()), (None, Some(1_000)));
    queue.hasten(20);
    assert_eq!((queue.poll_timeout(), next_key(&mut queue, 20)), (Some(20), Some(1)));
    assert_eq!((next_key(&mut queue, 20), queue.waiting()), (Some(2), 1));
}

#[test]
fn a_paused_target_keeps_its_deliveries() {
    let mut queue = queue(2, 10);
    queue.pause(0);
    queue.handle_event(delivery(1), 1).unwrap();
    assert_eq!((queue.state(), queue.poll_attempt(2), queue.waiting()), (TargetState::Paused, None, 1));
    queue.resume(3);
    assert_eq!(next_key(&mut queue, 3), Some(1));
    assert_eq!(queue.handle_outcome(1, &GONE, 4), Next::Disabled { attempt: 1, due_ms: 4 });
}

#[test]
fn fresh_deliveries_and_retries_take_turns() {
    let mut queue = queue(8, 100);
    for key in 0..4 {
        queue.handle_restored(Delivery { attempt: 1, ..delivery(key) }, 50 + key).unwrap();
        queue.handle_event(delivery(10 + key), 0).unwrap();
    }
    let order = [10, 0, 11, 1, 12, 2, 13, 3].map(Some);
    assert_eq!([(); 8].map(|()| next_key(&mut queue, 60)), order);
    assert_eq!(next_key(&mut queue, 60), None);
}

#[test]
fn a_failing_delivery_blocks_no_other() {
    let mut queue = queue(1, 10);
    queue.handle_event(delivery(1), 0).unwrap();
    queue.handle_event(delivery(2), 0).unwrap();
    assert_eq!(next_key(&mut queue, 0), Some(1));
    assert_eq!((queue.poll_timeout(), next_key(&mut queue, 0)), (None, None));
    assert!(matches!(queue.handle_outcome(1, &FAILED, 0), Next::Retry { .. }));
    assert_eq!((queue.poll_timeout(), next_key(&mut queue, 0)), (Some(0), Some(2)));
}

#[test]
fn what_is_in_flight_keeps_its_slot() {
    let mut queue = queue(1, 2);
    queue.handle_event(delivery(1), 0).unwrap();
    assert_eq!(next_key(&mut queue, 0), Some(1));
    queue.handle_event(delivery(2), 0).unwrap();
    assert_eq!(queue.handle_event(delivery(3), 0), Err(QueueFull));
    assert_eq!(queue.handle_restored(delivery(3), 0), Err(QueueFull));
    assert!(matches!(queue.handle_outcome(1, &FAILED, 0), Next::Retry { .. }));
    assert_eq!(queue.handle_event(delivery(3), 0), Err(QueueFull));
    assert_eq!((queue.waiting(), queue.in_flight(), queue.bytes()), (2, 0, 200));
}

#[test]
fn time_never_goes_backwards() {
    let mut queue = queue(1, 2);
    queue.handle_event(delivery(1), 1_000).unwrap();
    assert_eq!(next_key(&mut queue, 0), Some(1));
    let Next::Retry { due_ms, .. } = queue.handle_outcome(1, &FAILED, 0) else {
        panic!("a first failure is a retry");
    };
    assert!((1_800..=2_200).contains(&due_ms), "{due_ms}");
}

#[test]
fn a_restored_delivery_goes_on_where_it_was() {
    let mut queue = queue(1, 2);
    queue.handle_restored(Delivery { attempt: 7, ..delivery(1) }, 500).unwrap();
    assert_eq!((queue.poll_timeout(), queue.poll_attempt(499)), (Some(500), None));
    assert_eq!(next_key(&mut queue, 500), Some(1));
    let dead = Next::Dead { reason: DeadReason::TimedOut };
    assert_eq!(queue.handle_outcome(1, &Outcome::TimedOut, 501), dead);
}

#[test]
fn a_removed_target_gives_everything_back() {
    let mut queue = queue(3, 9);
    for key in 1..=3 {
        queue.handle_event(delivery(key), 0).unwrap();
    }
    queue.handle_restored(delivery(4), 1_000).unwrap();
    assert_eq!([(); 2].map(|()| next_key(&mut queue, 0)), [Some(1), Some(2)]);
    assert_eq!(queue.handle_outcome(1, &GONE, 0), Next::Disabled { attempt: 1, due_ms: 0 });
    let removed = [(); 4].map(|()| queue.poll_removed().map(|delivery| delivery.key));
    assert_eq!(removed, [Some(1), Some(4), Some(3), None]);
    let dead = Next::Dead { reason: DeadReason::TargetRemoved };
    assert_eq!(queue.handle_outcome(2, &Outcome::TargetRemoved, 0), dead);
    assert_eq!((queue.waiting(), queue.in_flight()), (0, 0));
}

#[test]
#[should_panic(expected = "an outcome belongs to an attempt in flight")]
fn an_outcome_without_an_attempt_is_a_bug() {
    let _ = queue(1, 1).handle_outcome(1, &OK, 0);
}

#[test]
fn what_would_be_tried_again_after_its_deadline_is_dead_now() {
    for (deadline_ms, expected) in [(1_200, None), (801, None), (800, Some(DeadReason::DeadlineOver))] {
        let mut queue = queue(1, 1);
        queue.limits.retry_jitter_percent = 0;
        queue.limits.retry_schedule_ms = vec![800];
        queue.handle_event(delivery(1), 0).unwrap();
        queue.poll_attempt(0).unwrap();
        let reason = match queue.handle_outcome_until(1, &FAILED, deadline_ms, 0) {
            Next::Dead { reason } => Some(reason),
            _ => None,
        };
        assert_eq!((reason, queue.waiting()), (expected, usize::from(expected.is_none())), "{deadline_ms}");
    }
}

#[test]
fn a_throttled_delivery_whose_deadline_is_within_the_pause_is_dead() {
    let mut queue = queue(1, 1);
    queue.handle_event(delivery(1), 0).unwrap();
    queue.poll_attempt(0).unwrap();
    let throttled = Outcome::Answered { status: 429, retry_after_ms: Some(5_000) };
    let dead = Next::Dead { reason: DeadReason::DeadlineOver };
    assert_eq!(queue.handle_outcome_until(1, &throttled, 5_000, 0), dead);
}

#[test]
fn changed_limits_count_at_once_but_for_the_places() {
    let mut queue = queue(1, 3);
    for key in 1..=3 {
        queue.handle_event(delivery(key), 0).unwrap();
    }
    queue.poll_attempt(0).unwrap();
    let throttled = Outcome::Answered { status: 429, retry_after_ms: Some(60_000) };
    let _ = queue.handle_outcome(1, &throttled, 0);
    let same = queue.limits().clone();
    queue.handle_limits(TargetLimits { queue_max: 99, ..same.clone() });
    assert_eq!(queue.poll_attempt(0), None, "nothing changed, so it still waits");
    assert_eq!(queue.limits(), &same);
    let rate = Some(RateLimit { per_second: 10, burst: 1 });
    queue.handle_limits(TargetLimits { in_flight_max: 2, rate, ..same });
    assert_eq!((next_key(&mut queue, 0), next_key(&mut queue, 0)), (Some(2), None));
    assert_eq!((next_key(&mut queue, 100), queue.in_flight()), (Some(3), 2));
}

#[test]
fn a_target_tells_what_holds_it_back() {
    let breaker = Some(BreakerLimits { failures_max: 1, share: None, pause_ms: 100, pause_ms_max: 100 });
    let rate = Some(RateLimit { per_second: 1, burst: 1 });
    let limits = TargetLimits { breaker, rate, retry_jitter_percent: 0, ..TargetLimits::default() };
    let mut queue = TargetQueue::new(limits, 1);
    for key in 1..=3 {
        queue.handle_event(delivery(key), 0).unwrap();
    }
    assert_eq!(queue.hold(0), None);
    let key = next_key(&mut queue, 0).unwrap();
    assert_eq!(queue.hold(0), Some(Hold::RateLimited { until_ms: 1_000 }));
    let throttled = Outcome::Answered { status: 429, retry_after_ms: Some(3_000) };
    let _ = queue.handle_outcome(key, &throttled, 0);
    assert_eq!(queue.hold(2_999), Some(Hold::Throttled { until_ms: 3_000 }));
    let key = next_key(&mut queue, 3_000).unwrap();
    let _ = queue.handle_outcome(key, &FAILED, 3_000);
    assert_eq!(queue.hold(3_099), Some(Hold::BreakerOpen { probe_ms: 3_100 }));
    let key = next_key(&mut queue, 4_000).unwrap();
    assert_eq!(queue.hold(4_000), Some(Hold::BreakerHalfOpen));
    let _ = queue.handle_outcome(key, &OK, 4_000);
    assert_eq!(queue.hold(5_000), None);
}
