//! Requests, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::http1::fuzz::fuzz_request(data));
