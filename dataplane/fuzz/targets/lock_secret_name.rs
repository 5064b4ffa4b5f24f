//! Names of secrets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lock::fuzz::fuzz_secret_name(data));
