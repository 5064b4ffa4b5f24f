//! nginx, as it is and with HMACs in Lua: one process for a worker, keep-alive on both sides, nothing logged.
//!
//! A worker is a process without a master, so that it ends with the lab and its CPU is its own; several share a port.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::hop::{Hop, LINK_HEADER, LINK_KEY, all};
use super::template::fill;
use super::version::{Version, find_version};
use super::{Peer, Settings};
use crate::error::LabError;
use crate::lab::{Lab, Process};
use crate::pki::{PUBLIC, write_file};
use crate::random::system_bytes;
use crate::signature::base64;
use crate::tls::KeyExchange;

const PROGRAM: &str = "/usr/sbin/nginx";
const VERSION_MIN: Version = Version(1, 22);
const MODULES: &str = "/usr/lib/nginx/modules";
const LUA_MODULE: &str = "/usr/lib/nginx/modules/ngx_http_lua_module.so";
const LUA_CORE: &str = "/usr/share/lua/5.1/resty/core.lua";
const COMMON: (&str, &str) = ("nginx-common.conf", include_str!("../../peers/nginx-common.conf"));
const HMAC: (&str, &str) = ("hmac.lua", include_str!("../../peers/hmac.lua"));
const PLAIN: [&str; 2] = [include_str!("../../peers/nginx-1.conf"), include_str!("../../peers/nginx-2.conf")];
const LUA: [&str; 2] =
    [include_str!("../../peers/nginx-lua-1.conf"), include_str!("../../peers/nginx-lua-2.conf")];
/// A body that is longer is refused, or goes to a file.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;
/// Both sides' of any scenario, in one worker.
const CONNECTIONS_MAX: usize = 16_384;
/// AES-256 keys, as nginx's documentation says.
const TICKET_KEY_BYTES: usize = 80;

/// Its version.
pub(super) fn check_installed(peer: Peer) -> Result<String, LabError> {
    let lua = peer == Peer::NginxLua;
    let package = if lua {
        "nginx-light libnginx-mod-http-lua lua-resty-core lua-resty-lrucache"
    } else {
        "nginx-light"
    };
    let missing = |_| LabError::Missing { what: "nginx", package };
    let output = Command::new(PROGRAM).arg("-v").output().map_err(missing)?;
    if lua && ![LUA_MODULE, LUA_CORE].into_iter().all(|file| Path::new(file).exists()) {
        return Err(LabError::Missing { what: "the Lua module of nginx", package });
    }
    find_version("nginx", &String::from_utf8_lossy(&output.stderr), VERSION_MIN)
}

/// Starts the hops, the last first.
pub(super) fn start(peer: Peer, lab: &Lab, settings: Settings) -> Result<Vec<Process>, LabError> {
    raise_descriptors();
    let ticket_key = lab.directory.join("nginx-tickets.key");
    write_file(&ticket_key, &system_bytes::<TICKET_KEY_BYTES>(), 0o600)?;
    let common = fill(COMMON.1, &common_values(lab, settings, &ticket_key));
    write_file(&lab.directory.join(COMMON.0), common.as_bytes(), 0o644)?;
    write_file(&lab.directory.join(HMAC.0), HMAC.1.as_bytes(), 0o644)?;
    let mut processes = Vec::new();
    for hop in all(lab, settings).iter().rev() {
        for worker in (0..settings.threads).rev() {
            let name = format!("nginx-{}-{worker}", hop.number);
            let config = lab.directory.join(format!("{name}.conf"));
            write_file(&config, configuration(peer, lab, hop, settings, &name).as_bytes(), 0o600)?;
            let arguments: [&OsStr; 6] = [
                "-e".as_ref(),
                "stderr".as_ref(),
                "-p".as_ref(),
                lab.directory.as_os_str(),
                "-c".as_ref(),
                config.as_os_str(),
            ];
            processes.insert(0, Process::start(&name, Path::new(PROGRAM), &arguments, &lab.log(&name))?);
        }
    }
    Ok(processes)
}

