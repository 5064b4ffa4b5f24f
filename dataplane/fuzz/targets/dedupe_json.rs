//! The JSON path of the idempotency key.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::dedupe::json::fuzz_json(data));
