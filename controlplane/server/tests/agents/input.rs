//! What may come over the wire: sizes, types, encodings. Each is a problem by its type, none is our fault, and the next
//! request is answered.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType};
use zen_control_api::{CERTIFICATES, CONFIGURATION, ENROLL, NONCE, ProblemType, STATUS};

use crate::client::{Agent, Answer, Connection, trusting};
use crate::lab::Lab;

const BODIES: [&[u8]; 14] = [
    b"",
    b"null",
    b"[]",
    b"1",
    b"\"\"",
    b"{}",
    b"{",
    b"{\"a\":1}",
    b"\xff\xfe",
    b"\0\0\0\0",
    b"{\"generation\":\"'; DROP TABLE bundles; --\"}",
    b"{\"bundle_id\":\"<script>alert(1)</script>\"}",
    b"{\"csr\":\"\",\"generation\":-1}",
    b"{\"csr\":\"\",\"generation\":1,\"csr\":\"\"}",
];

fn assert_is(answer: &Answer, problem: ProblemType, what: &[u8]) {
    assert_eq!(answer.problem(), problem, "{}", String::from_utf8_lossy(what));
    let text = String::from_utf8(answer.body.clone()).unwrap();
    assert!(!text.contains("script") && !text.contains("DROP"), "nothing is echoed: {text}");
}

