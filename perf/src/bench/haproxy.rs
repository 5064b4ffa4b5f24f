//! The rival: two HAProxy processes that do what a pair of hops does, without durability.
//!
//! Hop 1: TLS 1.3, HMAC-SHA256 check over the body, a new HMAC for the next hop, mutual TLS. Hop 2: mutual
//! TLS, HMAC check, mutual TLS to the sink. One thread each, keep-alive and connection reuse everywhere.
//! [`check_refusals`] shows that both hops check the whole body: HAProxy hashes only what fits its buffer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::LabError;
use crate::http::Wire;
use crate::lab::{INGESTER, Lab, Process};
use crate::pki::write_file;
use crate::samples::{Endpoint, SchemeName};
use crate::signature::{base64, hex, hmac_sha256};
use crate::tls::{KeyExchange, client_config};

/// One request with its head; more than any body that is measured.
const BUFFER_BYTES: usize = 32 * 1024;
const HEAD_BYTES: usize = 2048;
/// The longest body that HAProxy can be measured with.
pub(super) const BODY_BYTES_MAX: usize = BUFFER_BYTES - HEAD_BYTES;
const LINK_KEY: &[u8] = b"a link key of thirty-two bytes..";
const LINK_HEADER: &str = "x-link-signature";
const SOURCE_HEADER: &str = "x-signature";
/// `sha256=` in front of both signatures.
const PREFIX: &str = "sha256=";
const ANSWER_TRIES: u32 = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Starts both hops; the second listens where the lab's egress would answer its admin requests.
pub(super) fn start(lab: &Lab, program: &Path) -> Result<[Process; 2], LabError> {
    let endpoint = endpoint(lab);
    let first = Hop {
        name: "haproxy-1",
        listen: lab.public,
        certificate: pem(lab, "public")?,
        client_ca: None,
        check: (SOURCE_HEADER, endpoint.secret.as_bytes()),
        after: format!(
            "http-request set-header {LINK_HEADER} {PREFIX}%[req.body,{},hex,lower]",
            digest(LINK_KEY)
        ),
        next: second_hop(lab),
        identity: pem(lab, INGESTER)?,
        next_ca: lab.pki.public_ca(),
    };
    let second = Hop {
        name: "haproxy-2",
        listen: second_hop(lab),
        certificate: pem(lab, "public")?,
        client_ca: Some(lab.pki.bundle()),
        check: (LINK_HEADER, LINK_KEY),
        after: format!("http-request set-path /hooks/{}", lab.targets[0].name),
        next: lab.target,
        identity: pem(lab, &lab.egresses[0].name)?,
        next_ca: lab.pki.bundle(),
    };
    Ok([second.start(lab, program)?, first.start(lab, program)?]).map(|[second, first]| [first, second])
}

/// The endpoint whose scheme is an HMAC of the body in a header; the only one that is measured.
pub(super) fn endpoint(lab: &Lab) -> Endpoint {
    let found = lab.endpoints.iter().find(|endpoint| endpoint.scheme == SchemeName::Hmac);
    found.expect("the lab has an endpoint of each scheme").clone()
}

