//! One certificate: DER in, the fields our rules read out (RFC 5280 section 4).
//!
//! Refused: trailing bytes, and extensions that are doubled or do not parse.

use rustls_pki_types::UnixTime;
use x509_parser::extensions::{GeneralName, KeyUsage};
use x509_parser::prelude::{BasicExtension, FromDer, X509Certificate};

/// The certificate cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// A whole certificate.
pub(crate) struct Certificate<'a>(X509Certificate<'a>);

/// The subjectAltName extension's URIs.
pub(crate) struct Uris<'a> {
    pub(crate) critical: bool,
    pub(crate) uris: Vec<&'a str>,
}

/// The extendedKeyUsage purposes that TLS needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TlsPurposes {
    pub(crate) server: bool,
    pub(crate) client: bool,
}

impl<'a> Certificate<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, Unreadable> {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(Self(certificate)),
            _ => Err(Unreadable),
        }
    }

    /// `None` when the extension is absent.
    pub(crate) fn basic_constraints(&self) -> Result<Option<CertificateAuthority>, Unreadable> {
        let extension = self.0.basic_constraints().map_err(|_| Unreadable)?;
        let Some(extension) = extension else {
            return Ok(None);
        };
        let authority = if extension.value.ca { CertificateAuthority::Yes } else { CertificateAuthority::No };
        Ok(Some(authority))
    }

    /// `None` when the extension is absent.
    pub(crate) fn key_usage(&self) -> Result<Option<BasicExtension<&KeyUsage>>, Unreadable> {
        self.0.key_usage().map_err(|_| Unreadable)
    }

    /// `None` when the extension is absent.
    pub(crate) fn tls_purposes(&self) -> Result<Option<TlsPurposes>, Unreadable> {
        let extension = self.0.extended_key_usage().map_err(|_| Unreadable)?;
        Ok(extension.map(|extension| TlsPurposes {
            server: extension.value.server_auth,
            client: extension.value.client_auth,
        }))
    }

    /// `None` when there is no subjectAltName extension.
    pub(crate) fn uris(&self) -> Result<Option<Uris<'_>>, Unreadable> {
        let Some(extension) = self.0.subject_alternative_name().map_err(|_| Unreadable)? else {
            return Ok(None);
        };
        let mut uris = Vec::new();
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::Invalid(..) => return Err(Unreadable),
                _ => {}
            }
        }
        Ok(Some(Uris { critical: extension.critical, uris }))
    }

    /// In lower case; none where the extension is absent or does not parse.
    pub(crate) fn dns_names(&self) -> Vec<String> {
        let Ok(Some(extension)) = self.0.subject_alternative_name() else { return Vec::new() };
        let names = extension.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        names.collect()
    }

    pub(crate) fn subject_is_empty(&self) -> bool {
        self.0.subject().iter_rdn().next().is_none()
    }

    pub(crate) fn validity(&self) -> Validity {
        Validity {
            not_before: self.0.validity().not_before.timestamp(),
            not_after: self.0.validity().not_after.timestamp(),
        }
    }

    /// Big-endian without leading zeros.
    pub(crate) fn serial(&self) -> &[u8] {
        trim_serial(self.0.raw_serial())
    }

    /// DER of the subjectPublicKeyInfo, outer sequence included.
    pub(crate) fn public_key_info(&self) -> &[u8] {
        self.0.public_key().raw
    }
}

/// The cA flag of basicConstraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateAuthority {
    Yes,
    No,
}

/// Both ends belong to the window (RFC 5280 section 4.1.2.5), seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Validity {
    pub(crate) fn at(&self, now: UnixTime) -> Window {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < self.not_before {
            return Window::Before;
        }
        if now > self.not_after {
            return Window::After;
        }
        Window::Within
    }
}

/// Where a moment lies relative to a validity window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Before,
    Within,
    After,
}

/// Serial numbers compare as numbers: leading zero bytes are DER's sign, not part of them.
pub(crate) fn trim_serial(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_ends_of_a_window_are_inside() {
        let validity = Validity { not_before: 100, not_after: 200 };
        for (second, window) in
            [(99, Window::Before), (100, Window::Within), (200, Window::Within), (201, Window::After)]
        {
            assert_eq!(validity.at(UnixTime::since_unix_epoch(Duration::from_secs(second))), window);
        }
    }
}
