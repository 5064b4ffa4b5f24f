//! An agent whose certificate has ended: its binding key, policies, lost answers, replays, two holders. Time is an argument
//! where it passes; what the listener adds is shown over real TLS.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zen_control::{
    Attempt, LEAF_LIFE_MS, RECOVERY_WITHIN_MS, RecoveryFault, RecoveryPolicy, Refusal, SessionKey, Subject,
    deny, open_database, set_recovery,
};
use zen_control_api::{
    Base64, CertificateAnswer, CertificateRequest, EnrollmentAnswer, NonceAnswer, ProblemType, RECOVER,
    RECOVERY_NONCE, RecoveryProof, RecoveryRequest, SigningKey,
};
use zen_identity::{SpiffeId, public_key_hash};

use crate::client::{Agent, Connection, csr, new_key};
use crate::lab::{Lab as Listening, TRUST_DOMAIN, now_ms};
use crate::time::{Lab, START_MS};

const EXPORTER: [u8; 32] = [8; 32];
const OVER_MS: u64 = START_MS + LEAF_LIFE_MS + 1000;

fn binding() -> SigningKey {
    SigningKey::from_seed([5; 32].into())
}

fn request(nonce: &NonceAnswer, csr: &str, key: &SigningKey) -> RecoveryRequest {
    let proof = RecoveryProof { cluster: "edge", nonce: &nonce.nonce, csr, exporter: &EXPORTER };
    let signature = proof.sign(key);
    RecoveryRequest { cluster: "edge".to_owned(), nonce: nonce.nonce, csr: csr.to_owned(), signature }
}

fn nonce(lab: &Lab, now_ms: u64) -> Result<NonceAnswer, Refusal> {
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    lab.control.recovery_nonce(&binding().public().0.0, "edge", random, now_ms)
}

fn send(lab: &Lab, request: &RecoveryRequest, now_ms: u64) -> Result<CertificateAnswer, Refusal> {
    let client = binding().public().0.0;
    let attempt = Attempt { client: &client, exporter: &EXPORTER, source: "test" };
    lab.control.recover(attempt, request, now_ms)
}

fn recover(lab: &Lab, csr: &str, now_ms: u64) -> Result<CertificateAnswer, Refusal> {
    send(lab, &request(&nonce(lab, now_ms)?, csr, &binding()), now_ms)
}

fn enrolled() -> (Lab, EnrollmentAnswer) {
    let lab = Lab::new();
    let answer = lab.enroll(&lab.bundle("a", START_MS), &csr(&new_key()), (START_MS, START_MS)).unwrap();
    lab.mark_seen(&session(&answer.certificate_chain).serial, START_MS);
    (lab, answer)
}

/// What a connection with this certificate is known by.
fn session(chain: &str) -> SessionKey {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let id = SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/agent/edge")).unwrap();
    let serial = leaf.raw_serial().iter().copied().skip_while(|byte| *byte == 0).collect();
    SessionKey { id, serial, key: public_key_hash(&der).unwrap() }
}

#[test]
fn an_identity_that_is_over_comes_back_by_its_binding_key_once() {
    let (lab, first) = enrolled();
    let key = csr(&new_key());
    let answer = recover(&lab, &key, OVER_MS).unwrap();
    assert_eq!((first.generation, answer.generation), (1, 2));
    assert!(lab.control.session(&session(&first.certificate_chain), OVER_MS).is_err(), "the old one is out");
    let agent = lab.control.session(&session(&answer.certificate_chain), OVER_MS).unwrap();
    assert_eq!((agent.cluster.as_str(), agent.generation), ("edge", 2));
    // It goes on from there as ever.
    lab.mark_seen(&session(&answer.certificate_chain).serial, OVER_MS);
    let next = CertificateRequest { member: None, csr: csr(&new_key()), generation: 2 };
    let next = lab.control.certify(&session(&answer.certificate_chain), &next, OVER_MS + 1000).unwrap();
    assert_eq!(next.generation, 3);

    let again_ms = OVER_MS + 2 * LEAF_LIFE_MS;
    let used = recover(&lab, &csr(&new_key()), again_ms);
    assert!(matches!(used, Err(Refusal::Recovery(RecoveryFault::Used))), "{used:?}");
    let mut database = open_database(&lab.directory).unwrap();
    assert_eq!(set_recovery(&mut database, "edge", (None, true)).unwrap().used, 0);
    assert_eq!(recover(&lab, &csr(&new_key()), again_ms).unwrap().generation, 4);
    set_recovery(&mut database, "edge", (Some(RecoveryPolicy::Auto), false)).unwrap();
    let mut at_ms = again_ms;
    for generation in 5..8 {
        at_ms += LEAF_LIFE_MS + 1000;
        assert_eq!(recover(&lab, &csr(&new_key()), at_ms).unwrap().generation, generation);
    }
}

