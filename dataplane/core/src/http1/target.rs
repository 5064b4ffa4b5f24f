//! Request targets (RFC 9112 section 3.2) and the authorities in them and in Host.
//!
//! Accepted: origin-form, absolute-form of `http` and `https`, and `*` for OPTIONS. Refused: other
//! forms, user information, fragments, broken percent-encoding, characters that RFC 3986 leaves out.

use core::ops::Range;

use memchr::memchr;

use super::characters::{is_host_text, is_target_text};
use super::request::Method;

/// Longest host with its port, bytes: a DNS name of 253, a colon, five digits.
const HOST_BYTES_MAX: usize = 259;

/// Why a request target is refused: always the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither origin-form nor absolute-form, nor `*` of OPTIONS.
    #[error("not a target an origin server takes")]
    Form,
    /// A character that no path or query may hold.
    #[error("a character that must be percent-encoded")]
    Character,
    /// `%` without two hex digits.
    #[error("broken percent-encoding")]
    PercentEncoding,
    /// The authority of an absolute-form is not a host with an optional port.
    #[error("not a valid authority")]
    Authority,
}

/// The parts of a target, as places in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetParts {
    authority: (u32, u32),
    path_start: u32,
    path_end: u32,
}

impl TargetParts {
    /// Checks a target that is part of a bounded head.
    pub(super) fn parse(target: &str, method: Method) -> Result<Self, TargetError> {
        if target == "*" && method == Method::Options {
            return Ok(Self { authority: (0, 0), path_start: 0, path_end: 1 });
        }
        let authority = match target.as_bytes().first() {
            Some(b'/') => 0..0,
            _ => find_authority(target)?,
        };
        let rest = &target[authority.end..];
        let rest = rest.as_bytes();
        if !is_target_text(rest) {
            return Err(TargetError::Character);
        }
        if !is_percent_encoded(rest) {
            return Err(TargetError::PercentEncoding);
        }
        let path_end = authority.end + memchr(b'?', rest).unwrap_or(rest.len());
        Ok(Self {
            authority: (authority.start as u32, authority.end as u32),
            path_start: authority.end as u32,
            path_end: path_end as u32,
        })
    }

    /// The host of an absolute-form.
    pub(super) fn authority<'t>(&self, target: &'t str) -> Option<&'t str> {
        let authority = &target[self.authority.0 as usize..self.authority.1 as usize];
        (!authority.is_empty()).then_some(authority)
    }

    pub(super) fn path<'t>(&self, target: &'t str) -> &'t str {
        let path = &target[self.path_start as usize..self.path_end as usize];
        // An absolute-form may leave the path out (RFC 9110 section 4.2.3).
        if path.is_empty() { "/" } else { path }
    }

    pub(super) fn query<'t>(&self, target: &'t str) -> Option<&'t str> {
        target.get(self.path_end as usize + 1..)
    }
}

/// Whether `host` is `uri-host [":" port]`: a name, an IPv4 address or a bracketed address.
pub(super) fn is_host(host: &[u8]) -> bool {
    if host.len() > HOST_BYTES_MAX {
        return false;
    }
    let name_end = match host.first() {
        Some(b'[') => memchr(b']', host).map_or(0, |end| end + 1),
        _ => memchr(b':', host).unwrap_or(host.len()),
    };
    let name_ok = match &host[..name_end] {
        [] => false,
        [b'[', address @ .., b']'] => is_ipv6_text(address),
        name => is_host_text(name) && is_percent_encoded(name),
    };
    let port_ok = match &host[name_end..] {
        [] => true,
        [b':', port @ ..] => is_port(port),
        _ => false,
    };
    name_ok && port_ok
}

/// The characters of an IPv6 address; nothing here resolves it.
fn is_ipv6_text(text: &[u8]) -> bool {
    text.contains(&b':') && text.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
}

fn is_port(port: &[u8]) -> bool {
    (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')) <= 65535
}

fn find_authority(target: &str) -> Result<Range<usize>, TargetError> {
    let (scheme, rest) = target.split_once("://").ok_or(TargetError::Form)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(TargetError::Form);
    }
    let start = scheme.len() + 3;
    let end = start + rest.find(['/', '?', '#']).unwrap_or(rest.len());
    if !is_host(&target.as_bytes()[start..end]) {
        return Err(TargetError::Authority);
    }
    Ok(start..end)
}

fn is_percent_encoded(mut text: &[u8]) -> bool {
    while let Some(at) = memchr(b'%', text) {
        let [high, low, rest @ ..] = &text[at + 1..] else { return false };
        if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
            return false;
        }
        text = rest;
    }
    true
}
