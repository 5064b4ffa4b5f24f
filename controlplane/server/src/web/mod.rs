//! The listener for browsers, and for programs that have a token: TLS 1.3 and HTTP/1.1; nobody shows a certificate.
//!
//! Enters: requests for pages, for sign-in, and for `/v1` with a token. Leaves: pages, JSON, or problems (RFC 9457). Refused: a
//! Host that is none of ours, too many connections of one address, `/v1` without a token, and all that is over its bounds.

mod door;
mod guard;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tokio_rustls::TlsAcceptor;
use zen_identity::{PrivateKeySource, Reloaded, ReloadingCertificate, public_server_config};

pub(crate) use self::door::{Door, Guest};

use self::guard::{Names, guard};
use crate::directory::{self, Directory};
use crate::listener::Places;
use crate::people::{Caller, TokenId};
use crate::sign_in::{OidcSettings, SignIn};
use crate::{ControlError, dashboard, rest, sign_in};

/// Most connections of one address.
pub(crate) const ADDRESS_CONNECTIONS_MAX: usize = 64;
/// How often the certificate's files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// Where browsers connect, and what the listener shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSettings {
    /// Where.
    pub listen: SocketAddr,
    /// A PEM chain and its key; without them the control plane's own certificate, for `localhost` only.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Names of hosts that browsers may know it by, beside `localhost`.
    pub names: Vec<String>,
    /// A provider with which people may sign in.
    pub oidc: Option<OidcSettings>,
}

/// A listener for browsers that has its address.
pub struct WebListening {
    door: Door,
    router: Router,
    certificate: Arc<ReloadingCertificate>,
    of_address: Arc<Places<IpAddr>>,
}

impl WebListening {
    /// Opens the directory and takes the address. The listener for agents has made the control plane's certificate before.
    pub async fn bind(directory: Directory, settings: &WebSettings) -> Result<Self, ControlError> {
        let (certificate_file, key_file) = settings.certificate.clone().unwrap_or_else(|| {
            let own = directory.path(directory::SERVER);
            (own.clone(), own)
        });
        let certificate = ReloadingCertificate::load(certificate_file, PrivateKeySource::File(key_file))?;
        let acceptor = TlsAcceptor::from(public_server_config(certificate.clone(), None)?);
        let door = Door::bind(settings.listen, acceptor, "browsers").await?;
        let server = rest::Server::open(directory.clone())?;
        let sign_in = SignIn::open(&server, &directory, settings.oidc.clone())?;
        let router = router(&server, &sign_in, Names::new(&settings.names));
        let of_address = Arc::new(Places::of_each(ADDRESS_CONNECTIONS_MAX));
        Ok(Self { door, router, certificate, of_address })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.address()
    }

    /// Answers until `end`; then takes nobody in, answers requests that are on their way, and closes what is open.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        let Self { door, router, certificate, of_address } = self;
        let serve = move |guest: Guest| serve(of_address.clone(), router.clone(), guest);
        let served = door.run_until(end, serve);
        tokio::select! {
            () = served => {}
            () = follow(certificate) => {}
        }
    }
}

async fn serve(of_address: Arc<Places<IpAddr>>, router: Router, guest: Guest) {
    let source = guest.source;
    let Some(_place) = of_address.take(&source.ip()) else {
        tracing::warn!(%source, "a connection was closed because its address has too many");
        return;
    };
    let mark = move |request: &mut Request<Body>| {
        request.extensions_mut().insert(source);
    };
    guest.answer_all(router, mark).await;
}

/// Takes over a new certificate as it is written; one that is no good changes nothing.
async fn follow(certificate: Arc<ReloadingCertificate>) {
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        let read = certificate.clone();
        match tokio::task::spawn_blocking(move || read.reload()).await {
            Ok(Ok(Reloaded::Changed)) => tracing::info!("browsers get the new certificate"),
            Ok(Ok(Reloaded::Unchanged)) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "the certificate for browsers stays the one before"),
        }
    }
}

fn router(server: &Arc<rest::Server>, sign_in: &Arc<SignIn>, names: Names) -> Router {
    let api = rest::paths(server).layer(axum::middleware::map_request(mark));
    let (pages, problems) = (dashboard::Dashboard::new(server), server.clone());
    let nowhere = pages.clone();
    let elsewhere = move |request: Request| async move {
        if request.uri().path().starts_with("/v1/") {
            rest::nowhere(problems, request).await
        } else {
            nowhere.nowhere(request).await
        }
    };
    let all = dashboard::router(&pages).merge(sign_in::router(sign_in)).merge(api).fallback(elsewhere);
    all.layer(axum::middleware::from_fn(move |request: Request, next| guard(names.clone(), request, next)))
}

/// Who asks: whoever has the token.
async fn mark(mut request: Request) -> Request {
    if let Some(caller) = token(request.headers()) {
        request.extensions_mut().insert(caller);
    }
    request
}

fn token(headers: &HeaderMap) -> Option<Caller> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    let hash = digest(&SHA256, token.trim().as_bytes());
    let hash = hash.as_ref().try_into().expect("SHA-256 has 32 bytes");
    scheme.eq_ignore_ascii_case("bearer").then_some(Caller::Token(TokenId(hash)))
}
