//! Real handshakes in memory, in both directions of refusal.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, Error, HandshakeKind, NamedGroup, ServerConfig,
    ServerConnection,
};
use rustls_pki_types::{ServerName, UnixTime};
use tempfile::TempDir;
use zen_identity::{
    Decision, Denial, DenyEntry, DenyList, PeerRefused, Policy, PrivateKeySource, ReloadingCertificate,
    SharedPolicy, SpiffeId, SpiffePattern, SvidError, SvidStore, TargetRoots, peer_id, peer_refused,
    public_server_config, spiffe_server_name, target_client_config,
};

use crate::pki::{Ca, DAY, DOMAIN, ID, at, dns, named, now, pem, uri, write_identity, write_key};

const ALPN: &[&[u8]] = &[b"zen-link/1"];
const PEER: &str = "spiffe://example.org/ns/inside/sa/egress";

struct Lab {
    root: Ca,
    directory: TempDir,
    server: Arc<SvidStore>,
    client: Arc<SvidStore>,
}

impl Lab {
    fn new() -> Self {
        let root = Ca::root(now(), |_| {});
        let directory = tempfile::tempdir().unwrap();
        let server = store(&directory, "server", DOMAIN, ID, &root);
        let client = store(&directory, "client", DOMAIN, PEER, &root);
        Self { root, directory, server, client }
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        self.server.server_config(allow(PEER), ALPN).unwrap()
    }

    fn client_config(&self) -> Arc<ClientConfig> {
        self.client.client_config(allow(ID), ALPN).unwrap()
    }
}

fn store(directory: &TempDir, name: &str, domain: &str, id: &str, root: &Ca) -> Arc<SvidStore> {
    let directory = directory.path().join(name);
    std::fs::create_dir(&directory).unwrap();
    let leaf = root.leaf(|params| params.subject_alt_names = vec![uri(id)]);
    SvidStore::load(write_identity(&directory, domain, &[&leaf.der], &leaf.key, root)).unwrap()
}

fn allow(pattern: &str) -> Arc<SharedPolicy> {
    SharedPolicy::new(Policy::new(vec![SpiffePattern::parse(pattern).unwrap()], vec![]))
}

/// Both ends after the handshake, and the first error of each.
struct Ends {
    client: ClientConnection,
    server: ServerConnection,
    client_error: Option<Error>,
    server_error: Option<Error>,
}

impl Ends {
    fn established(self) -> Self {
        assert_eq!((&self.client_error, &self.server_error), (&None, &None));
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        self
    }

    fn server_refused(&self) -> PeerRefused {
        peer_refused(self.server_error.as_ref().unwrap()).unwrap().clone()
    }

    fn client_refused(&self) -> PeerRefused {
        peer_refused(self.client_error.as_ref().unwrap()).unwrap().clone()
    }
}

fn connect(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Ends {
    connect_to(client, server, spiffe_server_name())
}

fn connect_to(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, name: ServerName<'static>) -> Ends {
    let mut ends = Ends {
        client: ClientConnection::new(client.clone(), name).unwrap(),
        server: ServerConnection::new(server.clone()).unwrap(),
        client_error: None,
        server_error: None,
    };
    while ends.client.wants_write() || ends.server.wants_write() {
        ends.server_error = ends.server_error.or(carry(&mut ends.client, &mut ends.server));
        ends.client_error = ends.client_error.or(carry(&mut ends.server, &mut ends.client));
    }
    ends
}

/// Everything one end wants to say reaches the other.
fn carry<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Option<Error>
where
    A: rustls::SideData,
    B: rustls::SideData,
{
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        if let Err(error) = to.process_new_packets() {
            return Some(error);
        }
    }
    None
}

