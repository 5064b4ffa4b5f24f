//! Peers that show a chain and take any: a client and a server, one connection at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, ServerConnection, SignatureScheme,
};

use crate::Shown;

/// Whoever says nothing for so long says nothing at all.
const SILENCE: Duration = Duration::from_secs(20);

/// What a peer came to.
#[derive(Debug)]
pub enum Heard {
    /// The other side took the certificate: these are the first bytes that it said inside TLS.
    Said(Vec<u8>),
    /// It did not: an alert, or the end of the connection.
    Refused(io::Error),
}

impl Heard {
    /// Whether the certificate was taken.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Said(_))
    }
}

/// Dials `address`, shows a chain, says `words`, and hears the first bytes of an answer.
pub fn dial(address: SocketAddr, shown: &Shown, alpn: &[u8], words: &[u8]) -> Heard {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = builder.with_client_cert_resolver(Arc::new(shown.read()));
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("peer.invalid").expect("a DNS name");
    let tls = ClientConnection::new(Arc::new(config), name).expect("the configuration is complete");
    let socket = TcpStream::connect(address).expect("the system under test listens");
    talk(tls.into(), socket, words)
}

/// Takes the next connection, as [`greet`] does.
pub fn meet(listener: &TcpListener, shown: &Shown, alpn: &[u8]) -> Heard {
    let (socket, _) = listener.accept().expect("a listener accepts");
    greet(socket, shown, alpn)
}

/// Shows a chain on a connection that was accepted, and hears the first bytes that the client says.
pub fn greet(socket: TcpStream, shown: &Shown, alpn: &[u8]) -> Heard {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(Arc::new(Anybody));
    let mut config = builder.with_cert_resolver(Arc::new(shown.read()));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    let tls = ServerConnection::new(Arc::new(config)).expect("the configuration is complete");
    talk(tls.into(), socket, b"")
}

fn talk(mut tls: Connection, mut socket: TcpStream, words: &[u8]) -> Heard {
    let result = (|| {
        socket.set_read_timeout(Some(SILENCE))?;
        tls.writer().write_all(words)?;
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut socket)?;
        }
        let mut first = vec![0; 4096];
        loop {
            match tls.reader().read(&mut first) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    first.truncate(count);
                    return Ok(first);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tls.complete_io(&mut socket)?;
                }
                Err(error) => return Err(error),
            }
        }
    })();
    result.map_or_else(Heard::Refused, Heard::Said)
}

impl Shown {
    /// For a configuration that is none of ours, and that does not look at it either.
    fn read(&self) -> SingleCertAndKey {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes()).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("made as PEM");
        let key = any_supported_type(&key).expect("aws-lc-rs made it");
        CertifiedKey::new(chain.expect("made as PEM"), key).into()
    }
}

/// What both verifiers say alike: no signature is looked at.
macro_rules! any_signature {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            default_provider().signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Takes everybody, so that only the other side's refusal is seen.
#[derive(Debug)]
pub struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    any_signature!();
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    any_signature!();
}