#[test]
fn a_policy_decides_and_seven_days_are_the_end() {
    let (lab, _) = enrolled();
    let mut database = open_database(&lab.directory).unwrap();
    set_recovery(&mut database, "edge", (Some(RecoveryPolicy::Off), false)).unwrap();
    let off = recover(&lab, &csr(&new_key()), OVER_MS);
    assert!(matches!(off, Err(Refusal::Recovery(RecoveryFault::Off))));
    for policy in [RecoveryPolicy::Auto, RecoveryPolicy::Once] {
        set_recovery(&mut database, "edge", (Some(policy), false)).unwrap();
        let late = recover(&lab, &csr(&new_key()), OVER_MS + RECOVERY_WITHIN_MS);
        assert!(matches!(late, Err(Refusal::Recovery(RecoveryFault::Late))), "{late:?}");
    }
    let in_time = START_MS + LEAF_LIFE_MS + RECOVERY_WITHIN_MS;
    assert_eq!(recover(&lab, &csr(&new_key()), in_time).unwrap().generation, 2);
    let elsewhere = set_recovery(&mut database, "core", (Some(RecoveryPolicy::Auto), false));
    assert!(elsewhere.unwrap_err().to_string().contains("no such cluster"));
}

#[test]
fn a_lost_answer_is_given_again_and_counts_once() {
    let (lab, _) = enrolled();
    let key = csr(&new_key());
    let first = recover(&lab, &key, OVER_MS).unwrap();
    for wait_ms in [0, 1000, 3_600_000] {
        let again = recover(&lab, &key, OVER_MS + wait_ms).unwrap();
        assert_eq!((again.certificate_chain, again.generation), (first.certificate_chain.clone(), 2));
    }
    lab.mark_seen(&session(&first.certificate_chain).serial, OVER_MS);
    assert_eq!(recover(&lab, &key, OVER_MS + 5000).unwrap().generation, 2, "whoever has that key");
}

/// The answer of a renewal was lost, and then the control plane, until all that the agent has was over.
#[test]
fn a_renewal_that_was_lost_is_found_by_recovery() {
    let (lab, first) = enrolled();
    let key = csr(&new_key());
    let request = CertificateRequest { member: None, csr: key.clone(), generation: 1 };
    let renewed_ms = START_MS + LEAF_LIFE_MS / 2;
    let lost = lab.control.certify(&session(&first.certificate_chain), &request, renewed_ms).unwrap();
    let found = recover(&lab, &key, OVER_MS).unwrap();
    assert_eq!(found.certificate_chain, lost.certificate_chain, "it is good yet");
    let over_ms = renewed_ms + LEAF_LIFE_MS + 1000;
    assert!(matches!(recover(&lab, &key, over_ms), Err(Refusal::KeySeen)), "and then it takes a new key");
    assert_eq!(recover(&lab, &csr(&new_key()), over_ms).unwrap().generation, 3);
}

#[test]
fn of_two_holders_both_are_out_and_a_clock_that_is_ahead_locks_nobody() {
    let (lab, first) = enrolled();
    let end_ms = START_MS + LEAF_LIFE_MS;
    // The certificate is good, and its holder's clock is ahead.
    for before_ms in [1000, 600_000, 900_000] {
        let good = recover(&lab, &csr(&new_key()), end_ms - before_ms);
        assert!(matches!(good, Err(Refusal::Recovery(RecoveryFault::Good { .. }))), "{good:?}");
    }
    assert!(lab.control.session(&session(&first.certificate_chain), end_ms - 1000).is_ok());

    let one = recover(&lab, &csr(&new_key()), OVER_MS).unwrap();
    lab.mark_seen(&session(&one.certificate_chain).serial, OVER_MS);
    let other = recover(&lab, &csr(&new_key()), OVER_MS + 60_000);
    assert!(matches!(other, Err(Refusal::Locked)));
    let locked = lab.control.session(&session(&one.certificate_chain), OVER_MS + 60_000);
    assert!(matches!(locked, Err(Refusal::Locked)));
    let later = recover(&lab, &csr(&new_key()), OVER_MS + 2 * LEAF_LIFE_MS);
    assert!(matches!(later, Err(Refusal::Locked)), "what is locked is not recovered");
    // A new bundle is the way back, and counts anew.
    let again_ms = OVER_MS + 3 * LEAF_LIFE_MS;
    let answer = lab.enroll(&lab.bundle("b", again_ms), &csr(&new_key()), (again_ms, again_ms)).unwrap();
    assert_eq!(answer.generation, 3);
    assert_eq!(recover(&lab, &csr(&new_key()), again_ms + LEAF_LIFE_MS + 1000).unwrap().generation, 4);
}

#[test]
fn a_denied_identity_is_not_recovered() {
    let (lab, first) = enrolled();
    let mut database = open_database(&lab.directory).unwrap();
    let serial = session(&first.certificate_chain).serial;
    let serial = serial.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    for subject in [Subject::Id(format!("spiffe://{TRUST_DOMAIN}/agent/edge")), Subject::Serial(serial)] {
        deny(&lab.directory, &mut database, &subject, (None, None), START_MS).unwrap();
        let denied = recover(&lab, &csr(&new_key()), OVER_MS);
        assert!(matches!(denied, Err(Refusal::Denied)), "{subject:?}: {denied:?}");
        zen_control::allow(&lab.directory, &mut database, &subject, START_MS).unwrap();
    }
    assert!(recover(&lab, &csr(&new_key()), OVER_MS).is_ok());
}