#[derive(Debug)]
struct FixedTime(UnixTime);

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[test]
fn both_ends_learn_each_others_id() {
    let lab = Lab::new();
    let ends = connect(&lab.client_config(), &lab.server_config()).established();
    assert_eq!(peer_id(ends.server.peer_certificates()).unwrap().as_str(), PEER);
    assert_eq!(peer_id(ends.client.peer_certificates()).unwrap().as_str(), ID);
    assert_eq!(ends.server.alpn_protocol(), Some(ALPN[0]));
    assert_eq!(ends.server.server_name(), None);
    let group = ends.server.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn the_servers_policy_refuses_a_client_that_is_not_listed() {
    let lab = Lab::new();
    let server = lab.server.server_config(allow("spiffe://example.org/ns/other/*"), ALPN).unwrap();
    let ends = connect(&lab.client_config(), &server);
    let refused = PeerRefused::Policy { id: SpiffeId::parse(PEER).unwrap(), decision: Decision::NotListed };
    assert_eq!(ends.server_refused(), refused);
    assert!(matches!(ends.client_error, Some(Error::AlertReceived(_))));
}

#[test]
fn the_clients_policy_refuses_a_server_that_is_denied() {
    let lab = Lab::new();
    let policy = Policy::new(
        vec![SpiffePattern::parse("spiffe://example.org/*").unwrap()],
        vec![SpiffePattern::parse(ID).unwrap()],
    );
    let client = lab.client.client_config(SharedPolicy::new(policy), ALPN).unwrap();
    let ends = connect(&client, &lab.server_config());
    let refused = PeerRefused::Policy { id: SpiffeId::parse(ID).unwrap(), decision: Decision::Denied };
    assert_eq!(ends.client_refused(), refused);
    assert!(ends.server_error.is_some());
}

#[test]
fn a_replaced_policy_counts_at_the_next_handshake() {
    let lab = Lab::new();
    let policy = allow(PEER);
    let server = lab.server.server_config(policy.clone(), ALPN).unwrap();
    connect(&lab.client_config(), &server).established();
    policy.replace(Policy::default());
    assert_eq!(connect(&lab.client_config(), &server).server_refused().label(), "policy");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let lab = Lab::new();
    let roots = TargetRoots::Spiffe { store: lab.client.clone(), policy: allow(ID) };
    let mut client = ClientConfig::clone(&target_client_config(roots, None).unwrap());
    client.alpn_protocols.clear();
    let ends = connect(&Arc::new(client), &lab.server_config());
    assert_eq!(ends.server_error, Some(Error::NoCertificatesPresented));
}

#[test]
fn an_expired_peer_is_refused_at_either_end() {
    let lab = Lab::new();
    let later: Arc<dyn TimeProvider> = Arc::new(FixedTime(at(now() + 2 * DAY)));
    let mut server = ServerConfig::clone(&lab.server_config());
    server.time_provider = later.clone();
    let ends = connect(&lab.client_config(), &Arc::new(server));
    assert_eq!(ends.server_refused(), PeerRefused::Svid(SvidError::Expired));
    let mut client = ClientConfig::clone(&lab.client_config());
    client.time_provider = later;
    let ends = connect(&Arc::new(client), &lab.server_config());
    assert_eq!(ends.client_refused(), PeerRefused::Svid(SvidError::Expired));
}

#[test]
fn another_trust_domain_is_refused_even_with_the_same_path() {
    let lab = Lab::new();
    let other = Ca::root(now(), |params| params.distinguished_name = named("other"));
    let id = PEER.replace(DOMAIN, "other.example");
    let stranger = store(&lab.directory, "stranger", "other.example", &id, &other);
    // The stranger trusts the server, so that only the server's refusal is seen.
    let mut client = ClientConfig::clone(&lab.client_config());
    client.client_auth_cert_resolver = stranger;
    let ends = connect(&Arc::new(client), &lab.server_config());
    assert_eq!(ends.server_refused(), PeerRefused::Svid(SvidError::UnknownTrustDomain));
}

#[test]
fn a_tls_1_2_client_is_refused() {
    let lab = Lab::new();
    let body = [
        &[0x03, 0x03][..],           // TLS 1.2
        &[7; 32],                    // random
        &[0],                        // no session id
        &[0, 2, 0xc0, 0x2b],         // ECDHE-ECDSA-AES128-GCM-SHA256
        &[1, 0],                     // null compression
        &[0, 16],                    // extensions:
        &[0, 10, 0, 4, 0, 2, 0, 23], // P-256
        &[0, 13, 0, 4, 0, 2, 4, 3],  // ECDSA with SHA-256
    ]
    .concat();
    let handshake = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    let record = [&[22, 3, 1, 0, handshake.len() as u8][..], &handshake].concat();
    let directory = &lab.directory;
    for config in
        [lab.server_config(), public_server_config(public_certificate(directory, &lab.root), None).unwrap()]
    {
        let mut server = ServerConnection::new(config).unwrap();
        server.read_tls(&mut &record[..]).unwrap();
        let error = server.process_new_packets().unwrap_err();
        assert!(matches!(error, Error::PeerIncompatible(_)), "{error:?}");
    }
}

#[test]
fn mutual_tls_is_never_resumed() {
    let lab = Lab::new();
    let mut client = ClientConfig::clone(&lab.client_config());
    client.resumption = Resumption::in_memory_sessions(8);
    let (client, server) = (Arc::new(client), lab.server_config());
    for _ in 0..3 {
        let ends = connect(&client, &server).established();
        assert_eq!(ends.client.tls13_tickets_received(), 0);
        assert!(matches!(ends.server.handshake_kind(), Some(HandshakeKind::Full)));
    }
}

#[test]
fn a_reload_changes_the_leaf_without_another_configuration() {
    let lab = Lab::new();
    let (client, server) = (lab.client_config(), lab.server_config());
    let before = connect(&client, &server).established();
    let next = lab.root.leaf(|_| {});
    write_identity(&lab.directory.path().join("server"), DOMAIN, &[&next.der], &next.key, &lab.root);
    lab.server.reload().unwrap();
    let after = connect(&client, &server).established();
    assert_ne!(before.client.peer_certificates(), after.client.peer_certificates());
    assert_eq!(after.client.peer_certificates().unwrap(), [next.der]);
}

#[test]
fn a_deny_list_reaches_new_and_live_connections() {
    let lab = Lab::new();
    let (client, server) = (lab.client_config(), lab.server_config());
    let live = connect(&client, &server).established();
    let entry = DenyEntry::Id(SpiffeId::parse(PEER).unwrap());
    lab.server.replace_deny_list(DenyList::new([entry]));
    let refused = PeerRefused::Svid(SvidError::Denied(Denial::Id));
    assert_eq!(connect(&client, &server).server_refused(), refused);
    let bundles = lab.server.bundles();
    assert_eq!(
        bundles.deny_list().denies(live.server.peer_certificates().unwrap(), at(now())),
        Some(Denial::Id)
    );

    let next = lab.root.leaf(|_| {});
    write_identity(&lab.directory.path().join("server"), DOMAIN, &[&next.der], &next.key, &lab.root);
    lab.server.reload().unwrap();
    assert_eq!(connect(&client, &server).server_refused(), refused, "a reload keeps the deny list");
}

/// Its certificate has no SPIFFE id.
#[test]
fn a_deny_list_reaches_a_target_known_by_its_name() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let server = public_server_config(public_certificate(&directory, &lab.root), None).unwrap();
    let connect_now = || {
        let roots =
            TargetRoots::NotDenied { roots: Box::new(private_ca(&lab.root)), store: lab.client.clone() };
        let client = target_client_config(roots, None).unwrap();
        let name = ServerName::try_from("hooks.example.org").unwrap();
        connect_to(&client, &server, name)
    };
    let live = connect_now().established();
    let chain = live.client.peer_certificates().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    lab.client.replace_deny_list(DenyList::new([DenyEntry::Serial(leaf.raw_serial().to_vec())]));
    assert_eq!(lab.client.deny_list().denies(chain, at(now())), Some(Denial::Serial));
    let refused = PeerRefused::Svid(SvidError::Denied(Denial::Serial));
    assert_eq!(connect_now().client_refused(), refused);
    assert_eq!(refused.denial(), Some(Denial::Serial));
    lab.client.replace_deny_list(DenyList::default());
    connect_now().established();
}

