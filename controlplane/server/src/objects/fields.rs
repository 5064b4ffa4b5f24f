//! Fields that several kinds of objects have, and what is asked of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zen_control_api::is_name;
use zen_identity::SpiffePattern;

use super::FieldFault;

/// Longest description, bytes.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Longest URL of a destination, bytes: a path of 2048 behind the longest name of a host.
pub(crate) const URL_BYTES_MAX: usize = 2048 + 320;
/// Most SPIFFE patterns in one list.
pub(crate) const PATTERNS_MAX: usize = 64;

/// How what agents fill in begins.
const PLACEHOLDERS: [&str; 2] = ["{{private_key", "{{link_key"];

/// Where a secret is in the lockd of a cluster: `NAMESPACE/NAME/KEY`, each part 1 to 253 of `A-Z a-z 0-9 . _ -`, no dot first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(example = "edge/webhooks/github")]
pub struct SecretPlace(pub String);

impl SecretPlace {
    /// As a node's configuration names it.
    pub fn reference(&self) -> String {
        format!("lockd:{}", self.0)
    }

    pub(super) fn check(&self, pointer: &str) -> Result<(), FieldFault> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_segment = |text: &str| {
            (1..=253).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_part)
        };
        let parts: Vec<&str> = self.0.split('/').collect();
        if parts.len() != 3 || !parts.iter().all(|part| is_segment(part)) {
            let detail =
                "a secret's place is NAMESPACE/NAME/KEY, each of letters, digits, dots, dashes, underscores";
            return Err(FieldFault::new(pointer, detail));
        }
        if parts[0] == "zen" {
            return Err(FieldFault::new(
                pointer,
                "places below zen/ are the agent's own: take another namespace",
            ));
        }
        Ok(())
    }
}

impl fmt::Display for SecretPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SecretPlace {
    type Err = FieldFault;

    fn from_str(text: &str) -> Result<Self, FieldFault> {
        let place = Self(text.to_owned());
        place.check("").map(|()| place)
    }
}

pub(super) fn check_name(text: &str, pointer: impl Into<String>) -> Result<(), FieldFault> {
    if is_name(text) {
        return Ok(());
    }
    let detail = "a name is 1 to 64 letters, digits, dots, dashes, underscores, and begins with no dot";
    Err(FieldFault::new(pointer, detail))
}

/// A list of names: between `least` and `most`, none twice.
pub(super) fn check_names(
    names: &[String],
    (least, most): (usize, usize),
    pointer: &str,
) -> Result<(), FieldFault> {
    if !(least..=most).contains(&names.len()) {
        return Err(FieldFault::new(pointer, format!("{least} to {most} names")));
    }
    for (index, name) in names.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        if names[..index].contains(name) {
            return Err(FieldFault::new(pointer, "is there twice"));
        }
        check_name(name, pointer)?;
    }
    Ok(())
}

pub(super) fn check_description(text: &str) -> Result<(), FieldFault> {
    if text.len() <= DESCRIPTION_BYTES_MAX {
        return Ok(());
    }
    Err(FieldFault::new("/description", format!("at most {DESCRIPTION_BYTES_MAX} bytes")))
}

/// SPIFFE patterns: an exact id, or a prefix of whole segments that ends in `/*`.
pub(super) fn check_patterns(patterns: &[String], pointer: &str) -> Result<(), FieldFault> {
    if patterns.len() > PATTERNS_MAX {
        return Err(FieldFault::new(pointer, format!("at most {PATTERNS_MAX} patterns")));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        SpiffePattern::parse(pattern)
            .map_err(|error| FieldFault::new(format!("{pointer}/{index}"), error.to_string()))?;
    }
    Ok(())
}

/// `host:port`, where somebody listens or dials.
pub(super) fn check_address(text: &str, pointer: &str) -> Result<(), FieldFault> {
    let is_good = text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_v6 = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_named = bare.map_or_else(|| host.bytes().all(is_host), |host| host.bytes().all(is_v6));
        (1..=255).contains(&host.len()) && is_named && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_good { Ok(()) } else { Err(FieldFault::new(pointer, "host:port, IPv6 in brackets")) }
}

/// Agents put keys into the text of a node, where the control plane wants them and nowhere else.
pub(super) fn check_places(text: &str, pointer: &str) -> Result<(), FieldFault> {
    if PLACEHOLDERS.iter().any(|place| text.contains(place)) {
        return Err(FieldFault::new(pointer, "{{private_key and {{link_key are for agents to fill in"));
    }
    Ok(())
}

/// What a node dials over HTTPS; over plain HTTP only at a unix socket.
pub(super) fn check_url(text: &str, has_unix_socket: bool, pointer: &str) -> Result<(), FieldFault> {
    let refuse = |detail: &str| Err(FieldFault::new(pointer, detail));
    if text.len() > URL_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("at most 2368 bytes of visible ASCII");
    }
    check_places(text, pointer)?;
    if has_unix_socket {
        let is_local = text.starts_with("http://localhost/");
        return if is_local { Ok(()) } else { refuse("http://localhost/path, since it is a unix socket") };
    }
    let Some((authority, _)) = text.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else {
        return refuse("https://host/path or https://host:port/path");
    };
    if authority.contains('@') || text.contains('#') {
        return refuse("no user and no fragment");
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:443") };
    check_address(&address, pointer)
}
