//! Hashes of proofs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_audit::fuzz::fuzz_proof(data));
