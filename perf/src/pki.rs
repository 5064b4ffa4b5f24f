//! The lab's certificates: a CA with X.509-SVIDs for nodes and targets, and a second CA with the
//! public server certificate of the ingester.
//!
//! In: names. Out: PEM files in one directory, keys with mode 0600 or in memory. P-256 throughout; every SVID has
//! one URI SAN, digitalSignature, both TLS usages and `BasicConstraints` cA=false (SPIFFE X.509-SVID
//! sections 2 to 4). Serials are 128 random bits; certificates live a week.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::error::LabError;
use crate::random::system_bytes;

/// Trust domain of every SVID of the lab.
pub(crate) const TRUST_DOMAIN: &str = "lab.zen-mesh.example";

/// Owner of the ingester's public certificate.
pub(crate) const PUBLIC: &str = "public";

const BACKDATE: Duration = Duration::hours(1);
const LIFE: Duration = Duration::days(7);

/// What a workload is; the first segment of its SPIFFE id's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes webhooks in.
    Ingester,
    /// Delivers them.
    Egress,
    /// Receives deliveries.
    Target,
}

impl Role {
    fn segment(self) -> &'static str {
        match self {
            Self::Ingester => "ingester",
            Self::Egress => "egress",
            Self::Target => "target",
        }
    }
}

/// The SPIFFE id of the workload `name`.
pub(crate) fn spiffe_id(role: Role, name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{}/{name}", role.segment())
}

/// A private key of the lab, in memory.
pub(crate) struct PrivateKey {
    /// Whose it is, as its certificate's file is called.
    pub(crate) owner: String,
    /// PKCS #8 PEM.
    pub(crate) pem: Zeroizing<String>,
}

/// A directory of lab certificates.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// Makes both CAs, the public certificate and an SVID for each workload, and writes the keys beside them.
    pub(crate) fn make(directory: &Path, workloads: &[(Role, &str)]) -> Result<Self, LabError> {
        let (pki, keys) = Self::certify(directory, workloads)?;
        for key in keys {
            write_file(&pki.key(&key.owner), key.pem.as_bytes(), 0o600)?;
        }
        Ok(pki)
    }

    /// What an earlier [`Self::make`] left there.
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// As [`Self::make`], but the keys stay in memory.
    pub(crate) fn certify(
        directory: &Path,
        workloads: &[(Role, &str)],
    ) -> Result<(Self, Vec<PrivateKey>), LabError> {
        fs::create_dir_all(directory).map_err(LabError::file(directory))?;
        let pki = Self { directory: directory.to_owned() };
        let mut keys = Vec::new();
        let lab_ca = pki.authority("bundle", "Zen Mesh lab SVID CA")?;
        for &(role, name) in workloads {
            let uri = spiffe_id(role, name).try_into()?;
            let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            keys.push(pki.leaf(name, vec![SanType::URI(uri)], usages, &lab_ca)?);
        }
        let public_ca = pki.authority("public_ca", "Zen Mesh lab public CA")?;
        let names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        keys.push(pki.leaf(PUBLIC, names, vec![ExtendedKeyUsagePurpose::ServerAuth], &public_ca)?);
        Ok((pki, keys))
    }

    /// The certificate chain of `name`, PEM.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pem"))
    }

    /// The private key of `name`, if keys are written: PKCS #8 PEM, mode 0600.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    /// The trust bundle of the SVIDs.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.certificate("bundle")
    }

    /// The CA of the public certificate.
    pub(crate) fn public_ca(&self) -> PathBuf {
        self.certificate("public_ca")
    }

    /// A self-signed CA; its key stays in memory, so nobody can issue from a lab later.
    fn authority(&self, name: &str, subject: &str) -> Result<Issuer<'static, KeyPair>, LabError> {
        let mut params = parameters(subject);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        write_file(&self.certificate(name), certificate.pem().as_bytes(), 0o644)?;
        Ok(Issuer::new(params, key))
    }

    fn leaf(
        &self,
        name: &str,
        alternative_names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<PrivateKey, LabError> {
        let mut params = parameters(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.subject_alt_names = alternative_names;
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, issuer)?;
        write_file(&self.certificate(name), certificate.pem().as_bytes(), 0o644)?;
        Ok(PrivateKey { owner: name.to_owned(), pem: key.serialize_pem().into() })
    }
}

/// Writes a new file with `mode`, whatever the umask adds.
pub(crate) fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), LabError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .map_err(LabError::file(path))?;
    file.write_all(bytes).map_err(LabError::file(path))
}

fn parameters(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.not_before = OffsetDateTime::now_utc() - BACKDATE;
    params.not_after = OffsetDateTime::now_utc() + LIFE;
    // The top bit stays clear: a serial is a positive INTEGER of at most 20 bytes (RFC 5280 4.1.2.2).
    let mut serial: [u8; 16] = system_bytes();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    /// What an independent reader (openssl) says of a certificate.
    fn openssl(arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn svids_are_as_the_specification_says() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::make(directory.path(), &[(Role::Ingester, "edge-1"), (Role::Target, "demo")]).unwrap();
        let certificate = pki.certificate("edge-1");
        let text = openssl(&["x509", "-noout", "-text", "-in", certificate.to_str().unwrap()]);
        assert!(text.contains("URI:spiffe://lab.zen-mesh.example/ingester/edge-1\n"), "{text}");
        assert!(!text.contains("DNS:"), "{text}");
        assert!(text.contains("CA:FALSE") && text.contains("Key Usage: critical"), "{text}");
        assert!(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"), "{text}");
        let bundle = pki.bundle();
        let verified = openssl(&[
            "verify",
            "-x509_strict",
            "-CAfile",
            bundle.to_str().unwrap(),
            certificate.to_str().unwrap(),
            pki.certificate("demo").to_str().unwrap(),
        ]);
        assert_eq!(verified.matches(": OK").count(), 2);
        let mode = fs::metadata(pki.key("edge-1")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_public_certificate_is_of_the_other_ca() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::make(directory.path(), &[]).unwrap();
        let public = pki.certificate("public");
        let by = |ca: PathBuf| {
            let arguments = ["verify", "-CAfile", ca.to_str().unwrap(), public.to_str().unwrap()];
            Command::new("openssl").args(arguments).output().unwrap().status.success()
        };
        assert!(by(pki.public_ca()));
        assert!(!by(pki.bundle()));
    }
}
