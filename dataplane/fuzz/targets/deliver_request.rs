//! The head that a target reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::deliver::fuzz::fuzz_request(data));
