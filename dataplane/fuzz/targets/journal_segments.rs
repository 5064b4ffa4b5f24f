//! Any bytes as segment files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::journal::fuzz::fuzz_segments(data));
