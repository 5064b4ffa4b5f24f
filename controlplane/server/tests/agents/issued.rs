//! What is issued, as an independent reader (openssl) sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::client::Agent;
use crate::lab::{Lab, TRUST_DOMAIN};

fn openssl(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_are_valid_to_others() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let files = tempfile::tempdir().unwrap();
    let state = lab.state();
    let mut chain = agent.chain.split_inclusive("-----END CERTIFICATE-----\n");
    fs::write(files.path().join("leaf.pem"), chain.next().unwrap()).unwrap();
    fs::write(files.path().join("issuing.pem"), chain.next().unwrap()).unwrap();
    assert_eq!(chain.next(), None, "the root is in the trust bundle");
    fs::copy(state.join("root.pem"), files.path().join("root.pem")).unwrap();

    let verified = openssl(
        files.path(),
        &["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"],
    );
    assert_eq!(verified, "leaf.pem: OK\n");
    for purpose in ["sslserver", "sslclient"] {
        let arguments = [
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            "root.pem",
            "-untrusted",
            "issuing.pem",
        ];
        assert_eq!(
            openssl(files.path(), &[&arguments[..], &["leaf.pem"]].concat()),
            "leaf.pem: OK\n",
            "{purpose}"
        );
    }
    let leaf = openssl(files.path(), &["x509", "-noout", "-text", "-in", "leaf.pem"]);
    assert!(leaf.contains(&format!("URI:spiffe://{TRUST_DOMAIN}/agent/edge\n")), "{leaf}");
    for text in [
        "X509v3 Subject Alternative Name: critical",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(leaf.contains(text), "{text}: {leaf}");
    }
    assert!(!leaf.contains("DNS:"), "{leaf}");
    for (file, length) in [("root.pem", "CA:TRUE, pathlen:1"), ("issuing.pem", "CA:TRUE, pathlen:0")] {
        let text = openssl(files.path(), &["x509", "-noout", "-text", "-in", file]);
        assert!(
            text.contains(&format!("X509v3 Basic Constraints: critical\n                {length}\n")),
            "{text}"
        );
        assert!(
            text.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n"),
            "{text}"
        );
    }
    let serials = ["leaf.pem", "issuing.pem", "root.pem"]
        .map(|file| openssl(files.path(), &["x509", "-noout", "-serial", "-in", file]));
    for serial in &serials {
        assert_eq!(serial.trim().len(), "serial=".len() + 34, "a one and 128 random bits: {serial}");
    }
    assert!(serials[0] != serials[1] && serials[1] != serials[2]);
}

/// The crate `spiffe` reads what we issue as we do: who it is for, and whom an agent trusts.
#[tokio::test(flavor = "multi_thread")]
async fn chains_and_roots_are_svids_and_bundles_to_others() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let der = |pem: &str| -> Vec<Vec<u8>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).map(|read| read.unwrap().to_vec()).collect()
    };
    let key = PrivateKeyDer::from_pem_slice(agent.key.as_bytes()).unwrap();
    let svid = spiffe::X509Svid::parse_from_der(&der(&agent.chain).concat(), key.secret_der()).unwrap();
    assert_eq!(svid.spiffe_id().to_string(), format!("spiffe://{TRUST_DOMAIN}/agent/edge"));
    assert_eq!(svid.cert_chain().len(), 2);

    let roots = der(&fs::read_to_string(lab.state().join("root.pem")).unwrap());
    let domain = spiffe::TrustDomain::new(TRUST_DOMAIN).unwrap();
    let bundle = spiffe::X509Bundle::parse_from_der(domain, &roots.concat()).unwrap();
    let theirs: Vec<&[u8]> = bundle.authorities().iter().map(spiffe::Certificate::as_bytes).collect();
    assert_eq!(theirs, roots);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_for_their_owner() {
    let lab = Lab::start().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = lab.state();
    assert_eq!(mode(&state), 0o700);
    for (name, expected) in [
        ("root.key", 0o400),
        ("issuing.key", 0o400),
        ("configuration.key", 0o400),
        ("server.pem", 0o600),
        ("control.db", 0o600),
        ("control.db-wal", 0o600),
        ("root.pem", 0o644),
        ("issuing.pem", 0o644),
    ] {
        assert_eq!(mode(&state.join(name)), expected, "{name}");
    }
    let seed = lab.bundle("edge").key();
    let database =
        [fs::read(state.join("control.db")).unwrap(), fs::read(state.join("control.db-wal")).unwrap()];
    let has = |bytes: &[u8]| database.iter().any(|file| file.windows(32).any(|window| window == bytes));
    assert!(has(&seed.public().0.0), "the canary: what is kept is found");
    assert!(!has(seed.seed()), "the seed is not kept");
}
