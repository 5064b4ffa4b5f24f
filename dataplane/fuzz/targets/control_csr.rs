//! What a certificate request may ask for.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_control::fuzz::fuzz_csr(data));
