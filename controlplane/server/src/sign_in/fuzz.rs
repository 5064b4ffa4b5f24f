//! What browsers and providers send at sign-in, as arbitrary bytes.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

use super::form::{FORM_BYTES_MAX, encoded, form};
use super::sessions::{SESSION_COOKIE, session_id};
use super::{oidc, pages};

/// Asserts all of it.
pub(crate) fn check(data: &[u8]) {
    check_form(data);
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, value);
        let is_there = data.windows(SESSION_COOKIE.len()).any(|window| window == SESSION_COOKIE.as_bytes());
        assert!(session_id(&headers).is_none() || is_there);
    }
    oidc::fuzz(data);
}

/// What is read can be written, and is read as the same.
fn check_form(data: &[u8]) {
    let Some(fields) = form(data) else { return };
    assert!(data.len() <= FORM_BYTES_MAX);
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    let text = pairs.join("&");
    if text.len() <= FORM_BYTES_MAX {
        assert_eq!(form(text.as_bytes()).as_ref(), Some(&fields));
    }
    for value in fields.values() {
        let next = pages::local_path(value);
        assert!(next.starts_with('/') && !next.starts_with("//") && !next.contains('\\'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_of_each_sample_may_be_another() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dataplane/fuzz/corpus/control_sign_in");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let sample = std::fs::read(entry.unwrap().path()).unwrap();
            for at in 0..sample.len() {
                check(&sample[..at]);
                for byte in [0, b'"', b'%', b'&', b'=', b'.', b';', b'{', 0xff] {
                    let mut changed = sample.clone();
                    changed[at] = byte;
                    check(&changed);
                    count += 1;
                }
            }
        }
        assert!(count > 1000, "the check sees samples: {count}");
    }
}
