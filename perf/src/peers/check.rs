//! Shows before a run that a peer does what its row claims: good requests pass; where it checks HMACs, a wrong
//! signature and a changed last byte get 403; a baseline knows an event again; TLS is 1.3 alone; the target wants a
//! client certificate.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::hop::{Hop, PREFIX, all};
use super::{Peer, Settings};
use crate::error::LabError;
use crate::http::Wire;
use crate::lab::{INGESTER, Lab};
use crate::random::system_bytes;
use crate::signature::{hex, hmac_sha256};
use crate::tls::client_config;

/// Whoever knows ids answers so to one that it has.
const DUPLICATE: u16 = 200;
/// A target that asks for no certificate waits for a request, without end.
const TARGET_TIMEOUT_S: &str = "5";

/// What a check sends, and the status that it wants.
struct Probe<'a> {
    what: &'static str,
    id: &'a str,
    body: &'a [u8],
    tag: [u8; 32],
    wanted: u16,
}

/// Sends good and altered requests with bodies of these sizes to each hop; an error unless all answers are right.
pub(crate) async fn check(
    peer: Peer,
    lab: &Lab,
    settings: &Settings,
    bodies: &[usize],
) -> Result<(), LabError> {
    if let Some(bytes) = bodies.iter().find(|&&bytes| bytes > peer.body_bytes_max()) {
        let (label, most) = (peer.label(), peer.body_bytes_max());
        return Err(LabError::Unequal(format!("{label} takes at most {most} of a body of {bytes} bytes")));
    }
    for hop in all(lab, *settings) {
        for &bytes in bodies {
            check_hop(peer, lab, settings, &hop, bytes).await?;
        }
        check_versions(peer, &hop)?;
    }
    if peer.is_baseline() { Ok(()) } else { check_target(lab) }
}

async fn check_hop(
    peer: Peer,
    lab: &Lab,
    settings: &Settings,
    hop: &Hop,
    bytes: usize,
) -> Result<(), LabError> {
    let body = vec![b'x'; bytes];
    let tag = hmac_sha256(&hop.check_key, &[&body]);
    let mut altered = body.clone();
    *altered.last_mut().expect("a body is not empty") = b'y';
    let mut wrong = tag;
    wrong[31] ^= 1;
    let refusal = if peer.checks_signatures() { 403 } else { peer.accepts() };
    let ids: [String; 3] = std::array::from_fn(|_| hex(&system_bytes::<16>()));
    let again = if peer.is_baseline() { DUPLICATE } else { peer.accepts() };
    let probes = [
        Probe { what: "a good request", id: &ids[0], body: &body, tag, wanted: peer.accepts() },
        Probe { what: "a wrong signature", id: &ids[1], body: &body, tag: wrong, wanted: refusal },
        Probe { what: "another last byte", id: &ids[2], body: &altered, tag, wanted: refusal },
        Probe { what: "the same event again", id: &ids[0], body: &body, tag, wanted: again },
    ];
    for probe in probes {
        let status = status_of(lab, settings, hop, &probe).await?;
        if status != Some(probe.wanted) {
            return Err(LabError::Unequal(format!(
                "{}, hop {}: {} of {bytes} bytes was answered with {status:?}, not {}",
                peer.label(),
                hop.number,
                probe.what,
                probe.wanted
            )));
        }
    }
    Ok(())
}

/// The answer to one request on its own connection.
async fn status_of(
    lab: &Lab,
    settings: &Settings,
    hop: &Hop,
    probe: &Probe<'_>,
) -> Result<Option<u16>, LabError> {
    let identity = (lab.pki.certificate(INGESTER), lab.pki.key(INGESTER));
    let identity = (hop.number == 2).then_some((identity.0.as_path(), identity.1.as_path()));
    let tls = TlsConnector::from(client_config(&lab.pki.public_ca(), identity, settings.key_exchange)?);
    let mut request = format!(
        "POST {} HTTP/1.1\r\nhost: localhost\r\nx-event-id: {}\r\n{}: {PREFIX}{}\r\ncontent-length: {}\r\n\r\n",
        hop.path,
        probe.id,
        hop.check_header,
        hex(&probe.tag),
        probe.body.len()
    )
    .into_bytes();
    request.extend_from_slice(probe.body);
    Ok(answer(hop.listen, &tls, &request).await)
}

