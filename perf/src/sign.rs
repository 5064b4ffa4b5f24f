//! The `sign` command: what GitHub writes into `x-hub-signature-256`.
//!
//! In: a body as its argument, the secret on standard input. Out: the header's value. The secret is in no
//! argument and no environment, where other processes of the machine may read it.

use std::io::{self, Read};
use std::process::ExitCode;

use zeroize::Zeroizing;

use crate::error::LabError;
use crate::signature::{hex, hmac_sha256};

/// Longest secret that a node takes.
const SECRET_BYTES_MAX: u64 = 4096;

/// Options of `sign`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The body.
    body: String,
}

/// Prints the header's value.
pub(crate) fn run(options: &Options) -> Result<ExitCode, LabError> {
    println!("{}", signature(&options.body, io::stdin().lock())?);
    Ok(ExitCode::SUCCESS)
}

fn signature(body: &str, secret: impl Read) -> Result<String, LabError> {
    let failed = |reason: &str| LabError::Tool {
        what: "the secret on standard input".to_owned(),
        reason: reason.to_owned(),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX as usize + 1));
    secret.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(&error.to_string()))?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(failed("longer than 4096 bytes"));
    }
    match bytes.trim_ascii_end() {
        [] => Err(failed("nothing; pipe `zen-lockd get` into this")),
        secret => Ok(format!("sha256={}", hex(&hmac_sha256(secret, &[body.as_bytes()])))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_github_documents() {
        // "Validating webhook deliveries", docs.github.com: secret and body of the test values.
        let tag = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        for secret in ["It's a Secret to Everybody", "It's a Secret to Everybody\n"] {
            assert_eq!(signature("Hello, World!", secret.as_bytes()).unwrap(), tag);
        }
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        let long = vec![b'x'; SECRET_BYTES_MAX as usize + 1];
        for secret in [&b""[..], b"\n", &long] {
            assert!(matches!(signature("", secret), Err(LabError::Tool { .. })));
        }
        assert!(signature("", &long[1..]).is_ok());
    }
}