/// Replaces one value after another of a good body.
fn spoiled(good: &serde_json::Value) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let fields: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
    for field in fields {
        for value in ["null", "[]", "{}", "-1", "1.5", "1e999", "18446744073709551616", "true", "\"\\u0000\""]
        {
            let text = good.to_string();
            let from = format!("\"{field}\":{}", good[&field]);
            assert!(text.contains(&from));
            let changed = text.replace(&from, &format!("\"{field}\":{value}"));
            if changed != text {
                all.push(changed.into_bytes());
            }
        }
        let mut lacking = good.clone();
        lacking.as_object_mut().unwrap().remove(&field);
        all.push(lacking.to_string().into_bytes());
    }
    let mut more = good.clone();
    more["more"] = 1.into();
    all.push(more.to_string().into_bytes());
    all.push(format!("{good} x").into_bytes());
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_of_agents() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let certificate = serde_json::json!({ "csr": "x", "generation": 1 });
    let status = serde_json::json!({ "agent_version": "1", "configuration": 1, "members": {} });
    for (route, good) in [(CERTIFICATES, certificate), (STATUS, status)] {
        let mut connection = agent.connect(lab.address).await.unwrap();
        for body in BODIES.into_iter().map(<[u8]>::to_vec).chain(spoiled(&good)) {
            let answer = connection.post(route, &body).await.unwrap();
            // A text is a text, even this one.
            let is_text = String::from_utf8_lossy(&body).contains("\\u0000");
            match answer.status {
                204 => assert!(is_text && route == STATUS, "{}", String::from_utf8_lossy(&body)),
                _ if is_text && answer.problem() == ProblemType::CsrRefused => {}
                _ => assert_is(&answer, ProblemType::Malformed, &body),
            }
        }
        assert_eq!(connection.get("/healthz").await.unwrap().status, 200);
        let deep = [b"{\"members\":".to_vec(), b"[".repeat(10_000)].concat();
        assert_is(&connection.post(route, &deep).await.unwrap(), ProblemType::Malformed, b"deep");
        let long = vec![b' '; 300 * 1024];
        let mut connection = agent.connect(lab.address).await.unwrap();
        let answer = connection.post(route, &long).await.unwrap();
        assert_eq!((answer.status, answer.problem()), (413, ProblemType::TooLarge));
    }
    let member = serde_json::json!({ "outcome": { "outcome": "applied", "version": 1 }, "certificate_not_after_ms": 1 });
    let members: serde_json::Map<String, serde_json::Value> =
        (0..257).map(|at| (at.to_string(), member.clone())).collect();
    let many = serde_json::json!({ "agent_version": "1", "configuration": 1, "members": members });
    let mut connection = agent.connect(lab.address).await.unwrap();
    let answer = connection.post(STATUS, many.to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_enrollments() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let mut connection = Connection::with_bundle(lab.address, &bundle).await.unwrap();
    let request = crate::client::enrollment_request(&mut connection, &bundle, "x").await.unwrap();
    let good = serde_json::to_value(&request).unwrap();
    for body in BODIES.into_iter().map(<[u8]>::to_vec).chain(spoiled(&good)) {
        let answer = connection.post(ENROLL, &body).await.unwrap();
        // A text is a text: this one is no request for a certificate, and not the one that was signed.
        let expected = match answer.status {
            403 => ProblemType::ProofRefused,
            _ => ProblemType::Malformed,
        };
        assert_is(&answer, expected, &body);
    }
    for query in [
        "",
        "?",
        "?bundle_id",
        "?bundle_id=",
        "?bundle_id=%00",
        "?bundle_id=' OR 1=1",
        "?id=0",
        "?bundle_id=0&x=1",
    ] {
        let answer = connection.get(&format!("{NONCE}{}", query.replace(' ', "+"))).await.unwrap();
        assert_is(&answer, ProblemType::Malformed, query.as_bytes());
    }
    let long = vec![b'['; 64 * 1024];
    let answer = connection.post(ENROLL, &long).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::TooLarge);
    assert_eq!(lab.count("identities"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_routes_and_queries() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let mut connection = agent.connect(lab.address).await.unwrap();
    for query in [
        "",
        "?",
        "?after",
        "?after=",
        "?after=-1",
        "?after=+1",
        "?after=1.0",
        "?after=0x1",
        "?before=1",
        "?after=18446744073709551616",
        "?after=1&after=2",
        "?after=%31",
        "?after='",
    ] {
        let answer = connection.get(&format!("{CONFIGURATION}{query}")).await.unwrap();
        assert_is(&answer, ProblemType::Malformed, query.as_bytes());
    }
    for (method, path) in [
        ("GET", "/"),
        ("POST", "/"),
        ("PUT", STATUS),
        ("DELETE", CONFIGURATION),
        ("GET", STATUS),
        ("GET", "/agent/v1/configuration/"),
        ("GET", "/agent/v1/../v1/configuration?after=0"),
        ("GET", "//healthz"),
        ("GET", "/%00"),
        ("OPTIONS", "*"),
        ("BREW", "/healthz"),
        ("GET", "/<script>"),
    ] {
        connection.send(method, path, b"").await.unwrap();
        let answer = connection.answer().await.unwrap();
        if answer.status == 400 && answer.body.is_empty() {
            // Not a request line at all: hyper's own answer, and the end of the connection.
            connection = agent.connect(lab.address).await.unwrap();
            continue;
        }
        assert_is(&answer, ProblemType::NotFound, path.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_good_certificate_is_not_answered() {
    let lab = Lab::start().await;
    let other = Lab::start().await;
    // The same name, another root.
    let stranger = Agent::enroll(other.address, &other.bundle("edge")).await;
    let own = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let self_signed = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI("spiffe://acme.example/agent/edge".try_into().unwrap())];
        (params.self_signed(&key).unwrap().pem(), key)
    };
    let (p256, p256_key) = self_signed(&PKCS_ECDSA_P256_SHA256);
    let (ed25519, ed25519_key) = self_signed(&PKCS_ED25519);
    let ask = |config| async {
        let mut connection = Connection::open(lab.address, config).await?;
        connection.get("/healthz").await
    };
    for (who, config) in [
        ("nobody", trusting(None)),
        ("another root's", trusting(Some((&stranger.chain, &stranger.key)))),
        ("a self-signed P-256", trusting(Some((&p256, &p256_key.serialize_pem())))),
        ("a leaf without its issuer", trusting(Some((&leaf_of(&own.chain), &own.key)))),
    ] {
        assert!(ask(config).await.is_err(), "{who}");
    }
    for (who, config) in [
        ("our agent", trusting(Some((&own.chain, &own.key)))),
        ("a key", trusting(Some((&ed25519, &ed25519_key.serialize_pem())))),
    ] {
        assert_eq!(ask(config).await.unwrap().status, 200, "{who}");
    }
    let config = trusting(Some((&ed25519, &ed25519_key.serialize_pem())));
    let mut connection = Connection::open(lab.address, config).await.unwrap();
    let answer = connection.get(&format!("{CONFIGURATION}?after=0")).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Forbidden, "a name in a self-signed certificate is nobody's");
}

fn leaf_of(chain: &str) -> String {
    chain.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_held_is_no_fault() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let mut connection = agent.connect(lab.address).await.unwrap();
    connection.get("/healthz").await.unwrap();
    let held = lab.database();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let report = serde_json::json!({ "agent_version": "1", "configuration": 1, "members": {} });
    let answer = connection.post(STATUS, report.to_string().as_bytes()).await.unwrap();
    assert_eq!((answer.status, answer.problem()), (429, ProblemType::Busy));
    held.execute_batch("COMMIT").unwrap();
    let answer = connection.post(STATUS, report.to_string().as_bytes()).await.unwrap();
    assert_eq!(answer.status, 204);
}
