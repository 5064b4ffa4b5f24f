//! Certificates and trust bundles.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_identity::fuzz::fuzz_certificate(data));
