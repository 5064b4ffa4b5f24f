//! Index records of the idempotency table.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::dedupe::fuzz::fuzz_index_record(data));
