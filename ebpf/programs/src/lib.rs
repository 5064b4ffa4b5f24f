//! What the programs share: telling of a refusal, and what each object says of itself.

#![no_std]

pub mod tell;

/// What each object has: its licence, the version of its tables, and a panic handler that the verifier never sees.
#[macro_export]
macro_rules! object {
    () => {
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 11] = *b"Apache-2.0\0";

        #[unsafe(link_section = "zen_abi")]
        #[unsafe(no_mangle)]
        static ZEN_ABI: [u8; 16] = *b"zen-ebpf-abi=001";
        const _: () = assert!($crate::ABI_VERSION == 1, "ZEN_ABI says another version");

        #[cfg(not(test))]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            loop {}
        }
    };
}

pub use zen_ebpf_abi::VERSION as ABI_VERSION;
