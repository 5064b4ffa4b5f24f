//! Rules, paths and patterns as text.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_rules::fuzz::fuzz_rules_compile(data));