/// A certificate for `hooks.example.org`.
fn public_certificate(directory: &TempDir, root: &Ca) -> Arc<ReloadingCertificate> {
    let leaf = root.leaf(|params| params.subject_alt_names = vec![dns("hooks.example.org")]);
    let (certificate, key) = (directory.path().join("public.pem"), directory.path().join("public.key"));
    std::fs::write(&certificate, pem(&[&leaf.der])).unwrap();
    write_key(&key, &leaf.key);
    ReloadingCertificate::load(certificate, PrivateKeySource::File(key)).unwrap()
}

fn private_ca(root: &Ca) -> TargetRoots {
    TargetRoots::Pem(pem(&[&root.der]).into_bytes())
}

#[test]
fn the_public_listener_resumes_and_follows_a_reload() {
    let lab = Lab::new();
    let certificate = public_certificate(&lab.directory, &lab.root);
    let server = public_server_config(certificate.clone(), None).unwrap();
    let name = ServerName::try_from("hooks.example.org").unwrap();
    let mut client = ClientConfig::clone(&target_client_config(private_ca(&lab.root), None).unwrap());
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    let first = connect_to(&client, &server, name.clone()).established();
    assert_eq!(first.client.tls13_tickets_received(), 1);
    let second = connect_to(&client, &server, name.clone()).established();
    assert!(matches!(second.server.handshake_kind(), Some(HandshakeKind::Resumed)));
    assert_eq!(server.max_early_data_size, 0);

    public_certificate(&lab.directory, &lab.root);
    assert_eq!(certificate.reload().unwrap(), zen_identity::Reloaded::Changed);
    let plain = target_client_config(private_ca(&lab.root), None).unwrap();
    let third = connect_to(&plain, &server, name).established();
    assert_ne!(third.client.peer_certificates(), first.client.peer_certificates());
}

