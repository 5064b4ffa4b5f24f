//! `zen-lockd`: see [`zen_lockd`], and `zen-lockd --help`.

mod cli;

use std::process::ExitCode;

use zen_lockd::memory::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    cli::main()
}
