//! The replay window against a plain set.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::envelope::fuzz::fuzz_replay_window(data));
