//! Signature schemes of sources, forged and spoiled.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::verify::fuzz::fuzz_verify(data));
