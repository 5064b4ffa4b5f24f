//! HAProxy: one process for a hop, keep-alive and connection reuse everywhere, nothing logged.
//!
//! It hashes only what fits its buffer and says nothing about the rest, so the buffer is larger than any request.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Settings;
use super::hop::{Hop, LINK_HEADER, LINK_KEY, PREFIX, all};
use super::template::fill;
use super::version::{Version, find_version};
use crate::error::LabError;
use crate::lab::{Lab, Process};
use crate::pki::{PUBLIC, write_file};
use crate::signature::base64;
use crate::tls::KeyExchange;

const PROGRAM: &str = "/usr/sbin/haproxy";
const VERSION_MIN: Version = Version(2, 6);
const TEMPLATES: [&str; 2] =
    [include_str!("../../peers/haproxy-1.cfg"), include_str!("../../peers/haproxy-2.cfg")];
/// One request with its head; more than any body that is measured.
const BUFFER_BYTES: usize = 32 * 1024;
const HEAD_BYTES: usize = 2048;
/// The longest body that HAProxy can be measured with.
pub(crate) const BODY_BYTES_MAX: usize = BUFFER_BYTES - HEAD_BYTES;
/// More than any scenario holds; HAProxy asks for twice as many file descriptors, and does with fewer.
const CONNECTIONS_MAX: usize = 11_000;

/// Its version.
pub(super) fn check_installed() -> Result<String, LabError> {
    let missing = |_| LabError::Missing { what: "HAProxy", package: "haproxy" };
    let output = Command::new(PROGRAM).arg("-v").output().map_err(missing)?;
    find_version("HAProxy", &String::from_utf8_lossy(&output.stdout), VERSION_MIN)
}

/// Starts the hops, the last first.
pub(super) fn start(lab: &Lab, settings: Settings) -> Result<Vec<Process>, LabError> {
    let certificate = both_pem(lab, PUBLIC)?;
    let mut processes = Vec::new();
    for hop in all(lab, settings).iter().rev() {
        let name = format!("haproxy-{}", hop.number);
        let config = lab.directory.join(format!("{name}.cfg"));
        let identity = both_pem(lab, &hop.identity)?;
        let text = configuration(hop, settings, [&certificate, &identity], &lab.pki.bundle());
        write_file(&config, text.as_bytes(), 0o600)?;
        let arguments: [&OsStr; 3] = ["-db".as_ref(), "-f".as_ref(), config.as_os_str()];
        processes.insert(0, Process::start(&name, Path::new(PROGRAM), &arguments, &lab.log(&name))?);
    }
    Ok(processes)
}

fn configuration(
    hop: &Hop,
    settings: Settings,
    [certificate, identity]: [&Path; 2],
    client_ca: &Path,
) -> String {
    let curves = if settings.key_exchange == KeyExchange::X25519 { " curves X25519" } else { "" };
    let values = [
        ("threads", settings.threads.to_string()),
        ("connections_max", CONNECTIONS_MAX.to_string()),
        ("buffer_bytes", BUFFER_BYTES.to_string()),
        ("listen", hop.listen.to_string()),
        ("certificate", certificate.display().to_string()),
        ("curves", curves.to_owned()),
        ("client_ca", client_ca.display().to_string()),
        ("check_header", hop.check_header.to_owned()),
        ("check_key", base64(&hop.check_key)),
        ("prefix", PREFIX.to_owned()),
        ("prefix_bytes", PREFIX.len().to_string()),
        ("sign_header", LINK_HEADER.to_owned()),
        ("sign_key", base64(LINK_KEY)),
        ("path", hop.path.clone()),
        ("next", hop.next.to_string()),
        ("identity", identity.display().to_string()),
        ("next_ca", hop.next_ca.display().to_string()),
    ];
    fill(TEMPLATES[hop.number - 1], &values)
}

/// Certificate and key in one file, as HAProxy reads them.
fn both_pem(lab: &Lab, name: &str) -> Result<PathBuf, LabError> {
    let path = lab.directory.join(format!("{name}.both.pem"));
    let mut text = Vec::new();
    for part in [lab.pki.certificate(name), lab.pki.key(name)] {
        text.extend_from_slice(&fs::read(&part).map_err(LabError::file(&part))?);
    }
    write_file(&path, &text, 0o600)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Shape;
    use crate::peers::Hops;
    use crate::samples::{Samples, Sizes};

    fn texts(hops: Hops, key_exchange: KeyExchange) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::BENCH, 1).unwrap();
        let settings = Settings { threads: 3, key_exchange, hops };
        let pems = ["public.both.pem", "own.both.pem"].map(Path::new);
        let bundle = lab.pki.bundle();
        all(&lab, settings).iter().map(|hop| configuration(hop, settings, pems, &bundle)).collect()
    }

    #[test]
    fn one_hop_or_two_check_and_sign() {
        for (hops, count) in [(Hops::Ingest, 1), (Hops::Both, 2)] {
            let texts = texts(hops, KeyExchange::X25519);
            assert_eq!(texts.len(), count);
            for text in &texts {
                assert!(!text.contains("{{") && text.contains("nbthread 3\n"), "{text}");
                assert!(text.contains("crt public.both.pem curves X25519"), "{text}");
                assert_eq!(text.matches("deny_status 403").count(), 1);
            }
            assert!(texts[0].contains("set-path /hooks/billing\n"), "{}", texts[0]);
            assert!(texts[0].contains("set-header x-link-signature sha256=%[req.body,"), "{}", texts[0]);
            assert!(!texts[0].contains("pki/bundle.pem verify required pool") || count == 1, "{}", texts[0]);
            assert!(texts[count - 1].contains("pki/bundle.pem verify required pool"), "{}", texts[count - 1]);
        }
        assert!(!texts(Hops::Both, KeyExchange::All).concat().contains("curves"));
    }

    #[test]
    fn every_sample_fits_the_buffer() {
        let samples = Samples::new(Sizes::Realistic).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::BENCH, 1).unwrap();
        for choice in 0..24 {
            let bytes = samples.webhook(&super::super::endpoint(&lab), choice, "id").body.len();
            assert!(bytes <= BODY_BYTES_MAX, "{bytes}");
        }
    }
}
