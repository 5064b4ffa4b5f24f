//! SPIFFE ids: text in, a checked id out.
//!
//! Source: SPIFFE-ID sections 2.1 to 2.4. Refused: any scheme but `spiffe`, user information, port,
//! query, fragment, percent-encoding, empty or dot segments, a trailing slash, upper case in scheme
//! or trust domain (section 2.1 lets a reader fold it; we compare bytes and fold nothing).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// Longest SPIFFE id, bytes (SPIFFE-ID section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Longest trust domain name, bytes (SPIFFE-ID section 2.3).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// A SPIFFE id, with or without a path. Equality is by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Box<str>,
    domain_end: usize,
}

impl SpiffeId {
    /// Reads a whole id; nothing is folded or trimmed.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeIdError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(domain)?;
        check_path(path)?;
        Ok(Self { text: text.into(), domain_end: SCHEME.len() + domain.len() })
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name, without scheme.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.domain_end]
    }

    /// The path with its leading slash; empty when there is none.
    pub fn path(&self) -> &str {
        &self.text[self.domain_end..]
    }

    /// The path's segments, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path().split('/').skip(1)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(text)
    }
}

impl AsRef<str> for SpiffeId {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A trust domain's name: 1 to [`TRUST_DOMAIN_BYTES_MAX`] bytes of `[a-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// Reads a bare name, without `spiffe://`.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(text)?;
        Ok(Self(text.into()))
    }

    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(text)
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a text is not a SPIFFE id or trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Over [`SPIFFE_ID_BYTES_MAX`].
    #[error("a SPIFFE id has at most 2048 bytes")]
    TooLong,
    /// Not exactly `spiffe://` in lower case.
    #[error("a SPIFFE id begins with spiffe:// in lower case")]
    Scheme,
    /// Nothing between `//` and the path.
    #[error("the trust domain is empty")]
    TrustDomainEmpty,
    /// Over [`TRUST_DOMAIN_BYTES_MAX`].
    #[error("a trust domain has at most 255 bytes")]
    TrustDomainTooLong,
    /// A byte outside `[a-z0-9._-]`; also user information, port, query and fragment.
    #[error("a trust domain holds only a-z, 0-9, dot, dash and underscore")]
    TrustDomainCharacter,
    /// The last byte is a slash.
    #[error("a SPIFFE id does not end with a slash")]
    TrailingSlash,
    /// Two slashes in a row.
    #[error("a path segment is empty")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("a path segment is . or ..")]
    DotSegment,
    /// A byte outside `[A-Za-z0-9._-]`; also query, fragment and percent-encoding.
    #[error("a path segment holds only letters, digits, dot, dash and underscore")]
    PathCharacter,
}

fn check_trust_domain(domain: &str) -> Result<(), SpiffeIdError> {
    if domain.is_empty() {
        return Err(SpiffeIdError::TrustDomainEmpty);
    }
    if domain.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(SpiffeIdError::TrustDomainTooLong);
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !domain.bytes().all(allowed) {
        return Err(SpiffeIdError::TrustDomainCharacter);
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    if path.ends_with('/') {
        return Err(SpiffeIdError::TrailingSlash);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::DotSegment),
            _ if !segment.bytes().all(allowed) => return Err(SpiffeIdError::PathCharacter),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_specification_are_read() {
        for (text, domain, segments) in [
            (
                "spiffe://staging.example.com/payments/mysql",
                "staging.example.com",
                &["payments", "mysql"][..],
            ),
            (
                "spiffe://k8s-west.example.com/ns/staging/sa/default",
                "k8s-west.example.com",
                &["ns", "staging", "sa", "default"],
            ),
            (
                "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
                "example.com",
                &["9eebccd2-12bf-40a6-b262-65fe0487d453"],
            ),
            ("spiffe://trustdomain", "trustdomain", &[]),
            ("spiffe://0.a-b_c/Path.With-All_1", "0.a-b_c", &["Path.With-All_1"]),
            ("spiffe://trustdomain/...", "trustdomain", &["..."]),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(id.trust_domain(), domain);
            assert_eq!(id.segments().collect::<Vec<_>>(), segments);
        }
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        use SpiffeIdError::{
            DotSegment, EmptySegment, PathCharacter, Scheme, TrailingSlash, TrustDomainCharacter,
            TrustDomainEmpty,
        };
        for (text, error) in [
            ("", Scheme),
            ("s", Scheme),
            ("spiffe:/", Scheme),
            ("spiffe:/path", Scheme),
            ("Spiffe://trustdomain/path", Scheme),
            ("SPIFFE://trustdomain/path", Scheme),
            ("https://trustdomain/path", Scheme),
            (" spiffe://trustdomain/path", Scheme),
            ("spiffe://", TrustDomainEmpty),
            ("spiffe:///path", TrustDomainEmpty),
            ("spiffe://trustDomain/path", TrustDomainCharacter),
            ("spiffe://user@trustdomain/path", TrustDomainCharacter),
            ("spiffe://user:password@trustdomain/path", TrustDomainCharacter),
            ("spiffe://trustdomain:8080/path", TrustDomainCharacter),
            ("spiffe://trustdomain:/path", TrustDomainCharacter),
            ("spiffe://trustdomain?query", TrustDomainCharacter),
            ("spiffe://trustdomain#fragment", TrustDomainCharacter),
            ("spiffe://trust%20domain/path", TrustDomainCharacter),
            ("spiffe://[::1]/path", TrustDomainCharacter),
            ("spiffe://trustdomain\u{e9}/path", TrustDomainCharacter),
            ("spiffe://trustdomain/", TrailingSlash),
            ("spiffe://trustdomain/path/", TrailingSlash),
            ("spiffe://trustdomain//path", EmptySegment),
            ("spiffe://trustdomain/a//b", EmptySegment),
            ("spiffe://trustdomain/./path", DotSegment),
            ("spiffe://trustdomain/a/..", DotSegment),
            ("spiffe://trustdomain/path?query", PathCharacter),
            ("spiffe://trustdomain/path#fragment", PathCharacter),
            ("spiffe://trustdomain/%70ath", PathCharacter),
            ("spiffe://trustdomain/a b", PathCharacter),
            ("spiffe://trustdomain/a\0", PathCharacter),
            ("spiffe://trustdomain/a*", PathCharacter),
            ("spiffe://trustdomain/\u{e9}", PathCharacter),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_exact() {
        let domain = "d".repeat(TRUST_DOMAIN_BYTES_MAX);
        assert!(TrustDomain::parse(&domain).is_ok());
        assert_eq!(TrustDomain::parse(&format!("{domain}d")), Err(SpiffeIdError::TrustDomainTooLong));
        let id = format!("spiffe://td/{}", "p".repeat(SPIFFE_ID_BYTES_MAX - "spiffe://td/".len()));
        assert!(SpiffeId::parse(&id).is_ok());
        assert_eq!(SpiffeId::parse(&format!("{id}p")), Err(SpiffeIdError::TooLong));
    }
}
