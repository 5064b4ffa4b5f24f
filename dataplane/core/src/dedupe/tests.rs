//! The life of a key, step by step; sequences against a model are in `fuzz`.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::id::EventId;

const HOUR_MS: u64 = 3_600_000;
const KEY: EventKey = EventKey([1; 16]);
const FIRST: EventId = EventId([0xa; 16]);
const SECOND: EventId = EventId([0xb; 16]);

fn shard() -> Shard {
    shard_of(100)
}

fn shard_of(keys_max: u32) -> Shard {
    Shard::new(&limits(keys_max)).unwrap()
}

fn limits(keys_max: u32) -> Limits {
    Limits { keys_max, pending_max: 2, waiters_per_key_max: 2, waiters_max: 3, ..Limits::default() }
}

fn key(number: u64) -> EventKey {
    KeyHasher::new([3; 16]).event_key(EventId(u128::from(number).to_be_bytes()))
}

fn durable(shard: &mut Shard, key: EventKey, event_id: EventId, now_ms: u64) -> (EventId, Vec<Waiter>) {
    let mut waiters = Vec::new();
    let first = shard.handle_durable(key, event_id, now_ms, &mut waiters);
    (first, waiters)
}

#[test]
fn who_comes_while_a_key_is_pending_gets_the_first_events_id() {
    let mut shard = shard();
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(1)), Verdict::New);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(2)), Verdict::Pending);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(3)), Verdict::Pending);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(4)), Verdict::TooManyWaiters);
    assert_eq!(durable(&mut shard, KEY, FIRST, 5), (FIRST, vec![Waiter(2), Waiter(3)]));
    assert_eq!(shard.handle_arrival(KEY, 5, Waiter(5)), Verdict::Duplicate { event_id: FIRST });
    let Counters { duplicates, waited, refused, doubles, .. } = shard.counters();
    assert_eq!((duplicates, waited, refused, doubles), (1, 2, 1, 0));
}

#[test]
fn a_failed_write_frees_the_key_for_whoever_comes_next() {
    let mut shard = shard();
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(1)), Verdict::New);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(2)), Verdict::Pending);
    let mut waiters = Vec::new();
    shard.handle_failed(KEY, Waiter(2), &mut waiters);
    assert_eq!((shard.pending(), waiters.len()), (1, 0), "only the owner frees it");
    shard.handle_failed(KEY, Waiter(1), &mut waiters);
    assert_eq!(waiters, [Waiter(2)]);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(3)), Verdict::New);
    shard.handle_failed(KEY, Waiter(1), &mut waiters);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(4)), Verdict::Pending, "a late report frees nothing");
}

#[test]
fn a_write_that_succeeds_after_it_was_given_up_is_still_the_first() {
    let mut shard = shard();
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(1)), Verdict::New);
    shard.handle_failed(KEY, Waiter(1), &mut Vec::new());
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(2)), Verdict::New);
    assert_eq!(shard.handle_arrival(KEY, 0, Waiter(3)), Verdict::Pending);
    assert_eq!(durable(&mut shard, KEY, FIRST, 1), (FIRST, vec![Waiter(3)]));
    assert_eq!(durable(&mut shard, KEY, SECOND, 2), (FIRST, vec![]), "accepted as well, and counted");
    assert_eq!(shard.counters().doubles, 1);
    assert_eq!(shard.handle_arrival(KEY, 2, Waiter(4)), Verdict::Duplicate { event_id: FIRST });
}

#[test]
fn pending_keys_are_bounded_and_come_back() {
    let mut shard = shard();
    assert_eq!(shard.handle_arrival(key(1), 0, Waiter(1)), Verdict::New);
    assert_eq!(shard.handle_arrival(key(2), 0, Waiter(2)), Verdict::New);
    assert_eq!(shard.handle_arrival(key(3), 0, Waiter(3)), Verdict::TooManyPending);
    durable(&mut shard, key(1), FIRST, 0);
    assert_eq!(shard.handle_arrival(key(3), 0, Waiter(3)), Verdict::New);
    for waiter in 4..7 {
        assert_eq!(shard.handle_arrival(key(2 + waiter % 2), 0, Waiter(waiter)), Verdict::Pending);
    }
    assert_eq!(shard.handle_arrival(key(3), 0, Waiter(7)), Verdict::TooManyWaiters, "three over all keys");
}

