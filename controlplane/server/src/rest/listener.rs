//! The listener for people: who may connect at all, and how many.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zen_identity::{
    AgentPeer, Policy, SharedPolicy, SpiffeId, SpiffePattern, SvidStore, agent_peer, public_key_hash,
};

use super::{Server, answer};
use crate::directory::Directory;
use crate::listener::{Places, now_ms};
use crate::people::{Caller, PEOPLE};
use crate::web::{Door, Guest};
use crate::{ControlError, SessionKey};

/// Most connections that one person has.
pub(crate) const ONE_PERSON_CONNECTIONS_MAX: usize = 32;
const ALPN: &[u8] = b"http/1.1";

/// A listener for people that has its address.
pub struct PeopleListening {
    door: Door,
    router: Router,
    of_person: Arc<Places<SpiffeId>>,
}

impl PeopleListening {
    /// Opens the directory and takes the address. `store` is the control plane's own identity, with its deny list.
    pub async fn bind(
        directory: Directory,
        address: SocketAddr,
        store: &Arc<SvidStore>,
    ) -> Result<Self, ControlError> {
        let server = Server::open(directory)?;
        let people = format!("spiffe://{}/{PEOPLE}/*", server.trust_domain);
        let people = SpiffePattern::parse(&people).expect("a trust domain, a segment and all below it");
        let policy = SharedPolicy::new(Policy::new(vec![people], Vec::new()));
        let acceptor = TlsAcceptor::from(store.server_config(policy, &[ALPN])?);
        let door = Door::bind(address, acceptor, "people").await?;
        let of_person = Arc::new(Places::of_each(ONE_PERSON_CONNECTIONS_MAX));
        Ok(Self { door, router: answer::router(&server), of_person })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.address()
    }

    /// Answers until it is dropped.
    pub async fn run(self) {
        self.run_until(std::future::pending()).await;
    }

    /// Answers until `end`; then takes nobody in, answers requests that are on their way, and closes what is open.
    pub async fn run_until(self, end: impl Future<Output = ()>) {
        let Self { door, router, of_person } = self;
        door.run_until(end, move |guest| serve(of_person.clone(), router.clone(), guest)).await;
    }
}

async fn serve(of_person: Arc<Places<SpiffeId>>, router: Router, guest: Guest) {
    let Some((session, life)) = identify(&guest.stream) else { return };
    let Some(_place) = of_person.take(&session.id) else {
        tracing::warn!(person = %session.id, "a connection was closed because the person has too many");
        return;
    };
    let caller = Caller::Certificate(session);
    let mark = move |request: &mut Request<Body>| drop(request.extensions_mut().insert(caller.clone()));
    let _ = tokio::time::timeout(life, guest.answer_all(router, mark)).await;
}

/// Who it is, and how long the connection may last.
fn identify(stream: &TlsStream<TcpStream>) -> Option<(SessionKey, Duration)> {
    let certificates = stream.get_ref().1.peer_certificates();
    let AgentPeer::Svid(svid) = agent_peer(certificates)? else { return None };
    let key = public_key_hash(certificates?.first()?)?;
    let life = (svid.not_after.as_secs() * 1000).saturating_sub(now_ms());
    Some((SessionKey { id: svid.id, serial: svid.serial, key }, Duration::from_millis(life)))
}