async fn answer(address: SocketAddr, tls: &TlsConnector, request: &[u8]) -> Option<u16> {
    let stream = TcpStream::connect(address).await.ok()?;
    let name = ServerName::try_from("localhost").expect("a valid name");
    let mut wire = Wire::new(tls.connect(name, stream).await.ok()?);
    wire.write(request).await.ok()?;
    wire.read().await.ok()??.status()
}

/// openssl, which knows older versions than this program does, gets nowhere with them.
fn check_versions(peer: Peer, hop: &Hop) -> Result<(), LabError> {
    for (option, wanted) in [("-tls1_3", true), ("-tls1_2", false)] {
        let agreed = Command::new("openssl")
            .args(["s_client", "-brief", option, "-connect", &hop.listen.to_string()])
            .stdin(Stdio::null())
            .output()
            .map_err(|_| LabError::Missing { what: "openssl", package: "openssl" })?;
        let words = String::from_utf8_lossy(&agreed.stderr);
        if words.contains("CONNECTION ESTABLISHED") != wanted {
            return Err(LabError::Unequal(format!(
                "{}, hop {}: {option} of openssl was {}, so TLS is not 1.3 alone:\n{words}",
                peer.label(),
                hop.number,
                if wanted { "refused" } else { "accepted" }
            )));
        }
    }
    Ok(())
}

/// A connection without a client certificate must fail, or mutual TLS is not what is measured.
fn check_target(lab: &Lab) -> Result<(), LabError> {
    let output = Command::new("timeout")
        .args([TARGET_TIMEOUT_S, "openssl", "s_client", "-quiet", "-tls1_3", "-connect"])
        .arg(lab.target.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|_| LabError::Missing { what: "openssl", package: "openssl" })?;
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("certificate required") {
        return Ok(());
    }
    Err(LabError::Unequal(format!("the target did not ask for a client certificate:\n{words}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::lab::Shape;
    use crate::load::Record;
    use crate::peers::Hops;
    use crate::pki::PUBLIC;
    use crate::sink::{Sink, SinkState};
    use crate::tls::{KeyExchange, server_config};

    /// What a check says of a second hop that takes everything.
    fn check_of_one_that_takes_everything(peer: Peer) -> (Result<(), LabError>, u64) {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::make(directory.path(), Shape::BENCH, 1).unwrap();
        let settings = Settings { threads: 1, key_exchange: KeyExchange::X25519, hops: Hops::Both };
        let hop = &all(&lab, settings)[1];
        let (certificate, key) = (lab.pki.certificate(PUBLIC), lab.pki.key(PUBLIC));
        let tls = server_config(&certificate, &key, &lab.pki.bundle(), settings.key_exchange).unwrap();
        let state = Arc::new(SinkState::default());
        let sink = Sink::new(TlsAcceptor::from(tls), &lab.targets, Record::Counts, Arc::clone(&state));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checked = runtime.block_on(async {
            let listener = TcpListener::bind(hop.listen).await.unwrap();
            tokio::spawn(sink.serve(listener));
            check_hop(peer, &lab, &settings, hop, 1024).await
        });
        (checked, state.count.load(Ordering::Relaxed))
    }

    #[test]
    fn one_that_takes_a_wrong_signature_is_found() {
        let (checked, taken) = check_of_one_that_takes_everything(Peer::HaProxy);
        let words = checked.unwrap_err().to_string();
        let wanted = "HAProxy, hop 2: a wrong signature of 1024 bytes was answered with Some(200), not 403";
        assert_eq!((words.as_str(), taken), (wanted, 2));
    }

    #[test]
    fn one_that_checks_nothing_has_only_to_take_everything() {
        let (checked, taken) = check_of_one_that_takes_everything(Peer::Nginx);
        assert_eq!((checked.map_err(|error| error.to_string()), taken), (Ok(()), 4));
    }
}
