//! Enrollment: who gets in, and each refusal by its problem.

use rcgen::{CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use zen_control::revoke_bundle;
use zen_control_api::{
    Base64, CONFIGURATION, ENROLL, EnrollmentAnswer, EnrollmentRequest, NONCE, ProblemType, SigningKey,
};

use crate::client::{Agent, Answer, Connection, csr, csr_with, enroll, enrollment_request, new_key};
use crate::lab::{Lab, TRUST_DOMAIN, now_ms};

async fn post(connection: &mut Connection, request: &EnrollmentRequest) -> Answer {
    connection.post(ENROLL, &serde_json::to_vec(request).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_in_and_speaks() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    assert_eq!(agent.generation, 1);
    assert_eq!(agent.store.id().as_str(), format!("spiffe://{TRUST_DOMAIN}/agent/edge"));
    lab.configure("edge");
    let mut connection = agent.connect(lab.address).await.unwrap();
    assert_eq!(connection.get(&format!("{CONFIGURATION}?after=0")).await.unwrap().status, 200);
    assert_eq!(connection.get("/healthz").await.unwrap().status, 200, "on the same connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_has_the_same_certificate_and_another_key_none() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let (key, other) = (new_key(), new_key());
    let first: EnrollmentAnswer = enroll(lab.address, &bundle, &csr(&key)).await.read();
    let again: EnrollmentAnswer = enroll(lab.address, &bundle, &csr(&key)).await.read();
    assert_eq!(again.certificate_chain, first.certificate_chain, "byte for byte");
    assert_eq!((first.generation, again.generation), (1, 1));
    let answer = enroll(lab.address, &bundle, &csr(&other)).await;
    assert_eq!((answer.status, answer.problem()), (409, ProblemType::BundleConsumed));
    assert_eq!((lab.count("identities"), lab.count("certificates")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_with_one_bundle_one_gets_in() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let (address, text) = (lab.address, bundle.encode());
            tokio::spawn(async move {
                let bundle = zen_control_api::EnrollmentBundle::decode(text.as_bytes()).unwrap();
                enroll(address, &bundle, &csr(&new_key())).await
            })
        })
        .collect();
    let mut let_in = 0;
    for attempt in attempts {
        let answer = attempt.await.unwrap();
        match answer.status {
            201 => let_in += 1,
            // More of them at once than a bundle has nonces.
            403 => assert_eq!(answer.problem(), ProblemType::NonceRefused),
            _ => assert_eq!(answer.problem(), ProblemType::BundleConsumed),
        }
    }
    assert_eq!(let_in, 1);
    assert_eq!((lab.count("identities"), lab.count("certificates")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_over_or_revoked_lets_nobody_in() {
    let lab = Lab::start().await;
    let expired = lab.bundle_at("edge", now_ms() - 3_600_000);
    let answer = enroll(lab.address, &expired, &csr(&new_key())).await;
    assert_eq!((answer.status, answer.problem()), (410, ProblemType::BundleExpired));

    let revoked = lab.bundle("edge");
    let mut connection = Connection::with_bundle(lab.address, &revoked).await.unwrap();
    let request = enrollment_request(&mut connection, &revoked, &csr(&new_key())).await.unwrap();
    revoke_bundle(&mut lab.database(), revoked.bundle_id, now_ms()).unwrap();
    let answer = post(&mut connection, &request).await;
    assert_eq!((answer.status, answer.problem()), (410, ProblemType::BundleExpired));
    assert_eq!(lab.count("identities"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_bundle_s_holder_learns_anything_about_it() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let mut stranger = Connection::with_seed(lab.address, &bundle, &[9; 32]).await.unwrap();
    let known = stranger.get(&format!("{NONCE}?bundle_id={}", bundle.bundle_id)).await.unwrap();
    let unknown = stranger.get(&format!("{NONCE}?bundle_id={}", "0".repeat(32))).await.unwrap();
    assert_eq!(known.problem(), ProblemType::Forbidden);
    assert_eq!(known.body, unknown.body);

    let mut holder = Connection::with_bundle(lab.address, &bundle).await.unwrap();
    let request = enrollment_request(&mut holder, &bundle, &csr(&new_key())).await.unwrap();
    assert_eq!(post(&mut stranger, &request).await.problem(), ProblemType::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_for_one_nonce_and_one_connection() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let mut connection = Connection::with_bundle(lab.address, &bundle).await.unwrap();
    let mut another = Connection::with_bundle(lab.address, &bundle).await.unwrap();
    let text = csr(&new_key());

    let request = enrollment_request(&mut connection, &bundle, &text).await.unwrap();
    assert_eq!(post(&mut another, &request).await.problem(), ProblemType::ProofRefused, "another connection");
    assert_eq!(post(&mut connection, &request).await.problem(), ProblemType::NonceRefused, "used up");

    let request = enrollment_request(&mut connection, &bundle, &text).await.unwrap();
    let made_up = EnrollmentRequest { nonce: Base64([1; 32]), ..request };
    assert_eq!(post(&mut connection, &made_up).await.problem(), ProblemType::NonceRefused);

    let changes: [fn(EnrollmentRequest) -> EnrollmentRequest; 3] = [
        |request| EnrollmentRequest { csr: csr(&new_key()), ..request },
        |request| EnrollmentRequest { binding_key: SigningKey::generate().public(), ..request },
        |request| EnrollmentRequest { signature: Base64([0; 64]), ..request },
    ];
    for change in changes {
        let request = change(enrollment_request(&mut connection, &bundle, &text).await.unwrap());
        assert_eq!(post(&mut connection, &request).await.problem(), ProblemType::ProofRefused);
    }
    let other = lab.bundle("core");
    let request = enrollment_request(&mut connection, &bundle, &text).await.unwrap();
    let swapped = EnrollmentRequest { bundle_id: other.bundle_id, ..request };
    assert_eq!(post(&mut connection, &swapped).await.problem(), ProblemType::Forbidden);
    assert_eq!(lab.count("identities"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_key_is_taken_from_a_request() {
    let lab = Lab::start().await;
    let own = format!("spiffe://{TRUST_DOMAIN}/agent/edge");
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let ca = |params: &mut rcgen::CertificateParams| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    };
    let key = new_key();
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let good = csr(&key);
    let tampered = csr_with_changed_signature(&key);
    let bad = [
        csr_with(&key, |params| params.distinguished_name.push(DnType::CommonName, "edge")),
        csr_with(&key, |params| params.distinguished_name.push(DnType::OrganizationName, "acme")),
        csr_with(&key, |params| params.subject_alt_names = vec![SanType::DnsName("a.b".try_into().unwrap())]),
        csr_with(&key, |params| params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())]),
        csr_with(&key, |params| {
            params.subject_alt_names = vec![SanType::Rfc822Name("a@b".try_into().unwrap())];
        }),
        csr_with(&key, |params| params.subject_alt_names = vec![uri("spiffe://acme.example/agent/core")]),
        csr_with(&key, |params| params.subject_alt_names = vec![uri(&own), uri("https://acme.example")]),
        csr_with(&key, |params| params.subject_alt_names = vec![uri(&own), uri(&own)]),
        csr_with(&key, ca),
        csr_with(&key, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        csr_with(&key, |params| {
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0])];
        }),
        csr(&p521),
        good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        good[..good.len() / 2].to_owned(),
        good.clone() + &good,
        tampered,
        String::new(),
        "x".repeat(9000),
    ];
    for text in bad {
        let answer = enroll(lab.address, &lab.bundle("edge"), &text).await;
        assert_eq!(answer.problem(), ProblemType::CsrRefused, "{text}");
    }
    assert_eq!(lab.count("identities"), 0);
    let named = csr_with(&key, |params| params.subject_alt_names = vec![uri(&own)]);
    for text in [named, csr(&p384), csr(&ed25519)] {
        assert_eq!(enroll(lab.address, &lab.bundle("edge"), &text).await.status, 201, "{text}");
    }
    let seen = enroll(lab.address, &lab.bundle("core"), &good).await;
    assert_eq!(seen.problem(), ProblemType::CsrRefused, "a key of another identity");
}

/// Its last line of base64, which is of the signature, changed.
fn csr_with_changed_signature(key: &KeyPair) -> String {
    let text = csr(key);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    let other = if lines[last].starts_with('A') { "B" } else { "A" };
    lines[last].replace_range(..1, other);
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_knows_the_control_plane_by_its_pin() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let other = Lab::start().await;
    let error = Connection::with_bundle(other.address, &bundle).await.err().unwrap();
    let tls = error.get_ref().unwrap().downcast_ref::<tokio_rustls::rustls::Error>().unwrap();
    assert_eq!(zen_identity::control_refused(tls), Some(zen_identity::ControlRefused::Pin));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_two_kinds_of_clients_do_not_mix() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let agent = Agent::enroll(lab.address, &bundle).await;
    let mut by_svid = agent.connect(lab.address).await.unwrap();
    let answer = by_svid.get(&format!("{NONCE}?bundle_id={}", bundle.bundle_id)).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Forbidden);
    let mut by_bundle = Connection::with_bundle(lab.address, &bundle).await.unwrap();
    for path in [CONFIGURATION, "/agent/v1/configuration?after=0"] {
        assert_eq!(by_bundle.get(path).await.unwrap().problem(), ProblemType::Forbidden);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_nobody_out() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let mut strangers = Vec::new();
    let mut answered = 0;
    for at in 0..32 {
        let mut stranger = Connection::with_seed(lab.address, &bundle, &[at; 32]).await.unwrap();
        answered += usize::from(stranger.get("/healthz").await.is_ok());
        strangers.push(stranger);
    }
    assert_eq!(answered, 16, "as many as have a place");
    let agent = Agent::enroll(lab.address, &bundle).await;
    let mut connections = Vec::new();
    for at in 0..9 {
        let mut connection = agent.connect(lab.address).await.unwrap();
        assert_eq!(connection.get("/healthz").await.is_ok(), at < 8, "connection {at} of one identity");
        connections.push(connection);
    }
    let other = Agent::enroll(lab.address, &lab.bundle("core")).await;
    assert_eq!(other.renewed(lab.address).await.generation, 2);
}
