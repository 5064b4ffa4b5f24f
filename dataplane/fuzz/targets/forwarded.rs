//! Lines of `X-Forwarded-For`, of a request that a proxy has passed on.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::access::fuzz::fuzz_forwarded(data));
