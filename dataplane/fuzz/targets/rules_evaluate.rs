//! A JSONPath and fixed flows over any body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_rules::fuzz::fuzz_rules_evaluate(data));