/// Sends good and altered requests to both hops; an error unless exactly the good ones pass.
pub(super) async fn check_refusals(lab: &Lab, bodies: &[usize]) -> Result<(), LabError> {
    let source = client_config(&lab.pki.public_ca(), None, KeyExchange::X25519)?;
    let identity = (lab.pki.certificate(INGESTER), lab.pki.key(INGESTER));
    let peer = client_config(&lab.pki.public_ca(), Some((&identity.0, &identity.1)), KeyExchange::X25519)?;
    let secret = endpoint(lab).secret;
    let hops = [
        ("hop 1", lab.public, source, SOURCE_HEADER, secret.as_bytes()),
        ("hop 2", second_hop(lab), peer, LINK_HEADER, LINK_KEY),
    ];
    for (hop, address, tls, header, key) in hops {
        let tls = TlsConnector::from(tls);
        for &bytes in bodies {
            let body = vec![b'x'; bytes];
            let tag = hmac_sha256(key, &[&body]);
            let mut altered = body.clone();
            *altered.last_mut().expect("a body is not empty") = b'y';
            let mut wrong = tag;
            wrong[31] ^= 1;
            for (what, body, tag, wanted) in [
                ("a good request", &body, tag, 200),
                ("a wrong signature", &body, wrong, 403),
                ("another last byte", &altered, tag, 403),
            ] {
                let status = status_of(address, &tls, header, &tag, body).await;
                if status != Some(wanted) {
                    return Err(LabError::Unequal(format!(
                        "HAProxy {hop}: {what} of {bytes} bytes was answered with {status:?}, not {wanted}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// The answer to one request on its own connection; waits for a hop that has just been started.
async fn status_of(
    address: SocketAddr,
    tls: &TlsConnector,
    header: &str,
    tag: &[u8],
    body: &[u8],
) -> Option<u16> {
    let mut request = format!(
        "POST /hooks/check HTTP/1.1\r\nhost: localhost\r\n{header}: {PREFIX}{}\r\ncontent-length: {}\r\n\r\n",
        hex(tag),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    let mut tries = 0;
    let stream = loop {
        match TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) if tries < ANSWER_TRIES => tokio::time::sleep(PAUSE).await,
            Err(_) => return None,
        }
        tries += 1;
    };
    let name = ServerName::try_from("localhost").expect("a valid name");
    let mut wire = Wire::new(tls.connect(name, stream).await.ok()?);
    wire.write(&request).await.ok()?;
    wire.read().await.ok()??.status()
}

fn second_hop(lab: &Lab) -> SocketAddr {
    lab.egresses[0].admin
}

/// One HAProxy process.
struct Hop<'a> {
    name: &'static str,
    listen: SocketAddr,
    certificate: PathBuf,
    client_ca: Option<PathBuf>,
    /// The header that is checked, and its key.
    check: (&'static str, &'a [u8]),
    after: String,
    next: SocketAddr,
    identity: PathBuf,
    next_ca: PathBuf,
}

impl Hop<'_> {
    fn start(&self, lab: &Lab, program: &Path) -> Result<Process, LabError> {
        let config = lab.directory.join(format!("{}.cfg", self.name));
        write_file(&config, self.config().as_bytes(), 0o600)?;
        let arguments = ["-db".as_ref(), "-f".as_ref(), config.as_os_str()];
        Process::start(self.name, program, &arguments, &lab.log(self.name))
    }

    fn config(&self) -> String {
        let client = self.client_ca.as_ref().map_or(String::new(), |authorities| {
            format!(" ca-file {} verify required", authorities.display())
        });
        let (header, key) = self.check;
        format!(
            "global\n    nbthread 1\n    maxconn 4096\n    tune.bufsize {BUFFER_BYTES}\n    \
             ssl-default-bind-options ssl-min-ver TLSv1.3\n    ssl-default-server-options ssl-min-ver TLSv1.3\n\n\
             defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n    \
             option http-buffer-request\n    option http-keep-alive\n    http-reuse always\n\n\
             frontend in\n    bind {listen} ssl crt {certificate} curves X25519{client}\n    \
             http-request set-var(txn.presented) req.hdr({header}),bytes({prefix})\n    \
             http-request deny deny_status 403 unless {{ req.body,{digest},hex,lower,secure_memcmp(txn.presented) }}\n    \
             {after}\n    default_backend out\n\n\
             backend out\n    server next {next} ssl crt {identity} ca-file {next_ca} verify required pool-purge-delay 60s\n",
            listen = self.listen,
            certificate = self.certificate.display(),
            prefix = PREFIX.len(),
            digest = digest(key),
            after = self.after,
            next = self.next,
            identity = self.identity.display(),
            next_ca = self.next_ca.display(),
        )
    }
}

/// HAProxy's converter for an HMAC-SHA256 with `key`.
fn digest(key: &[u8]) -> String {
    format!("hmac(sha256,{})", base64(key))
}

/// Certificate and key in one file, as HAProxy reads them.
fn pem(lab: &Lab, name: &str) -> Result<PathBuf, LabError> {
    let path = lab.directory.join(format!("{name}.both.pem"));
    let mut text = Vec::new();
    for part in [lab.pki.certificate(name), lab.pki.key(name)] {
        text.extend_from_slice(&fs::read(&part).map_err(LabError::file(&part))?);
    }
    write_file(&path, &text, 0o600)?;
    Ok(path)
}
