//! The Retry-After header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::deliver::fuzz::fuzz_retry_after(data));
