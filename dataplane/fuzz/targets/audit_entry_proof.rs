//! Proofs of single entries.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_audit::fuzz::fuzz_entry_proof(data));
