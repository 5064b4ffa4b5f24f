//! `[oidc]` of the server's settings: raw in, checked out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zen_control_api::is_name;
use zeroize::Zeroizing;

use super::OidcSettings;
use crate::people::Role;
use crate::{ControlError, directory};

/// Longest client secret, or text of CAs, bytes.
const OIDC_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Longest text of the settings, bytes.
const OIDC_TEXT_BYTES_MAX: usize = 255;
/// Most groups that are roles.
const OIDC_ROLES_MAX: usize = 1024;

/// As the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawOidc {
    issuer: String,
    client_id: String,
    client_secret_file: PathBuf,
    redirect_uri: String,
    scope: Option<String>,
    ca_file: Option<PathBuf>,
    groups_claim: Option<String>,
    #[serde(default)]
    roles: BTreeMap<String, String>,
}

impl RawOidc {
    /// Relative paths lead from the directory of the file.
    pub(crate) fn settings(self, from: &Path) -> Result<OidcSettings, ControlError> {
        let texts = [&self.issuer, &self.client_id, &self.redirect_uri];
        if texts.iter().any(|text| text.is_empty() || text.len() > OIDC_TEXT_BYTES_MAX) {
            return Err(ControlError::Argument(
                "oidc.issuer, oidc.client_id and oidc.redirect_uri have 1 to 255 bytes",
            ));
        }
        if !self.redirect_uri.starts_with("https://")
            || !self.redirect_uri.ends_with("/sign-in/provider/callback")
        {
            return Err(ControlError::Argument(
                "oidc.redirect_uri is https://HOST:PORT/sign-in/provider/callback, as browsers reach the server",
            ));
        }
        if self.roles.len() > OIDC_ROLES_MAX {
            return Err(ControlError::Argument("oidc.roles are at most 1024 groups"));
        }
        let read = |path: &Path| directory::read_text(&from.join(path), OIDC_FILE_BYTES_MAX);
        let ca = self.ca_file.as_deref().map(read).transpose()?;
        let roles = self.roles.into_iter().map(role).collect::<Result<_, _>>()?;
        Ok(OidcSettings {
            client_secret: Zeroizing::new(read(&self.client_secret_file)?.trim().to_owned()),
            issuer: self.issuer,
            client_id: self.client_id,
            redirect_uri: self.redirect_uri,
            scope: self.scope.unwrap_or_else(|| "openid profile".to_owned()),
            ca: ca.map(|text| text.as_bytes().to_vec()),
            groups_claim: self.groups_claim.unwrap_or_else(|| "groups".to_owned()),
            roles,
        })
    }
}

fn role((group, place): (String, String)) -> Result<(String, String, Role), ControlError> {
    let (tenant, role) = place.split_once(':').filter(|(tenant, _)| is_name(tenant)).ok_or(
        ControlError::Argument("oidc.roles are GROUP = \"TENANT:ROLE\", as in operators = \"acme:admin\""),
    )?;
    Ok((group, tenant.to_owned(), role.parse()?))
}
