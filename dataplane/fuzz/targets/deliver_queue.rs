//! A target's queue against a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::deliver::fuzz::fuzz_queue(data));
