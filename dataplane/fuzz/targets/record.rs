//! Payloads of journal records.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::record::fuzz_records(data));
