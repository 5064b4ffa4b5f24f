//! Signatures at both ends of the mesh, written from the formats alone and not from the node's code:
//! what a source signs, and what a target must find true of a delivery.
//!
//! Refused as [`Fault`]: a missing, malformed, stale or wrong `zen-signature` or `webhook-signature`
//! (DESIGN section 4; Standard Webhooks 1.0.0).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// How far a signed time may be from now, milliseconds.
pub(crate) const WINDOW_MS: u64 = 300_000;

/// Headers of a delivery that are not forwarded from the source.
const OWN_HEADERS: [&str; 16] = [
    "host",
    "content-type",
    "content-length",
    "user-agent",
    "connection",
    "accept",
    "zen-event-id",
    "zen-endpoint",
    "zen-attempt",
    "zen-hops",
    "traceparent",
    "tracestate",
    "zen-signature",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// What is wrong with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// A header is absent.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header does not parse.
    #[error("header {0} is malformed")]
    Malformed(&'static str),
    /// The signed time is outside the window.
    #[error("header {0} is stale")]
    Stale(&'static str),
    /// The signature is not of these bytes and this key.
    #[error("header {0} does not match")]
    Mismatch(&'static str),
}

/// HMAC-SHA256 over the concatenation of `parts`.
pub(crate) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    running(key, parts).finalize().into_bytes().into()
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    zen_core::id::encode_hex(bytes, &mut text);
    String::from_utf8(text).expect("hex digits are ASCII")
}

/// Base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The key in `whsec_<base64>`, or nothing if it is not that.
pub(crate) fn secret_bytes(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.trim().strip_prefix("whsec_")?).ok()
}

/// The headers of a message, in order, names lower case.
pub(crate) type Headers = [(String, String)];

/// The first value of `name`, lower case.
pub(crate) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|line| line.0 == name).map(|line| line.1.as_str())
}

/// Checks both signatures of a delivery to the target `audience`.
pub(crate) fn check_delivery(
    secret: &[u8],
    audience: &str,
    headers: &Headers,
    body: &[u8],
    now_ms: u64,
) -> Result<(), Fault> {
    check_standard_webhooks(secret, headers, body, now_ms)?;
    check_zen(secret, audience, headers, body, now_ms)
}

