//! Rules of lockd's configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lockd::fuzz::fuzz_policy(data));
