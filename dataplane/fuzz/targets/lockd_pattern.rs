//! Patterns of names of secrets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lockd::fuzz::fuzz_pattern(data));
