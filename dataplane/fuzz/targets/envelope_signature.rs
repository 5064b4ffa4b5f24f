//! The Zen-Signature header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::envelope::fuzz::fuzz_signature_header(data));
