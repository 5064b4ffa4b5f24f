//! Trace context of sources.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::trace::fuzz_trace(data));
