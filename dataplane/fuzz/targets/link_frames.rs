//! Frames of a link, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::link::fuzz::fuzz_frames(data));
