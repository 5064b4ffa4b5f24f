//! Which objects are embedded: those that are checked in, or those below `ZEN_EBPF_OBJECTS`, which `scripts/build-ebpf` made.

use std::path::{Path, PathBuf};
use std::{env, fs};

const OBJECTS: [&str; 4] = ["guard.o", "fence.o", "steer.o", "observe.o"];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-env-changed=ZEN_EBPF_OBJECTS");
    let from = env::var_os("ZEN_EBPF_OBJECTS").map_or_else(|| manifest.join("objects"), PathBuf::from);
    for object in OBJECTS {
        embed(&from.join(object), &out.join(object));
    }
}

fn embed(from: &Path, to: &Path) {
    println!("cargo:rerun-if-changed={}", from.display());
    fs::copy(from, to).unwrap_or_else(|error| {
        panic!("{}: {error}; run scripts/build-ebpf, or unset ZEN_EBPF_OBJECTS", from.display())
    });
}
