//! A journal that is damaged.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::journal::fuzz::fuzz_recovery(data));