#[test]
fn a_target_is_known_by_its_name_under_a_private_ca() {
    let lab = Lab::new();
    let server = public_server_config(public_certificate(&lab.directory, &lab.root), None).unwrap();
    let client = target_client_config(private_ca(&lab.root), Some(lab.client.clone())).unwrap();
    let right = ServerName::try_from("hooks.example.org").unwrap();
    let ends = connect_to(&client, &server, right.clone()).established();
    assert_eq!(ends.server.server_name(), Some("hooks.example.org"));
    let wrong = connect_to(&client, &server, ServerName::try_from("other.example.org").unwrap());
    assert!(matches!(wrong.client_error, Some(Error::InvalidCertificate(_))));
    let stranger = Ca::root(now(), |params| params.distinguished_name = named("stranger"));
    let client = target_client_config(private_ca(&stranger), None).unwrap();
    assert!(matches!(connect_to(&client, &server, right).client_error, Some(Error::InvalidCertificate(_))));
    assert!(target_client_config(TargetRoots::Pem(Vec::new()), None).is_err());
}

#[test]
fn a_target_is_known_by_its_spiffe_id_and_sees_ours() {
    let lab = Lab::new();
    let mut server = ServerConfig::clone(&lab.server_config());
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Arc::new(server);
    let target = |pattern| {
        let roots = TargetRoots::Spiffe { store: lab.client.clone(), policy: allow(pattern) };
        target_client_config(roots, Some(lab.client.clone())).unwrap()
    };
    let ends = connect(&target(ID), &server).established();
    assert_eq!(peer_id(ends.server.peer_certificates()).unwrap().as_str(), PEER);
    assert_eq!(
        connect(&target("spiffe://example.org/ns/other/*"), &server).client_refused().label(),
        "policy"
    );
}
