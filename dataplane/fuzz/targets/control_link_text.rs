//! Places of link keys in a node's configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_control_api::fuzz::fuzz_link_text(data));
