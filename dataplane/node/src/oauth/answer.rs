//! What a token server answered (RFC 6749 sections 5.1 and 5.2): pure, with bounds.

use serde::Deserialize;
use zen_core::deliver::Credentials;
use zeroize::Zeroizing;

/// Life of a token whose server does not say, s.
const DEFAULT_LIFE_S: u64 = 300;
/// Longest life that is believed, s: a day.
const LIFE_S_MAX: u64 = 86_400;
/// Longest error code that is shown, bytes.
const CODE_BYTES_MAX: usize = 64;

/// A token and its life.
#[derive(Debug)]
pub struct Granted {
    /// The token.
    pub credentials: Credentials,
    /// How long it is valid, s.
    pub life_s: u64,
}

/// Why an answer holds no token that we can use. None of them shows what was sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server refused; its code says why.
    #[error("the token server refused with {status}, error \"{code}\"")]
    Refused {
        /// Status code.
        status: u16,
        /// `error`, if it is one.
        code: String,
    },
    /// Not JSON, or not the members that are needed.
    #[error("the token server answered {0} without a token in JSON")]
    NotJson(u16),
    /// Another type than `Bearer`.
    #[error("the token is not of the type Bearer")]
    TokenType,
    /// It cannot be a header.
    #[error("the token cannot be sent: {0}")]
    Token(#[from] zen_core::deliver::CredentialsError),
    /// It is over at once.
    #[error("the token expires in 0 seconds")]
    Expired,
}

#[derive(Deserialize)]
struct Success {
    access_token: Secret,
    token_type: String,
    expires_in: Option<u64>,
}

/// Wiped when dropped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

/// Reads an answer.
pub fn read(status: u16, body: &[u8]) -> Result<Granted, AnswerError> {
    if status != 200 {
        let code = serde_json::from_slice(body).map(|failure: Failure| failure.error).unwrap_or_default();
        let is_code =
            code.len() <= CODE_BYTES_MAX && code.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
        return Err(AnswerError::Refused { status, code: if is_code { code } else { String::new() } });
    }
    let answer: Success = serde_json::from_slice(body).map_err(|_| AnswerError::NotJson(status))?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(AnswerError::TokenType);
    }
    let life_s = answer.expires_in.unwrap_or(DEFAULT_LIFE_S).min(LIFE_S_MAX);
    if life_s == 0 {
        return Err(AnswerError::Expired);
    }
    Ok(Granted { credentials: Credentials::bearer(&answer.access_token.0)?, life_s })
}

/// When to ask for the next: at 80 % of its life.
pub fn renew_after_ms(life_s: u64) -> u64 {
    life_s * 800
}

/// Appends `application/x-www-form-urlencoded` text (RFC 6749 appendix B).
pub fn push_form(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => write!(out, "%{byte:02X}").expect("a string takes any text"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_life() {
        for (rest, life_s) in [
            (",\"expires_in\":3600", 3600),
            (",\"expires_in\":1,\"scope\":\"a b\",\"refresh_token\":\"x\"", 1),
            ("", DEFAULT_LIFE_S),
            (",\"expires_in\":18446744073709551615", LIFE_S_MAX),
        ] {
            let body =
                format!("{{\"access_token\":\"2YotnFZFEjr1zCsicMWpAA\",\"token_type\":\"BEARER\"{rest}}}");
            assert_eq!(read(200, body.as_bytes()).unwrap().life_s, life_s, "{rest}");
        }
        assert_eq!((renew_after_ms(100), renew_after_ms(LIFE_S_MAX)), (80_000, 69_120_000));
    }

    #[test]
    fn answers_without_a_token_name_their_fault_and_show_nothing() {
        let good = r#"{"access_token":"SECRET","token_type":"Bearer","expires_in":60}"#;
        let bad = |from: &str, to: &str| read(200, good.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(bad("\"Bearer\"", "\"mac\""), AnswerError::TokenType);
        assert_eq!(bad(":60", ":0"), AnswerError::Expired);
        for (from, to) in [
            (":60", ":-1"),
            (":60", ":\"60\""),
            (":60", ":1.5"),
            (":60", ":18446744073709551616"),
            ("access_token", "id_token"),
            ("token_type", "type"),
            ("{", ""),
            (good, ""),
            (good, "[]"),
            ("\"SECRET\"", "[1]"),
        ] {
            assert_eq!(bad(from, to), AnswerError::NotJson(200), "{to}");
        }
        for token in ["", "a b", "SECRET\\r\\nx: y"] {
            let error = bad("SECRET", token);
            assert!(
                matches!(error, AnswerError::Token(_)) && !error.to_string().contains("SECRET"),
                "{error}"
            );
        }
        let refused = |status, body: &str| read(status, body.as_bytes()).unwrap_err().to_string();
        assert!(refused(401, r#"{"error":"invalid_client"}"#).ends_with("401, error \"invalid_client\""));
        for body in ["", "<html>", good, r#"{"error":"a\nb"}"#, r#"{"error":"SECRET with spaces"}"#] {
            assert!(refused(302, body).ends_with("302, error \"\""), "{body}");
        }
    }

    #[test]
    fn forms_are_encoded() {
        let mut out = String::new();
        push_form(&mut out, "a b+c&d=e%/:é~*");
        assert_eq!(out, "a+b%2Bc%26d%3De%25%2F%3A%C3%A9%7E*");
    }
}
