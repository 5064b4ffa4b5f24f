//! A webhook of one's own: the shell line that signs and sends it. The secret goes from zen-lockd to
//! `zen-perf sign` through a pipe, so that no file, argument or environment has it.

use std::process::Command;

use super::OWN_BODY;
use crate::error::LabError;
use crate::lab::{Lab, Vault, beside};
use crate::load::answered_id;
use crate::record::Accepted;
use crate::samples::SchemeName;
use crate::signature::sha256;

/// What the line needs to know of a lab.
pub(super) struct Curl {
    authority: String,
    url: String,
    /// Prints the value of the signature's header.
    sign: String,
}

impl Curl {
    /// For the GitHub endpoint of `lab`.
    pub(super) fn new(lab: &Lab, vault: &Vault) -> Result<Self, LabError> {
        let endpoint = lab.endpoints.iter().find(|endpoint| endpoint.scheme == SchemeName::GitHub);
        let id = &endpoint.expect("the demo's shape has an endpoint of each scheme").id;
        Ok(Self {
            authority: lab.pki.public_ca().display().to_string(),
            url: format!("https://localhost:{}/hooks/{id}", lab.public.port()),
            sign: format!(
                "{} |\n    '{}' sign \"$body\"",
                vault.get_command(id),
                beside("zen-perf")?.display()
            ),
        })
    }

    /// Signs and sends: a kind of event, and its id as the shell makes it.
    pub(super) fn line(&self, kind: &str, delivery: &str) -> String {
        let Self { authority, url, sign } = self;
        format!(
            "body='{OWN_BODY}'; curl -sS --cacert '{authority}' \\\n  {url} \\\n  \
             -H 'content-type: application/json' -H 'x-github-event: {kind}' \\\n  \
             -H \"x-github-delivery: {delivery}\" \\\n  \
             -H \"x-hub-signature-256: $({sign})\" \\\n  \
             --data-binary \"$body\""
        )
    }
}

/// Runs the printed line as a person would, and returns what it promised.
pub(super) fn send_own(command: &str) -> Result<Accepted, String> {
    let (event_id, _) = send(command)?;
    Ok(Accepted { number: u64::MAX, event_id, body_sha256: sha256(OWN_BODY.as_bytes()) })
}

/// Runs such a line; the event's id, and the whole answer.
pub(super) fn send(command: &str) -> Result<(String, String), String> {
    let mut shell = Command::new("sh");
    for proxy in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        shell.env_remove(proxy);
    }
    let output = shell.args(["-c", command]).output().map_err(|error| format!("the curl line: {error}"))?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let event_id = answered_id(&output.stdout).ok_or_else(|| {
        format!("the curl line was not accepted: {answer}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((event_id, answer))
}
