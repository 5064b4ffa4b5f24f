//! Heads of replies on lockd's socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_lock::fuzz::fuzz_reply_head(data));
