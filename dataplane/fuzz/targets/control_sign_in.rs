//! Forms, cookies, keys and tokens of sign-in.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_control::fuzz::fuzz_sign_in(data));