#[test]
fn a_key_is_remembered_for_its_window_and_two_buckets_at_most() {
    let window_ms = 24 * HOUR_MS;
    let bucket_ms = limits(1).bucket_ms();
    for start_ms in [0, 1, bucket_ms - 1, 1_700_000_000_000] {
        let mut shard = shard();
        durable(&mut shard, KEY, FIRST, start_ms);
        let duplicate = Verdict::Duplicate { event_id: FIRST };
        assert_eq!(shard.handle_arrival(KEY, start_ms + window_ms, Waiter(1)), duplicate);
        assert_eq!(shard.handle_arrival(KEY, start_ms + window_ms + 2 * bucket_ms, Waiter(2)), Verdict::New);
        assert_eq!(durable(&mut shard, KEY, SECOND, 0).0, SECOND);
        assert_eq!((shard.seen(), shard.counters().expired, shard.counters().doubles), (1, 1, 0));
    }
}

#[test]
fn a_clock_that_steps_back_or_far_ahead_loses_no_key_too_early_and_keeps_none_for_ever() {
    let mut shard = shard();
    durable(&mut shard, key(1), FIRST, 10 * HOUR_MS);
    durable(&mut shard, key(2), FIRST, 9 * HOUR_MS);
    assert_eq!(
        shard.handle_arrival(key(2), 33 * HOUR_MS, Waiter(1)),
        Verdict::Duplicate { event_id: FIRST },
        "it became seen in the tenth hour"
    );
    // Sixteen bits of bucket number come round in 64 windows.
    for days in [64, 65, 10_000] {
        let now_ms = 10 * HOUR_MS + days * 24 * HOUR_MS;
        assert_eq!(shard.handle_arrival(key(1), now_ms, Waiter(days)), Verdict::New, "{days}");
        shard.handle_failed(key(1), Waiter(days), &mut Vec::new());
        assert_eq!(shard.handle_time(now_ms, usize::MAX), 0, "{days}");
    }
    assert_eq!(shard.counters().expired, 2);
}

#[test]
fn the_oldest_key_leaves_early_when_all_places_are_taken() {
    let mut shard = shard_of(3);
    (0..5).for_each(|number| {
        durable(&mut shard, key(number), FIRST, number);
    });
    assert_eq!((shard.seen(), shard.counters().evicted_early), (3, 2));
    assert_eq!(shard.handle_arrival(key(1), 5, Waiter(1)), Verdict::New);
    assert_eq!(shard.handle_arrival(key(2), 5, Waiter(2)), Verdict::Duplicate { event_id: FIRST });
    let day_ms = 25 * HOUR_MS;
    durable(&mut shard, key(9), FIRST, day_ms);
    assert_eq!(shard.counters().evicted_early, 2, "an expired key makes room before one that is in force");
}

#[test]
fn expiry_is_done_in_portions() {
    let mut shard = shard();
    (0..10).for_each(|number| {
        durable(&mut shard, key(number), FIRST, 0);
    });
    assert_eq!(shard.handle_time(HOUR_MS, usize::MAX), 0);
    assert_eq!(shard.handle_time(25 * HOUR_MS, 4), 4);
    assert_eq!(shard.seen(), 6);
    assert_eq!(shard.entries_since(0).count(), 0, "what is over is not written to an index");
    assert_eq!(shard.handle_time(25 * HOUR_MS, 100), 6);
}

#[test]
fn an_index_has_what_came_since_the_mark() {
    let mut shard = shard();
    durable(&mut shard, key(1), FIRST, 0);
    let mark = shard.mark();
    durable(&mut shard, key(2), SECOND, HOUR_MS);
    let entries: Vec<IndexEntry> = shard.entries_since(mark).collect();
    assert_eq!(entries.len(), 1);
    let IndexEntry { key: found, event_id, time_ms } = entries[0];
    assert_eq!((found, event_id), (key(2), SECOND));
    assert!((HOUR_MS..HOUR_MS + limits(1).bucket_ms()).contains(&time_ms));
    assert_eq!(shard.entries_since(0).count(), 2);
    assert_eq!(shard.entries_since(shard.mark()).count(), 0);
}

