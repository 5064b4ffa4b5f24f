//! Sealed files: age headers, armor and payloads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lockd::fuzz::fuzz_open(data));
