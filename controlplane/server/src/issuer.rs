//! Who issues: the CA in this process, or one elsewhere that is asked.

use zen_identity::SpiffeId;

use crate::authority::Issued;
use crate::{AcceptedKey, Authority, Refusal};

/// Makes leaves. What may be issued to whom was decided before; an issuer takes no part in that.
pub(crate) trait Issuer: Send + Sync {
    /// Roots that its leaves lead to, and those that still count or will, PEM.
    fn trust_bundle(&self) -> &str;

    /// A leaf for `id` and `key`. It is asked within the transaction that uses up a bundle or a generation, so that an error
    /// leaves things as they were; one that has to wait for others answers from what it has prepared, or with an error.
    fn issue(&self, id: &SpiffeId, key: &AcceptedKey, now_ms: u64) -> Result<Issued, Refusal>;
}

impl Issuer for Authority {
    fn trust_bundle(&self) -> &str {
        self.trust_bundle()
    }

    fn issue(&self, id: &SpiffeId, key: &AcceptedKey, now_ms: u64) -> Result<Issued, Refusal> {
        self.issue(id, key, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};
    use zen_control_api::{EnrollmentBundle, SigningKey};

    use super::*;
    use crate::database::begin;
    use crate::enrollment::{Enrollment, enroll};
    use crate::{BundleOrder, check_csr, create_bundle, initialize, open_database};

    const NOW_MS: u64 = 1_790_000_000_000;

    /// One that can never answer.
    struct Away;

    impl Issuer for Away {
        fn trust_bundle(&self) -> &'static str {
            ""
        }

        fn issue(&self, _: &SpiffeId, _: &AcceptedKey, _: u64) -> Result<Issued, Refusal> {
            Err(Refusal::Busy)
        }
    }

    #[test]
    fn an_issuer_that_is_away_uses_nothing_up() {
        let files = tempfile::tempdir().unwrap();
        let directory = initialize(&files.path().join("control"), "acme.example", "acme", NOW_MS).unwrap();
        let mut database = open_database(&directory).unwrap();
        let out = files.path().join("bundle");
        let urls = vec!["https://localhost:1".to_owned()];
        let order = BundleOrder { cluster: "edge", life_ms: 3_600_000, urls, out: &out };
        let bundle_id = create_bundle(&directory, &mut database, &order, NOW_MS).unwrap();
        let bundle = EnrollmentBundle::decode(&std::fs::read(&out).unwrap()).unwrap();
        let client = bundle.key().public();

        let id = SpiffeId::parse("spiffe://acme.example/agent/edge").unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let keys = [0, 1].map(|_| {
            let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
            check_csr(&request.pem().unwrap(), &id).unwrap()
        });
        let binding_key = SigningKey::generate().public();
        let enrollment = |key| Enrollment {
            bundle_id,
            client: &client.0.0,
            id: &id,
            key,
            binding_key: &binding_key,
            source: "a test",
        };
        let refused = enroll(begin(&mut database).unwrap(), &Away, &enrollment(&keys[0]), NOW_MS);
        assert!(matches!(refused, Err(Refusal::Busy)));
        let authority = Authority::load(&directory).unwrap();
        let given = enroll(begin(&mut database).unwrap(), &authority, &enrollment(&keys[1]), NOW_MS).unwrap();
        assert_eq!(given.answer(&authority, NOW_MS).generation, 1, "another key may use the bundle");
    }
}
