//! Every rule for X.509-SVIDs where the agent dials the control plane: who breaks one is not talked to, neither for an
//! enrollment nor afterwards, and the agent says why; who is one change away is talked to.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use lab::{Lab, TRUST_DOMAIN, wait_until};
use nix::sys::signal::Signal;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zen_control_api::{CaPin, EnrollmentBundle, Hex16, SigningKey};
use zen_identity::public_key_hash;
use zen_svid_faults::{Domain, FAULTS, Fault, Shown, greet};

#[path = "support/lab.rs"]
mod lab;

const CONTROL: &str = "control";

/// Stands where the control plane was, and shows what a test wants.
struct Impostor {
    shows: Arc<Mutex<Shown>>,
    /// Connections on which it was talked to.
    talked: Arc<AtomicUsize>,
}

impl Impostor {
    fn start(listener: TcpListener, first: Shown) -> Self {
        let impostor = Self { shows: Arc::new(Mutex::new(first)), talked: Arc::default() };
        let (shows, talked) = (Arc::clone(&impostor.shows), Arc::clone(&impostor.talked));
        thread::spawn(move || {
            for socket in listener.incoming() {
                let shown = shows.lock().unwrap().clone();
                let socket = socket.unwrap();
                // Who talked learns that nothing comes only when it has been counted.
                let held = socket.try_clone().unwrap();
                let heard = greet(socket, &shown, b"http/1.1");
                talked.fetch_add(usize::from(heard.is_taken()), Ordering::SeqCst);
                drop(held);
            }
        });
        impostor
    }

    fn show(&self, shown: Shown) {
        *self.shows.lock().unwrap() = shown;
    }

    fn talked(&self) -> usize {
        self.talked.load(Ordering::SeqCst)
    }
}

/// Who enrolls has no deny list, and one that runs has none against the control plane, from which it would come.
fn applies(fault: &Fault) -> bool {
    !fault.is_denial()
}

/// A bundle in a file, which pins all roots of the domain.
fn write_bundle(lab: &Lab, domain: &Domain, address: SocketAddr) {
    let roots = domain.bundle();
    let pins = CertificateDer::pem_slice_iter(roots.as_bytes())
        .map(|root| CaPin(public_key_hash(&root.unwrap()).unwrap()))
        .collect();
    let places = (vec![format!("https://{address}")], pins);
    let names = (Hex16([1; 16]), "acme", "edge");
    let key = SigningKey::generate();
    let bundle = EnrollmentBundle::new(
        &SigningKey::generate(),
        names,
        TRUST_DOMAIN,
        places,
        key.public(),
        u64::MAX >> 12,
    );
    fs::write(lab.path("bundle.json"), bundle.unwrap().encode().as_bytes()).unwrap();
}

#[test]
fn an_agent_that_enrolls_refuses_each() {
    let lab = Lab::without_control();
    let domain = Domain::new(TRUST_DOMAIN);
    // It looks for the pinned CA in the chain.
    let with_roots = |shown: Shown| Shown { chain: shown.chain + &domain.bundle(), key: shown.key };
    let listener = TcpListener::bind(("127.0.0.1", lab.port)).unwrap();
    write_bundle(&lab, &domain, listener.local_addr().unwrap());
    let impostor = Impostor::start(listener, with_roots(domain.good(CONTROL)));
    let enroll = || String::from_utf8(lab.enroll(&lab.path("bundle.json")).stderr).unwrap();
    let said = enroll();
    assert_eq!(impostor.talked(), 1, "the good one: {said}");
    for fault in FAULTS.iter().filter(|fault| applies(fault)) {
        impostor.show(with_roots(fault.make(&domain, CONTROL)));
        let said = enroll();
        assert!(said.contains(fault.reason), "rule {}, {}: {said}", fault.rule, fault.name);
        assert_eq!(impostor.talked(), 1, "rule {}, {}: not a word", fault.rule, fault.name);
    }
    impostor.show(with_roots(domain.good(CONTROL)));
    enroll();
    assert_eq!(impostor.talked(), 2, "the good one, again");
}

#[test]
fn an_agent_that_runs_refuses_each() {
    let mut lab = Lab::new();
    let output = lab.enroll(&lab.bundle("edge"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| fs::read_to_string(lab.path("control").join(name)).unwrap();
    let domain = Domain::of_root(TRUST_DOMAIN, &read("root.pem"), &read("root.key"));
    lab.control.take().unwrap().stop();
    let listener = TcpListener::bind(("127.0.0.1", lab.port)).unwrap();
    let impostor = Impostor::start(listener, domain.good(CONTROL));
    let agent = lab.start_agent();
    wait_until("the good one is talked to", || impostor.talked() > 0);
    agent.signal(Signal::SIGKILL);
    drop(agent);
    // Its own roots are all that it has: none of them is outside its validity.
    for fault in FAULTS.iter().filter(|fault| applies(fault)).filter(|fault| !fault.needs_bundle()) {
        impostor.show(fault.make(&domain, CONTROL));
        let log = fs::read_to_string(lab.path("agent.log")).unwrap();
        let (before, talked) = (log.matches(fault.reason).count(), impostor.talked());
        let agent = lab.start_agent();
        wait_until(&format!("rule {}, {}: \"{}\" in the log", fault.rule, fault.name, fault.reason), || {
            agent.log().matches(fault.reason).count() > before
        });
        // The status is written after the log.
        wait_until(&format!("rule {}, {}: in the status", fault.rule, fault.name), || {
            let (said, is_good) = lab.status();
            said.contains(fault.reason) && !is_good
        });
        assert_eq!(impostor.talked(), talked, "rule {}, {}: not a word", fault.rule, fault.name);
        agent.signal(Signal::SIGKILL);
    }
    impostor.show(domain.good(CONTROL));
    let talked = impostor.talked();
    let _agent = lab.start_agent();
    wait_until("the good one is talked to again", || impostor.talked() > talked);
}
