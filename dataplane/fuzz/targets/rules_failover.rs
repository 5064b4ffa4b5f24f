//! The failover machine against its policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_rules::fuzz::fuzz_failover(data));