#[test]
fn a_proof_is_for_one_nonce_and_one_connection() {
    let (lab, _) = enrolled();
    let text = csr(&new_key());
    let good = request(&nonce(&lab, OVER_MS).unwrap(), &text, &binding());
    let fresh = || nonce(&lab, OVER_MS).unwrap();
    let other_csr = RecoveryRequest { csr: csr(&new_key()), ..request(&fresh(), &text, &binding()) };
    let by_another = request(&fresh(), &text, &SigningKey::generate());
    let unsigned = RecoveryRequest { signature: Base64([0; 64]), ..request(&fresh(), &text, &binding()) };
    for bad in [other_csr, by_another, unsigned] {
        assert!(matches!(send(&lab, &bad, OVER_MS), Err(Refusal::Proof)));
    }
    let made_up = RecoveryRequest { nonce: Base64([1; 32]), ..good.clone() };
    assert!(matches!(send(&lab, &made_up, OVER_MS), Err(Refusal::Nonce)));
    let elsewhere = RecoveryRequest { cluster: "core".to_owned(), ..good.clone() };
    assert!(matches!(send(&lab, &elsewhere, OVER_MS), Err(Refusal::Binding)));
    assert!(matches!(send(&lab, &good, OVER_MS + 60_000), Err(Refusal::Nonce)), "a minute is over");
    let good = request(&fresh(), &text, &binding());
    let client = binding().public().0.0;
    let elsewhere = Attempt { client: &client, exporter: &[9; 32], source: "test" };
    assert!(matches!(lab.control.recover(elsewhere, &good, OVER_MS), Err(Refusal::Proof)));
    let good = request(&fresh(), &text, &binding());
    assert!(send(&lab, &good, OVER_MS).is_ok());
    assert!(matches!(send(&lab, &good, OVER_MS), Err(Refusal::Nonce)), "replayed");
    let stranger = lab.control.recovery_nonce(&[7; 32], "edge", [1; 32], OVER_MS);
    assert!(matches!(stranger, Err(Refusal::Binding)));
}

/// Over the listener: the binding key has a place, other keys learn nothing, and a good certificate is not replaced.
#[tokio::test(flavor = "multi_thread")]
async fn the_listener_knows_a_binding_key() {
    let lab = Listening::start().await;
    let bundle = lab.bundle("edge");
    let agent = Agent::enroll(lab.address, &bundle).await;
    let mut holder = Connection::with_seed(lab.address, &bundle, binding().seed()).await.unwrap();
    let nonce: NonceAnswer = holder.get(&format!("{RECOVERY_NONCE}?cluster=edge")).await.unwrap().read();
    assert!(nonce.server_time_ms.abs_diff(now_ms()) < 60_000);
    let exporter = holder.exporter();
    let text = csr(&new_key());
    let proof = RecoveryProof { cluster: "edge", nonce: &nonce.nonce, csr: &text, exporter: &exporter };
    let signature = proof.sign(&binding());
    let asked =
        RecoveryRequest { cluster: "edge".to_owned(), nonce: nonce.nonce, csr: text.clone(), signature };
    let body = serde_json::to_vec(&asked).unwrap();
    // Nobody has used the certificate of the enrollment: its answer may have been lost.
    let answer: CertificateAnswer = holder.post(RECOVER, &body).await.unwrap().read();
    assert_eq!((answer.generation, agent.generation), (2, 1));
    assert_eq!(holder.post(RECOVER, &body).await.unwrap().problem(), ProblemType::NonceRefused, "replayed");

    let mut stranger = Connection::with_seed(lab.address, &bundle, &[9; 32]).await.unwrap();
    let unknown = stranger.get(&format!("{RECOVERY_NONCE}?cluster=edge")).await.unwrap();
    let nowhere = stranger.get(&format!("{RECOVERY_NONCE}?cluster=core")).await.unwrap();
    assert_eq!((unknown.problem(), &unknown.body), (ProblemType::Forbidden, &nowhere.body));
    for query in ["", "?cluster=", "?cluster=../edge", "?cluster=edge&x=1", "?bundle_id=edge"] {
        let answer = holder.get(&format!("{RECOVERY_NONCE}{query}")).await.unwrap();
        assert_eq!(answer.problem(), ProblemType::Malformed, "{query}");
    }
    for body in ["", "{}", "[]", r#"{"cluster":"edge","nonce":"","csr":"","signature":""}"#] {
        assert_eq!(holder.post(RECOVER, body.as_bytes()).await.unwrap().problem(), ProblemType::Malformed);
    }
    let mut by_svid = agent.connect(lab.address).await.unwrap();
    let answer = by_svid.get(&format!("{RECOVERY_NONCE}?cluster=edge")).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Forbidden, "an identity renews");
}
