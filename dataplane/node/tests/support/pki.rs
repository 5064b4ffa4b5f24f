//! Certificate authorities that live in memory: X.509-SVIDs and public server certificates.

use std::net::{IpAddr, Ipv4Addr};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Trust domain of every SVID.
pub const TRUST_DOMAIN: &str = "test.zen-mesh.example";

/// A CA; every certificate gets a key and a serial of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
pub struct Issued {
    /// The leaf.
    pub certificate: String,
    /// PKCS #8.
    pub key: String,
}

impl Authority {
    /// A self-signed CA.
    pub fn new(subject: &str) -> Self {
        let mut params = parameters(subject);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.pem.clone()
    }

    /// An SVID for `spiffe://TRUST_DOMAIN/PATH`.
    pub fn svid(&self, path: &str) -> Issued {
        self.svid_for(path, Duration::days(2))
    }

    /// An SVID that ends after `life`.
    pub fn svid_for(&self, path: &str, life: Duration) -> Issued {
        let uri = format!("spiffe://{TRUST_DOMAIN}/{path}").try_into().unwrap();
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(path, vec![SanType::URI(uri)], usages, life)
    }

    /// A server certificate for `localhost` and 127.0.0.1.
    pub fn server(&self) -> Issued {
        let names = vec![
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        self.issue("localhost", names, vec![ExtendedKeyUsagePurpose::ServerAuth], Duration::days(2))
    }

    fn issue(
        &self,
        subject: &str,
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        life: Duration,
    ) -> Issued {
        let mut params = parameters(subject);
        params.not_after = OffsetDateTime::now_utc() + life;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.subject_alt_names = names;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn parameters(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(2);
    params
}
