//! What a lookup and a key cost: `cargo run --release -p zen-core --example dedupe_cost -- 10000000`.

use std::fs;
use std::hint::black_box;

use zen_core::dedupe::{EventKey, KeyHasher, Limits, Shard, Verdict, Waiter};
use zen_core::id::{EndpointId, EventId};

/// Lookups measured of each kind.
const LOOKUPS: u64 = 2_000_000;
/// Made of these, so that keys come in an order that no cache foresees.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

fn main() {
    let keys = std::env::args().nth(1).map_or(Ok(10_000_000), |text| text.parse::<u32>());
    let Ok(keys_max) = keys else {
        eprintln!("usage: dedupe_cost [KEYS]");
        std::process::exit(2);
    };
    let limits = Limits { keys_max, ..Limits::default() };
    let fixed = Limits { keys_max: 1, ..limits }.memory_bytes();
    let resident = resident_bytes();
    let mut shard = match Shard::new(&limits) {
        Ok(shard) => shard,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    let per_key = |bytes: usize| bytes as f64 / f64::from(keys_max);
    let keys = u64::from(keys_max);
    measure("hash a 36-byte id", LOOKUPS, |number| {
        black_box(id_key(number));
    });
    measure("new: arrival and durable, while it fills", keys, |number| arrive(&mut shard, number));
    println!("keys                                        {:>10}", shard.seen());
    println!("allocated, bytes per key                    {:>10.1}", per_key(shard.memory_bytes() - fixed));
    println!("resident, bytes per key                     {:>10.1}", per_key(resident_bytes() - resident));
    measure("absent: arrival and failure", LOOKUPS, |number| {
        let key = key(keys + number);
        assert_eq!(shard.handle_arrival(key, 1, Waiter(number)), Verdict::New);
        shard.handle_failed(key, Waiter(number), &mut Vec::new());
    });
    measure("duplicate: arrival", LOOKUPS, |number| {
        let number = number.wrapping_mul(STEP) % keys;
        let verdict = shard.handle_arrival(key(number), 1, Waiter(number));
        assert_eq!(verdict, Verdict::Duplicate { event_id: event_id(number) });
    });
    measure("new when full: arrival, durable, eviction", LOOKUPS, |number| {
        arrive(&mut shard, keys + number);
    });
    assert_eq!(shard.counters().evicted_early, LOOKUPS);
    let later_ms = 2 * limits.window_ms;
    measure("expiry", keys, |_| assert_eq!(shard.handle_time(later_ms, 1), 1));
}

fn arrive(shard: &mut Shard, number: u64) {
    assert_eq!(shard.handle_arrival(key(number), 1, Waiter(number)), Verdict::New);
    shard.handle_durable(key(number), event_id(number), 1, &mut Vec::new());
}

/// The hash of an id, without its cost: two multiplications that reach every bit.
fn key(number: u64) -> EventKey {
    let wide = u128::from(number + 1).wrapping_mul(u128::from(STEP) << 64 | 0xd1b5_4a32_d192_ed03);
    let mixed = (wide ^ wide >> 67).wrapping_mul(0x2d35_8dcc_aa6c_78a5_8bb8_4b93_962e_acc9);
    EventKey((mixed ^ mixed >> 61).to_le_bytes())
}

fn event_id(number: u64) -> EventId {
    EventId(u128::from(number).to_be_bytes())
}

fn id_key(number: u64) -> EventKey {
    let mut id = *b"72d3162e-cc78-11e3-81ab-4c9367dc0958";
    id[..8].copy_from_slice(&number.to_le_bytes());
    KeyHasher::new([7; 16]).id_key(EndpointId([9; 16]), &id)
}

fn measure(what: &str, times: u64, mut step: impl FnMut(u64)) {
    let start = cpu_ns();
    (0..times).for_each(&mut step);
    println!("{what:<44}{:>10.0} ns", (cpu_ns() - start) as f64 / times as f64);
}

/// Time that this thread has had a processor, from the first field of `/proc/self/schedstat`.
fn cpu_ns() -> u64 {
    let schedstat = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    schedstat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}

/// Of this process, from the second field of `/proc/self/statm`.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.map_or(0, |pages| pages * 4096)
}
