//! PROXY protocol headers of connections that claim to come from a proxy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_core::access::fuzz::fuzz_proxy_header(data));
