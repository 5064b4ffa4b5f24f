//! What is inside a sealed file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lockd::fuzz::fuzz_envelope(data));
