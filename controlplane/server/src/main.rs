//! `zen-control`: see [`zen_control`], and `zen-control --help`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
