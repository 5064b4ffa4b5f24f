//! What this kernel takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use zen_ebpf::{Cgroup, probe};

#[test]
fn this_kernel_takes_every_program() {
    for feature in probe(Cgroup::join().map(drop)) {
        feature.result.unwrap_or_else(|error| panic!("{}: {error}", feature.name));
    }
}
