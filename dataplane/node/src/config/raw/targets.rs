//! What a target is beside an HTTPS server that verifies signatures, as written.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetAuthorization {
    pub kind: CredentialsKind,
    pub token_file: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialsKind {
    Bearer,
    Basic,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TargetFormat {
    #[default]
    Original,
    CloudeventsBinary,
    CloudeventsStructured,
}
