//! Control groups, as the kernel lists them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lockd::fuzz::fuzz_unit(data));
