//! Segments of receipts and their digests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_audit::fuzz::fuzz_segment(data));
