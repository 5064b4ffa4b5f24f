//! `zen-dataplane probe`: a line per feature, `NAME<TAB>yes` or `NAME<TAB>no: REASON`.

use std::fmt::Display;
use std::io::{self, Write};

use zen_uring::{Probe, RingMode};

use super::CliError;

/// Asks this kernel, by setting a ring up and loading each program; both are thrown away, and nothing is attached.
pub fn run() -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match zen_uring::probe() {
        Ok(probe) => {
            for (name, is_there) in ring_features(&probe) {
                let reason = (!is_there).then_some("this kernel's rings have other flags");
                line(&mut out, "io_uring", &name, reason)?;
            }
        }
        Err(error) => line(&mut out, "io_uring", "ring", Some(error))?,
    }
    for feature in zen_ebpf::probe(zen_ebpf::Cgroup::join().map(drop)) {
        line(&mut out, "ebpf", feature.name, feature.result.err())?;
    }
    Ok(())
}

/// What a ring has; an operation that is missing is an error of the probe.
fn ring_features(probe: &Probe) -> Vec<(String, bool)> {
    let mode = probe.mode;
    let is_deferred = matches!(mode, RingMode::DeferNoArray | RingMode::Defer);
    let mut features = vec![
        ("ring".to_owned(), true),
        ("coop_taskrun".to_owned(), mode != RingMode::Plain),
        ("defer_taskrun".to_owned(), is_deferred),
        ("no_sqarray".to_owned(), mode == RingMode::DeferNoArray),
        ("buffer_ring".to_owned(), true),
    ];
    features.extend(probe.operations.iter().map(|name| (name.replace(' ', "_"), true)));
    features
}

fn line(
    out: &mut impl Write,
    subsystem: &str,
    name: &str,
    missing: Option<impl Display>,
) -> Result<(), CliError> {
    match missing {
        None => writeln!(out, "{subsystem}.{name}\tyes")?,
        Some(reason) => writeln!(out, "{subsystem}.{name}\tno: {reason}")?,
    }
    Ok(())
}
