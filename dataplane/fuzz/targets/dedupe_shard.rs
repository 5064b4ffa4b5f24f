//! The idempotency table against a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::dedupe::fuzz::fuzz_shard(data));
