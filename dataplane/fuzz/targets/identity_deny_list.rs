//! Deny lists.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_identity::fuzz::fuzz_deny_list(data));
