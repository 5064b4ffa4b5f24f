//! What becomes of a tenant's objects.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_control::fuzz::fuzz_compile(data));
