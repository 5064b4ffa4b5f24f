//! Credentials for a target's `Authorization` header (RFC 9110 section 11.6.2).
//!
//! A bearer token (RFC 6750 section 2.1), or a user and a password (RFC 7617 section 2), enter; a value that cannot
//! break out of its line leaves. It is wiped when dropped, and its `Debug` shows nothing.

use alloc::string::String;
use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Longest bearer token, bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Longest user name, and longest password, bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Longest value, bytes.
pub const CREDENTIALS_BYTES_MAX: usize = "Bearer ".len() + TOKEN_BYTES_MAX;

const _: () = assert!(CREDENTIALS_BYTES_MAX >= "Basic ".len() + (2 * PASSWORD_BYTES_MAX + 1).div_ceil(3) * 4);

/// The value of an `Authorization` header.
pub struct Credentials(Zeroizing<String>);

/// What cannot be credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not a `b64token`.
    #[error("expected a token of 1 to {TOKEN_BYTES_MAX} of A-Z a-z 0-9 - . _ ~ + / and = at its end")]
    Token,
    /// Too long, or with a colon or a control character.
    #[error("expected a user name of at most {PASSWORD_BYTES_MAX} bytes without colon and control character")]
    Username,
    /// Too long, or with a control character.
    #[error("expected a password of at most {PASSWORD_BYTES_MAX} bytes without control character")]
    Password,
}

impl Credentials {
    /// `Bearer <token>`.
    pub fn bearer(token: &str) -> Result<Self, CredentialsError> {
        let unpadded = token.trim_end_matches('=');
        let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if unpadded.is_empty() || token.len() > TOKEN_BYTES_MAX || !unpadded.bytes().all(is_token_byte) {
            return Err(CredentialsError::Token);
        }
        let mut value = Zeroizing::new(String::with_capacity("Bearer ".len() + token.len()));
        value.push_str("Bearer ");
        value.push_str(token);
        Ok(Self(value))
    }

    /// `Basic <base64 of user:password>`.
    pub fn basic(username: &str, password: &str) -> Result<Self, CredentialsError> {
        let fits = |text: &str| {
            text.len() <= PASSWORD_BYTES_MAX && !text.bytes().any(|byte| byte.is_ascii_control())
        };
        if !fits(username) || username.contains(':') {
            return Err(CredentialsError::Username);
        }
        if !fits(password) {
            return Err(CredentialsError::Password);
        }
        // Whatever grows leaves a copy behind that nobody wipes.
        let mut pair = Zeroizing::new(String::with_capacity(username.len() + 1 + password.len()));
        pair.push_str(username);
        pair.push(':');
        pair.push_str(password);
        let mut value = Zeroizing::new(String::with_capacity("Basic ".len() + pair.len().div_ceil(3) * 4));
        value.push_str("Basic ");
        STANDARD.encode_string(pair.as_bytes(), &mut value);
        Ok(Self(value))
    }

    /// The value, to be written to a request and nowhere else.
    pub fn value(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::*;

    #[test]
    fn values_of_the_specifications() {
        assert_eq!(Credentials::bearer("mF_9.B5f-4.1JqM").unwrap().value(), "Bearer mF_9.B5f-4.1JqM");
        for (user, password, expected) in [
            ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("test", "123£", "Basic dGVzdDoxMjPCow=="),
            ("", "key", "Basic OmtleQ=="),
            ("key", "", "Basic a2V5Og=="),
            ("a", "b:c", "Basic YTpiOmM="),
        ] {
            assert_eq!(Credentials::basic(user, password).unwrap().value(), expected);
        }
    }

    #[test]
    fn nothing_breaks_out_of_the_line() {
        for byte in (0..=32).chain([127]).map(char::from) {
            assert_eq!(Credentials::bearer(&format!("a{byte}b")).err(), Some(CredentialsError::Token));
            if byte != ' ' {
                let (user, password) = (format!("a{byte}b"), format!("{byte}"));
                assert_eq!(Credentials::basic(&user, "p").err(), Some(CredentialsError::Username));
                assert_eq!(Credentials::basic("u", &password).err(), Some(CredentialsError::Password));
            }
        }
        for token in ["", "=", "==", "a=b", "a,b", "a\"b", "é"] {
            assert_eq!(Credentials::bearer(token).err(), Some(CredentialsError::Token), "{token}");
        }
        assert_eq!(Credentials::basic("a:b", "p").err(), Some(CredentialsError::Username));
    }

    #[test]
    fn bounds_and_silence() {
        let (token, password) = ("t".repeat(TOKEN_BYTES_MAX), "p".repeat(PASSWORD_BYTES_MAX));
        assert_eq!(Credentials::bearer(&token).unwrap().value().len(), CREDENTIALS_BYTES_MAX);
        assert!(Credentials::bearer(&format!("{token}t")).is_err());
        assert!(Credentials::basic(&password, &password).unwrap().value().len() <= CREDENTIALS_BYTES_MAX);
        assert!(Credentials::basic("u", &format!("{password}p")).is_err());
        assert!(Credentials::basic(&format!("{password}p"), "p").is_err());
        assert_eq!(format!("{:?}", Credentials::bearer("secret").unwrap()), "Credentials");
    }
}
