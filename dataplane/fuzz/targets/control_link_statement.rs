//! What agents say of links.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_control_api::fuzz::fuzz_link_statement(data));
