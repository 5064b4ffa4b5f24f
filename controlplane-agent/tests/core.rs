//! The agent's decisions, as tables: a control plane that lies, bundles, clocks, alarms.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rcgen::PublicKeyData;
use support::{AGENT_ID, Authority, HOUR_MS, NOW_MS, TRUST_DOMAIN, configuration, enrolled, public_key};
use zen_agent::core::{
    Acceptance, Alarm, Begun, CLOCK_REFUSED_MS, CertificateFault, EnrolledWith, Enrolling, EnrollmentRefused,
    Known, Now, Pending, Refusal, check_certificate,
};
use zen_control_api::{
    Base64, CaPin, Configuration, ConfigurationError, EnrollmentAnswer, EnrollmentBundle, EnrollmentProof,
    Hex16, NonceAnswer, SealedSecret, SignedConfiguration, SigningKey,
};
use zen_identity::SvidError;

const NOW: Now = Now { wall_ms: NOW_MS, steady_ms: 1000 };

/// An agent that has enrolled, and whoever signs its configurations.
struct Side {
    signer: SigningKey,
    authority: Authority,
    chain: String,
}

impl Side {
    fn new() -> Self {
        let (signer, authority) = (SigningKey::generate(), Authority::new());
        let chain = authority.certify(&public_key(), AGENT_ID, NOW_MS);
        Self { signer, authority, chain }
    }

    fn configuration(&self, version: u64) -> Configuration {
        configuration(version, &self.authority.roots())
    }

    fn acceptance(&self, in_force: u64) -> Acceptance {
        Acceptance::new(enrolled(&self.signer), in_force)
    }
}

#[test]
fn configurations_are_taken_in_order_and_only_from_their_signer() {
    let side = Side::new();
    let mut acceptance = side.acceptance(3);
    let mut take = |signed: &SignedConfiguration| {
        let taken = acceptance.handle_configuration(signed, &side.chain, NOW);
        (taken.map(|read| read.version), acceptance.in_force())
    };
    let sign = |configuration: &Configuration| SignedConfiguration::sign(configuration, &side.signer);
    let signature = Err(Refusal::Configuration(ConfigurationError::Signature));
    let older = |version, in_force| Err(ConfigurationError::Older { version, in_force }.into());

    assert_eq!(take(&sign(&side.configuration(4))), (Ok(4), 4));
    assert_eq!(take(&sign(&side.configuration(4))), (older(4, 4), 4), "the same again");
    assert_eq!(take(&sign(&side.configuration(2))), (older(2, 4), 4), "a step back");
    let forged = SignedConfiguration::sign(&side.configuration(9), &SigningKey::generate());
    assert_eq!(take(&forged), (signature.clone(), 4), "somebody else's signature");
    let mut changed = sign(&side.configuration(9));
    changed.text = changed.text.replace("\"entries\":[]", "\"entries\":[1]");
    let changed = SignedConfiguration { text: changed.text.replace("[]", "[ ]"), ..changed };
    assert_eq!(take(&changed), (signature.clone(), 4), "a text that was changed");
    let mut cut = sign(&side.configuration(9));
    cut.text.pop();
    assert_eq!(take(&cut), (signature, 4), "a text that was cut");
    let elsewhere = Configuration { cluster: "core".to_owned(), ..side.configuration(9) };
    let refused = ConfigurationError::Elsewhere { tenant: "acme".to_owned(), cluster: "core".to_owned() };
    assert_eq!(take(&sign(&elsewhere)), (Err(refused.into()), 4), "another cluster's");
    let elsewhere = Configuration { tenant: "other".to_owned(), ..side.configuration(9) };
    assert!(matches!(take(&sign(&elsewhere)), (Err(Refusal::Configuration(_)), 4)), "another tenant's");
    assert_eq!(take(&sign(&side.configuration(5))), (Ok(5), 5), "and then the next one");
}

