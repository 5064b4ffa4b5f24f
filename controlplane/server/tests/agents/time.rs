//! Where time decides: the same functions as behind the listener, at other times.

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zen_control::{
    Attempt, BundleOrder, Control, Directory, LEAF_LIFE_MS, Refusal, create_bundle, initialize, open_database,
};
use zen_control_api::{EnrollmentAnswer, EnrollmentBundle, EnrollmentProof, EnrollmentRequest, SigningKey};

use crate::client::{csr, new_key};

pub const START_MS: u64 = 1_800_000_000_000;
pub const DAY_MS: u64 = 24 * 3600 * 1000;

pub struct Lab {
    files: tempfile::TempDir,
    pub directory: Directory,
    pub control: Control,
}

impl Lab {
    pub fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let directory = initialize(&files.path().join("state"), "acme.example", "acme", START_MS).unwrap();
        let control = Control::open(&directory).unwrap();
        Self { files, directory, control }
    }

    pub fn state(&self) -> std::path::PathBuf {
        self.files.path().join("state")
    }

    pub fn bundle(&self, name: &str, now_ms: u64) -> EnrollmentBundle {
        let out = self.files.path().join(name);
        let urls = vec!["https://127.0.0.1:1".to_owned()];
        let order = BundleOrder { cluster: "edge", life_ms: 3_600_000, urls, out: &out };
        create_bundle(&self.directory, &mut open_database(&self.directory).unwrap(), &order, now_ms).unwrap();
        EnrollmentBundle::decode(&std::fs::read(&out).unwrap()).unwrap()
    }

    /// What the first handshake with a certificate leaves behind.
    pub fn mark_seen(&self, serial: &[u8], now_ms: u64) {
        let sql = "UPDATE certificates SET seen_at_ms = ?2 WHERE serial = ?1";
        let database = open_database(&self.directory).unwrap();
        assert_eq!(database.execute(sql, (serial, i64::try_from(now_ms).unwrap())).unwrap(), 1);
    }

    /// A nonce at one time, the rest at another.
    pub fn enroll(
        &self,
        bundle: &EnrollmentBundle,
        csr: &str,
        (asked_ms, sent_ms): (u64, u64),
    ) -> Result<EnrollmentAnswer, Refusal> {
        let (client, exporter) = (bundle.key().public().0.0, [7; 32]);
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let nonce = self.control.nonce(&client, bundle.bundle_id, random, asked_ms)?.nonce;
        let binding_key = SigningKey::from_seed([5; 32].into()).public();
        let bundle_id = bundle.bundle_id;
        let proof =
            EnrollmentProof { bundle_id, nonce: &nonce, csr, binding_key: &binding_key, exporter: &exporter };
        let signature = proof.sign(&bundle.key());
        let request = EnrollmentRequest { bundle_id, nonce, csr: csr.to_owned(), binding_key, signature };
        let attempt = Attempt { client: &client, exporter: &exporter, source: "test" };
        self.control.enroll(attempt, &request, sent_ms)
    }
}

fn validity(chain: &str) -> (u64, u64) {
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let ms = |seconds: i64| seconds.unsigned_abs() * 1000;
    (ms(leaf.validity().not_before.timestamp()), ms(leaf.validity().not_after.timestamp()))
}

#[test]
fn a_leaf_lives_36_hours_and_not_longer_than_its_issuer() {
    let lab = Lab::new();
    let answer = lab.enroll(&lab.bundle("a", START_MS), &csr(&new_key()), (START_MS, START_MS)).unwrap();
    assert_eq!(validity(&answer.certificate_chain), (START_MS - 60_000, START_MS + LEAF_LIFE_MS));
    assert_eq!(answer.server_time_ms, START_MS);

    let end = START_MS + 90 * DAY_MS;
    let late = end - DAY_MS;
    let answer = lab.enroll(&lab.bundle("b", late), &csr(&new_key()), (late, late)).unwrap();
    assert_eq!(validity(&answer.certificate_chain), (late - 60_000, end));
    let over = lab.enroll(&lab.bundle("c", end), &csr(&new_key()), (end, end));
    assert!(matches!(over, Err(Refusal::AuthorityOver)));

    let mut database = open_database(&lab.directory).unwrap();
    zen_control::renew_issuing(&lab.directory, &mut database, None, end).unwrap();
    let renewed = Lab { control: Control::open(&lab.directory).unwrap(), ..lab };
    let answer = renewed.enroll(&renewed.bundle("d", end), &csr(&new_key()), (end, end)).unwrap();
    assert_eq!(validity(&answer.certificate_chain).1, end + LEAF_LIFE_MS);
}

#[test]
fn a_nonce_lasts_a_minute_and_a_bundle_its_time() {
    let lab = Lab::new();
    let bundle = lab.bundle("a", START_MS);
    let key = csr(&new_key());
    let slow = lab.enroll(&bundle, &key, (START_MS, START_MS + 60_000));
    assert!(matches!(slow, Err(Refusal::Nonce)));
    let end = START_MS + 3_600_000;
    let first = lab.enroll(&bundle, &key, (end - 30_000, end - 1)).unwrap();
    let again = lab.enroll(&bundle, &key, (end - 1, end - 1)).unwrap();
    assert_eq!(first.certificate_chain, again.certificate_chain);
    assert!(
        matches!(lab.enroll(&bundle, &key, (end - 1, end)), Err(Refusal::BundleOver)),
        "even the same key"
    );
    assert!(matches!(lab.enroll(&bundle, &key, (end, end)), Err(Refusal::BundleOver)));
}

#[test]
fn what_is_over_is_swept_but_its_key_stays_known() {
    let lab = Lab::new();
    let key = csr(&new_key());
    lab.enroll(&lab.bundle("a", START_MS), &key, (START_MS, START_MS)).unwrap();
    let later = START_MS + 2 * DAY_MS;
    lab.control.sweep(later).unwrap();
    let chains: i64 = open_database(&lab.directory)
        .unwrap()
        .query_row("SELECT count(*) FROM certificates WHERE chain <> ''", (), |row| row.get(0))
        .unwrap();
    assert_eq!(chains, 0);
    let again = lab.enroll(&lab.bundle("b", later), &key, (later, later));
    assert!(matches!(again, Err(Refusal::KeySeen)));
}
