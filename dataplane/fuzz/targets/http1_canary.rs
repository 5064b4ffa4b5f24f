//! A planted fault: says that no request is ever read whole. A fuzzer that sees the code finds one within seconds.
#![no_main]

use zen_core::http1::{Limits, Progress, RequestParser};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut parser = RequestParser::new(Limits::default());
    let mut input = data;
    assert!(!matches!(parser.handle_bytes(&mut input), Ok(Progress::Head)), "canary: a request was read");
});