#[test]
fn a_configuration_that_cuts_us_off_is_not_taken() {
    let side = Side::new();
    let take = |configuration: &Configuration, now: Now| {
        let signed = SignedConfiguration::sign(configuration, &side.signer);
        side.acceptance(0).handle_configuration(&signed, &side.chain, now).map(|read| read.version)
    };
    for name in ["zen/agent/key-1", "zen/edge-1/key-9", "zen/x/y"] {
        let mut own = side.configuration(1);
        own.secrets.insert(name.to_owned(), SealedSecret("AAEC".to_owned()));
        assert_eq!(take(&own, NOW), Err(Refusal::OwnNamespace(name.to_owned())));
    }
    let mut malformed = side.configuration(1);
    malformed.secrets.insert("edge/a/b".to_owned(), SealedSecret("no base64".to_owned()));
    assert_eq!(take(&malformed, NOW), Err(Refusal::Secret("edge/a/b".to_owned())));
    for roots in [String::new(), "no PEM".to_owned(), Authority::new().roots()] {
        let other = Configuration { trust_bundle: roots, ..side.configuration(1) };
        assert!(matches!(take(&other, NOW), Err(Refusal::TrustBundle(_))));
    }
    let both = format!("{}{}", Authority::new().roots(), side.authority.roots());
    let both = Configuration { trust_bundle: both, ..side.configuration(1) };
    assert_eq!(take(&both, NOW), Ok(1), "a CA that changes");
    let over = Now { wall_ms: NOW_MS + 40 * HOUR_MS, ..NOW };
    assert_eq!(take(&side.configuration(1), over), Ok(1), "our end is no fault of the configuration");
}

#[test]
fn an_alarm_is_raised_once_for_each_reason_and_again_while_it_stays() {
    let mut alarm = Alarm::default();
    let at = |steady_ms| Now { steady_ms, ..NOW };
    assert!(alarm.handle_fault("a", at(0)) && !alarm.handle_fault("a", at(599_999)));
    assert!(alarm.handle_fault("a", at(600_000)) && !alarm.handle_fault("a", at(600_001)));
    assert!(alarm.handle_fault("b", at(600_002)));
    alarm.handle_success();
    assert!(alarm.handle_fault("b", at(600_003)), "it was gone meanwhile");
}

fn bundle(id: u8, cluster: &str) -> EnrollmentBundle {
    let places = (vec!["https://control.example:8444".to_owned()], vec![CaPin([7; 32])]);
    let names = (Hex16([id; 16]), "acme", cluster);
    let configuration_key = SigningKey::generate().public();
    let expires_at_ms = NOW_MS + HOUR_MS;
    EnrollmentBundle::new(
        &SigningKey::generate(),
        names,
        TRUST_DOMAIN,
        places,
        configuration_key,
        expires_at_ms,
    )
    .unwrap()
}

#[test]
fn an_enrollment_begins_where_the_last_one_ended() {
    let own = Some(EnrolledWith { bundle_id: Hex16([1; 16]), ..enrolled(&SigningKey::generate()) });
    let pending = |id, key| Some(Pending { bundle_id: Hex16([id; 16]), key });
    let cases = [
        ("nothing yet", None, None, vec![], Begun::KeyNeeded(1)),
        ("killed before it was said which key", None, None, vec![1], Begun::KeyNeeded(2)),
        ("killed after that", None, pending(1, 1), vec![1], Begun::KeySealed(1)),
        ("another bundle", None, pending(2, 1), vec![1], Begun::KeyNeeded(2)),
        ("the sealed key is lost", None, pending(1, 3), vec![1], Begun::KeyNeeded(2)),
        ("done", own.clone(), None, vec![1], Begun::Enrolled),
        ("done, and killed before the end", own.clone(), pending(1, 1), vec![1], Begun::Enrolled),
    ];
    for (what, enrolled, pending, keys, expected) in cases {
        let known = Known { enrolled, pending, keys };
        assert_eq!(known.begin(&bundle(1, "edge"), NOW), Ok(expected), "{what}");
    }
    let known = Known { enrolled: own, pending: None, keys: vec![1, 2] };
    assert_eq!(known.begin(&bundle(9, "edge"), NOW), Ok(Begun::KeyNeeded(3)), "a new bundle, a new key");
    let elsewhere = known.begin(&bundle(9, "core"), NOW);
    assert!(matches!(elsewhere, Err(EnrollmentRefused::Elsewhere { .. })));
    let late = Now { wall_ms: NOW_MS + 2 * HOUR_MS, ..NOW };
    assert_eq!(Known::default().begin(&bundle(1, "edge"), late), Err(EnrollmentRefused::Expired(HOUR_MS)));
}

