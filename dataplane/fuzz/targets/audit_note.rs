//! Notes, checkpoints and keys of audit logs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zen_audit::fuzz::fuzz_note(data));
