//! What a target is beside an HTTPS server that verifies signatures, as written.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetAuthorization {
    pub kind: CredentialsKind,
    pub token_file: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<String>,
    pub token_url: Option<String>,
    pub client_id: Option<String>,
    pub client_secret_file: Option<String>,
    pub scope: Option<String>,
    pub ca_file: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialsKind {
    Bearer,
    Basic,
    Oauth2,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum TargetFormat {
    #[default]
    Original,
    CloudeventsBinary,
    CloudeventsStructured,
}

/// Many events in one request.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetBatch {
    pub events_max: u32,
    pub bytes_max: u64,
    pub linger_ms: u64,
}

impl Default for TargetBatch {
    fn default() -> Self {
        Self { events_max: 32, bytes_max: 1 << 20, linger_ms: 0 }
    }
}