fn check_standard_webhooks(secret: &[u8], headers: &Headers, body: &[u8], now_ms: u64) -> Result<(), Fault> {
    let id = required(headers, "webhook-id")?;
    let timestamp = required(headers, "webhook-timestamp")?;
    let signatures = required(headers, "webhook-signature")?;
    let seconds: u64 = timestamp.parse().map_err(|_| Fault::Malformed("webhook-timestamp"))?;
    if (seconds * 1000).abs_diff(now_ms) > WINDOW_MS + 1000 {
        return Err(Fault::Stale("webhook-timestamp"));
    }
    let mac = || running(secret, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    let matches = signatures
        .split(' ')
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .any(|tag| mac().verify_slice(&tag).is_ok());
    if matches { Ok(()) } else { Err(Fault::Mismatch("webhook-signature")) }
}

fn check_zen(
    secret: &[u8],
    audience: &str,
    headers: &Headers,
    body: &[u8],
    now_ms: u64,
) -> Result<(), Fault> {
    const NAME: &str = "zen-signature";
    let fields: Vec<(&str, &str)> = required(headers, NAME)?
        .split(',')
        .map(|field| field.split_once('='))
        .collect::<Option<_>>()
        .ok_or(Fault::Malformed(NAME))?;
    let [("k", key_id), ("t", time), ("n", nonce), tags @ ..] = fields.as_slice() else {
        return Err(Fault::Malformed(NAME));
    };
    let time_ms: u64 = time.parse().map_err(|_| Fault::Malformed(NAME))?;
    if time_ms.abs_diff(now_ms) > WINDOW_MS {
        return Err(Fault::Stale(NAME));
    }
    let event_id = required(headers, "zen-event-id")?;
    let endpoint = required(headers, "zen-endpoint")?;
    let content_type = header(headers, "content-type").unwrap_or("");
    let digest = hex(&sha256(forwarded(headers).as_bytes()));
    let canonical = format!(
        "zen-event-v1\n{key_id}\n{time}\n{nonce}\n{event_id}\n{endpoint}\n{audience}\n{content_type}\n{digest}\n"
    );
    let matches = tags.iter().any(|(name, tag)| {
        let mut bytes = [0; 32];
        *name == "v1"
            && zen_core::id::decode_hex(tag.as_bytes(), &mut bytes).is_ok()
            && running(secret, &[canonical.as_bytes(), body]).verify_slice(&bytes).is_ok()
    });
    if matches { Ok(()) } else { Err(Fault::Mismatch(NAME)) }
}

/// The canonical lines of the source's headers: `name:value LF`, sorted by name.
fn forwarded(headers: &Headers) -> String {
    let mut lines: Vec<&(String, String)> =
        headers.iter().filter(|line| !OWN_HEADERS.contains(&line.0.as_str())).collect();
    lines.sort_by(|left, right| left.0.cmp(&right.0));
    let mut text = String::new();
    for (name, value) in lines {
        zen_core::event::push_header_line(&mut text, name, value);
    }
    text
}

fn required<'a>(headers: &'a Headers, name: &'static str) -> Result<&'a str, Fault> {
    header(headers, name).ok_or(Fault::Missing(name))
}

fn running(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const BODY: &[u8] = br#"{"a":1}"#;

    /// A delivery as the specification describes it, signed here.
    fn delivery() -> Vec<(String, String)> {
        let id = "018bcfe5-6800-7000-8000-000000000001";
        let endpoint = "00112233445566778899aabbccddeeff";
        let nonce = "000102030405060708090a0b0c0d0e0f";
        let digest = hex(&sha256(b"x-a:1\nx-b:2\n"));
        let canonical = format!(
            "zen-event-v1\nbilling-1\n{NOW_MS}\n{nonce}\n{id}\n{endpoint}\nbilling\napplication/json\n{digest}\n"
        );
        let zen = hex(&hmac_sha256(SECRET, &[canonical.as_bytes(), BODY]));
        let standard = base64(&hmac_sha256(SECRET, &[id.as_bytes(), b".1700000000.", BODY]));
        [
            ("host", "127.0.0.1"),
            ("x-b", "2"),
            ("x-a", "1"),
            ("content-type", "application/json"),
            ("zen-event-id", id),
            ("zen-endpoint", endpoint),
            ("zen-signature", &format!("k=billing-1,t={NOW_MS},n={nonce},v1={zen}")),
            ("webhook-id", id),
            ("webhook-timestamp", "1700000000"),
            ("webhook-signature", &format!("v1,AAAA v1,{standard}")),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    #[test]
    fn a_good_delivery_passes_and_each_change_is_named() {
        let check =
            |headers: &Headers, body: &[u8], now_ms| check_delivery(SECRET, "billing", headers, body, now_ms);
        assert_eq!(check(&delivery(), BODY, NOW_MS), Ok(()));
        assert_eq!(check(&delivery(), b"{}", NOW_MS), Err(Fault::Mismatch("webhook-signature")));
        assert_eq!(check(&delivery(), BODY, NOW_MS + 400_000), Err(Fault::Stale("webhook-timestamp")));
        let changes = [
            ("x-a", "2", Fault::Mismatch("zen-signature")),
            ("content-type", "text/plain", Fault::Mismatch("zen-signature")),
            ("zen-endpoint", "ff112233445566778899aabbccddeeff", Fault::Mismatch("zen-signature")),
            ("zen-event-id", "018bcfe5-6800-7000-8000-000000000002", Fault::Mismatch("zen-signature")),
            ("zen-signature", "k=1,t=2", Fault::Malformed("zen-signature")),
            ("webhook-id", "other", Fault::Mismatch("webhook-signature")),
            ("webhook-timestamp", "x", Fault::Malformed("webhook-timestamp")),
        ];
        for (name, value, fault) in changes {
            let mut headers = delivery();
            headers.iter_mut().find(|line| line.0 == name).unwrap().1 = value.to_owned();
            assert_eq!(check(&headers, BODY, NOW_MS), Err(fault), "{name}");
        }
        assert_eq!(
            check_delivery(SECRET, "other", &delivery(), BODY, NOW_MS),
            Err(Fault::Mismatch("zen-signature"))
        );
    }

    #[test]
    fn hmac_is_rfc_4231_case_2() {
        let tag = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&tag), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
