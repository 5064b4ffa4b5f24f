//! Both ends of a link, cut and resumed.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::link::fuzz::fuzz_link(data));
