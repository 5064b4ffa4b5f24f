//! The table of live events against the journal that its operations leave.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::deliver::fuzz::fuzz_table(data));
