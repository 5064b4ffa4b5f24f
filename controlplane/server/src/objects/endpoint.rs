//! Endpoints: where sources send webhooks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{SecretPlace, check_description, check_name, check_names};
use super::settings::ENDPOINT;
use super::{FieldFault, Object, Settings};

/// Most secrets of an endpoint.
pub(crate) const ENDPOINT_SECRETS_MAX: usize = 8;
/// Most members that an endpoint names.
pub(crate) const ENDPOINT_MEMBERS_MAX: usize = 64;

/// Where sources send webhooks: `https://HOST/hooks/NAME`. Its name is 32 lower-case hex digits, which nobody can guess.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Whose ingesters take them.
    #[schema(example = "edge")]
    pub cluster: String,
    /// Which of them; all without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub members: Vec<String>,
    /// How sources sign.
    pub scheme: Scheme,
    /// What they sign with; any one verifies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub secrets: Vec<SecretPlace>,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
    /// Other keys of the endpoint's table in the node's configuration.
    #[serde(default)]
    pub settings: Settings,
}

/// How sources sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// As GitHub does.
    Github,
    /// As Standard Webhooks says.
    StandardWebhooks,
    /// An HMAC in a header; the setting `hmac` says which.
    Hmac,
    /// Not at all; needs the setting `authorization` or `client_certificate`.
    None,
}

impl Object for Endpoint {
    const KIND: &'static str = "endpoints";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if name.len() != 32 || !name.bytes().all(is_digit) {
            return Err(FieldFault::new(
                "",
                "an endpoint's name is 32 lower-case hex digits; POST makes one",
            ));
        }
        check_name(&self.cluster, "/cluster")?;
        check_names(&self.members, (0, ENDPOINT_MEMBERS_MAX), "/members")?;
        check_description(&self.description)?;
        let least = usize::from(self.scheme != Scheme::None);
        let most = if self.scheme == Scheme::None { 0 } else { ENDPOINT_SECRETS_MAX };
        if !(least..=most).contains(&self.secrets.len()) {
            let detail = format!("1 to {ENDPOINT_SECRETS_MAX} secrets, none with the scheme none");
            return Err(FieldFault::new("/secrets", detail));
        }
        for (index, secret) in self.secrets.iter().enumerate() {
            secret.check(&format!("/secrets/{index}"))?;
        }
        if (self.scheme == Scheme::Hmac) != self.settings.0.contains_key("hmac") {
            return Err(FieldFault::new("/settings/hmac", "is there exactly with the scheme hmac"));
        }
        self.settings.check(&ENDPOINT)
    }
}
