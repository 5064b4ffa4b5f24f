//! Bodies, queries and headers of people's requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_control::fuzz::fuzz_person_request(data));
