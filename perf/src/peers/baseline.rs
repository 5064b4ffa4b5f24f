//! Our own ingest hop on other runtimes, in `perf/baselines`: the node's work up to its 202, without the link.
//!
//! A workspace of its own, since tokio-uring is banned from this one; its program lies beside this one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use super::hop::SOURCE_HEADER;
use super::version::{Version, find_version};
use super::{Peer, Settings, endpoint};
use crate::error::LabError;
use crate::lab::{Lab, Process, beside};
use crate::pki::{PUBLIC, write_file};
use crate::tls::KeyExchange;

const PROGRAM: &str = "zen-baseline";
const REMEDY: &str = "is not beside this program; build it: \
    cargo build --release --locked --manifest-path perf/baselines/Cargo.toml --target-dir target";
const VERSION_MIN: Version = Version(0, 1);
/// A longer body is refused.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// Its version.
pub(super) fn check_installed() -> Result<String, LabError> {
    let output = Command::new(program()?).arg("--version").output();
    let output = output.map_err(|source| LabError::Start { program: PathBuf::from(PROGRAM), source })?;
    find_version(PROGRAM, &String::from_utf8_lossy(&output.stdout), VERSION_MIN)
}

/// Starts it; journals are below the lab's directory.
pub(super) fn start(peer: Peer, lab: &Lab, settings: Settings) -> Result<Process, LabError> {
    let runtime = match peer {
        Peer::TokioUring => "tokio-uring",
        Peer::TokioUringCoop => "tokio-uring-coop",
        _ => "tokio",
    };
    let secret = lab.directory.join("baseline.secret");
    write_file(&secret, endpoint(lab).secret.as_bytes(), 0o600)?;
    let values: [(&str, OsString); 9] = [
        ("--runtime", runtime.into()),
        ("--listen", lab.public.to_string().into()),
        ("--certificate", lab.pki.certificate(PUBLIC).into()),
        ("--key", lab.pki.key(PUBLIC).into()),
        ("--secret-file", secret.into()),
        ("--header", SOURCE_HEADER.into()),
        ("--journal", journal(lab).into()),
        ("--threads", settings.threads.to_string().into()),
        (
            "--key-exchange",
            if settings.key_exchange == KeyExchange::X25519 { "x25519" } else { "default" }.into(),
        ),
    ];
    let arguments: Vec<OsString> =
        values.into_iter().flat_map(|(option, value)| [option.into(), value]).collect();
    let arguments: Vec<_> = arguments.iter().map(OsString::as_os_str).collect();
    Process::start(runtime, &program()?, &arguments, &lab.log(runtime))
}

/// Ids of the events in the journals that a hop of `lab` has left.
pub(super) fn journaled(lab: &Lab) -> Result<Vec<String>, LabError> {
    let output = Command::new(program()?).arg("--list").arg(journal(lab)).output();
    let output = output.map_err(|source| LabError::Start { program: PathBuf::from(PROGRAM), source })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(LabError::Tool { what: PROGRAM.to_owned(), reason });
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn journal(lab: &Lab) -> PathBuf {
    lab.directory.join("baseline")
}

fn program() -> Result<PathBuf, LabError> {
    beside(PROGRAM).map_err(|_| LabError::Tool { what: PROGRAM.to_owned(), reason: REMEDY.to_owned() })
}