fn common_values(lab: &Lab, settings: Settings, ticket_key: &Path) -> Vec<(&'static str, String)> {
    let curves = if settings.key_exchange == KeyExchange::X25519 { "X25519" } else { "auto" };
    vec![
        ("curves", curves.to_owned()),
        ("ticket_key", ticket_key.display().to_string()),
        ("certificate", lab.pki.certificate(PUBLIC).display().to_string()),
        ("key", lab.pki.key(PUBLIC).display().to_string()),
        ("buffer_bytes", BODY_BYTES_MAX.to_string()),
        ("directory", lab.directory.display().to_string()),
    ]
}

fn configuration(peer: Peer, lab: &Lab, hop: &Hop, settings: Settings, name: &str) -> String {
    let templates = if peer == Peer::NginxLua { LUA } else { PLAIN };
    let reuseport = if settings.threads > 1 { " reuseport" } else { "" };
    // Lua reads headers as variables, whose names have no hyphen.
    let check_header = hop.check_header.replace('-', "_");
    let values = [
        ("modules", MODULES.to_owned()),
        ("pid", lab.directory.join(format!("{name}.pid")).display().to_string()),
        ("directory", lab.directory.display().to_string()),
        ("connections_max", CONNECTIONS_MAX.to_string()),
        ("check_key", base64(&hop.check_key)),
        ("sign_key", base64(LINK_KEY)),
        ("check_header", check_header),
        ("sign_header", LINK_HEADER.to_owned()),
        ("listen", hop.listen.to_string()),
        ("reuseport", reuseport.to_owned()),
        ("client_ca", lab.pki.bundle().display().to_string()),
        ("path", hop.path.clone()),
        ("next", hop.next.to_string()),
        ("next_name", hop.next_name.to_owned()),
        ("next_ca", hop.next_ca.display().to_string()),
        ("identity", lab.pki.certificate(&hop.identity).display().to_string()),
        ("identity_key", lab.pki.key(&hop.identity).display().to_string()),
    ];
    fill(templates[hop.number - 1], &values)
}

/// nginx takes the limit that it is started with; who may not raise it has the warning in nginx's log.
fn raise_descriptors() {
    let _ = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Shape;
    use crate::peers::Hops;

    #[test]
    fn lua_checks_and_signs_and_plain_nginx_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::BENCH, 1).unwrap();
        for (peer, checks) in [(Peer::Nginx, false), (Peer::NginxLua, true)] {
            for (hops, threads) in [(Hops::Ingest, 2), (Hops::Both, 1)] {
                let settings = Settings { threads, key_exchange: KeyExchange::X25519, hops };
                let hops = all(&lab, settings);
                let texts: Vec<String> =
                    hops.iter().map(|hop| configuration(peer, &lab, hop, settings, "n")).collect();
                for text in &texts {
                    assert!(!text.contains("{{"), "{text}");
                    assert_eq!(text.contains("require('hmac').check"), checks, "{text}");
                    assert_eq!(text.contains("backlog=4096 reuseport;"), threads == 2, "{text}");
                    assert!(text.contains("proxy_ssl_certificate_key "), "{text}");
                }
                assert!(texts[0].contains("rewrite ^ /hooks/billing break;"), "{}", texts[0]);
                assert_eq!(texts[0].contains("check_and_sign('x_signature', 'x-link-signature')"), checks);
                let last = texts.last().unwrap();
                assert!(last.contains("proxy_ssl_name demo;"), "{last}");
                assert_eq!(last.contains("ssl_verify_client on;"), hops.len() == 2, "{last}");
            }
        }
        for (exchange, curves) in [(KeyExchange::X25519, "X25519"), (KeyExchange::All, "auto")] {
            let settings = Settings { threads: 1, key_exchange: exchange, hops: Hops::Both };
            let text = fill(COMMON.1, &common_values(&lab, settings, Path::new("t.key")));
            assert!(text.contains(&format!("ssl_ecdh_curve {curves};\n")), "{text}");
            assert!(text.contains("ssl_protocols TLSv1.3;\n") && !text.contains("{{"), "{text}");
        }
    }
}