#[test]
fn what_is_restored_counts_from_its_own_time_in_any_order() {
    let now_ms = 100 * HOUR_MS;
    let mut restore = Restore::new(&limits(100), now_ms).unwrap();
    restore.handle_entry(key(1), FIRST, 99 * HOUR_MS);
    restore.handle_entry(key(2), FIRST, 80 * HOUR_MS);
    restore.handle_entry(key(3), FIRST, 70 * HOUR_MS);
    restore.handle_entry(key(4), FIRST, 200 * HOUR_MS);
    restore.handle_entry(key(5), SECOND, 95 * HOUR_MS);
    restore.handle_entry(key(5), FIRST, 85 * HOUR_MS);
    let mut shard = restore.finish();
    let mut seen = |now_ms: u64| {
        (1..=5)
            .filter(|&number| match shard.handle_arrival(key(number), now_ms, Waiter(number)) {
                Verdict::Duplicate { event_id } => {
                    assert_eq!(event_id, FIRST);
                    true
                }
                _ => {
                    shard.handle_failed(key(number), Waiter(number), &mut Vec::new());
                    false
                }
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(now_ms), [1, 2, 4, 5], "3 is over");
    assert_eq!(seen(105 * HOUR_MS), [1, 4, 5]);
    assert_eq!(seen(110 * HOUR_MS), [1, 4]);
    assert_eq!(seen(125 * HOUR_MS), [] as [u64; 0], "a time to come was taken as now");
}

#[test]
fn too_much_to_restore_leaves_the_newest() {
    let mut restore = Restore::new(&limits(80), 1000 * HOUR_MS).unwrap();
    for number in 0..200 {
        restore.handle_entry(key(number), FIRST, 990 * HOUR_MS + number * 100_000);
    }
    let mut shard = restore.finish();
    let held = u64::from(shard.seen());
    assert!((70..=80).contains(&held), "{held}");
    assert_eq!(shard.counters().evicted_early, 200 - held);
    for number in 200 - held..200 {
        let verdict = shard.handle_arrival(key(number), 1000 * HOUR_MS, Waiter(1));
        assert_eq!(verdict, Verdict::Duplicate { event_id: FIRST }, "{number}");
    }
}

#[test]
fn a_million_keys_cost_less_than_forty_bytes_each_and_no_more_than_stated() {
    const KEYS: u32 = 1_000_000;
    let limits = Limits { keys_max: KEYS, ..Limits::default() };
    let mut shard = Shard::new(&limits).unwrap();
    let mut waiters = Vec::new();
    for number in 0..u64::from(KEYS) + 10 {
        shard.handle_durable(key(number), FIRST, number / 100, &mut waiters);
    }
    assert_eq!((shard.seen(), shard.counters().evicted_early), (KEYS, 10));
    assert_eq!(shard.memory_bytes(), limits.memory_bytes());
    let fixed = Limits { keys_max: 1, ..limits }.memory_bytes();
    let per_key = (shard.memory_bytes() - fixed) as f64 / f64::from(KEYS);
    assert!((39.0..40.0).contains(&per_key), "{per_key} bytes per key");
}

#[test]
fn limits_out_of_range_are_named() {
    let good = Limits::default();
    assert_eq!(good.check(), Ok(()));
    for (limits, expected) in [
        (Limits { keys_max: 0, ..good }, LimitsError::Keys),
        (Limits { keys_max: KEYS_MAX + 1, ..good }, LimitsError::Keys),
        (Limits { window_ms: 0, ..good }, LimitsError::Window),
        (Limits { window_ms: WINDOW_MS_MAX + 1, ..good }, LimitsError::Window),
        (Limits { pending_max: 0, ..good }, LimitsError::Pending),
        (Limits { pending_max: PENDING_MAX + 1, ..good }, LimitsError::Pending),
        (Limits { waiters_max: WAITERS_MAX + 1, ..good }, LimitsError::Waiters),
        (Limits { waiters_per_key_max: 4097, ..good }, LimitsError::Waiters),
    ] {
        assert_eq!(Shard::new(&limits).err(), Some(expected));
        assert_eq!(Restore::new(&limits, 0).err(), Some(expected));
    }
}

#[test]
fn keys_are_spread_over_all_shards_and_always_find_the_same() {
    let mut shards = Shards::new(vec![0_u32; 6]);
    let mut found = BTreeMap::new();
    for number in 0..6000 {
        *shards.of_mut(&key(number)) += 1;
        found.insert(number, shards.index_of(&key(number)));
    }
    assert!(shards.iter().all(|&keys| (850..1150).contains(&keys)), "{shards:?}");
    assert!(found.iter().all(|(&number, &index)| shards.index_of(&key(number)) == index));
    assert_eq!(shards.index_of(&EventKey([0xff; 16])), 5);
    assert_eq!(shards.index_of(&EventKey([0; 16])), 0);
}