#[test]
fn a_clock_that_is_minutes_off_does_not_enroll() {
    let bundle = bundle(1, "edge");
    let binding = SigningKey::generate().public();
    let key = public_key();
    let enrolling = Enrolling::new(&bundle, ("csr".to_owned(), key.subject_public_key_info()), binding);
    let asked = |server_time_ms| {
        let answer = NonceAnswer { nonce: Base64([5; 32]), server_time_ms };
        enrolling.handle_nonce(&answer, &[6; 32], NOW)
    };
    for server_ms in [NOW_MS - CLOCK_REFUSED_MS, NOW_MS, NOW_MS + CLOCK_REFUSED_MS] {
        let request = asked(server_ms).unwrap();
        let proof = EnrollmentProof {
            bundle_id: Hex16([1; 16]),
            nonce: &Base64([5; 32]),
            csr: "csr",
            binding_key: &binding,
            exporter: &[6; 32],
        };
        assert_eq!(proof.verify(&bundle.key().public(), &request.signature), Ok(()));
    }
    for server_ms in [NOW_MS - CLOCK_REFUSED_MS - 1, NOW_MS + CLOCK_REFUSED_MS + 1, 0, u64::MAX] {
        let error = asked(server_ms).unwrap_err();
        assert!(matches!(error, EnrollmentRefused::Clock(_)));
        let text = error.to_string();
        let numbers = [NOW_MS.to_string(), server_ms.to_string()];
        assert!(text.contains("clock_skew") && numbers.iter().all(|number| text.contains(number)), "{text}");
    }
}

#[test]
fn an_answer_that_is_not_ours_is_not_installed() {
    let (authority, bundle, key) = (Authority::new(), bundle(1, "edge"), public_key());
    let answered = |chain: String, roots: String, now: Now| {
        let request = ("csr".to_owned(), key.subject_public_key_info());
        let enrolling = Enrolling::new(&bundle, request, SigningKey::generate().public());
        let (certificate_chain, trust_bundle) = (chain, roots);
        let answer =
            EnrollmentAnswer { certificate_chain, trust_bundle, generation: 1, server_time_ms: NOW_MS };
        enrolling.handle_answer(&answer, now).map_err(|error| match error {
            EnrollmentRefused::Certificate(fault) => fault,
            other => panic!("{other}"),
        })
    };
    let good = || authority.certify(&key, AGENT_ID, NOW_MS);
    let (enrolled, certificate) = answered(good(), authority.roots(), NOW).unwrap();
    assert_eq!((enrolled.cluster.as_str(), certificate.spiffe_id.as_str()), ("edge", AGENT_ID));
    assert_eq!(certificate.validity.not_after_ms, NOW_MS + 36 * HOUR_MS);

    let late = Now { wall_ms: NOW_MS + 37 * HOUR_MS, ..NOW };
    let early = Now { wall_ms: NOW_MS - 2000, ..NOW };
    let by_another = Authority::new().certify(&key, AGENT_ID, NOW_MS);
    let other_id = "spiffe://acme.example/agent/core";
    let foreign = "spiffe://other.example/agent/edge";
    for (what, chain, roots, now, expected) in [
        ("over", good(), authority.roots(), late, CertificateFault::Svid(SvidError::Expired)),
        ("not yet", good(), authority.roots(), early, CertificateFault::Svid(SvidError::NotYetValid)),
        ("no root", good(), String::new(), NOW, CertificateFault::Bundle(String::new())),
        ("not PEM", "x".to_owned(), authority.roots(), NOW, CertificateFault::Svid(SvidError::EmptyChain)),
        ("another CA", by_another, authority.roots(), NOW, CertificateFault::Svid(SvidError::Signature)),
        (
            "another key",
            authority.certify(&public_key(), AGENT_ID, NOW_MS),
            authority.roots(),
            NOW,
            CertificateFault::Key,
        ),
        (
            "another id",
            authority.certify(&key, other_id, NOW_MS),
            authority.roots(),
            NOW,
            CertificateFault::Id { expected: AGENT_ID.to_owned(), found: other_id.to_owned() },
        ),
        (
            "another domain",
            authority.certify(&key, foreign, NOW_MS),
            authority.roots(),
            NOW,
            CertificateFault::Svid(SvidError::UnknownTrustDomain),
        ),
    ] {
        let found = answered(chain, roots, now).unwrap_err();
        match (&found, &expected) {
            (CertificateFault::Bundle(_), CertificateFault::Bundle(_)) => {}
            _ => assert_eq!(found, expected, "{what}"),
        }
    }
    assert!(check_certificate(&good(), &authority.roots(), "Not A Domain", NOW_MS).is_err());
}
