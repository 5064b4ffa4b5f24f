//! Credentials: secrets that only the lockd of a cluster can open.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::{SecretPlace, check_description, check_name, check_names};
use super::policy::CLUSTERS_MAX;
use super::{FieldFault, Object};

/// Longest ciphertext, characters of base64.
pub(crate) const CIPHERTEXT_CHARACTERS_MAX: usize = 256 * 1024;
/// How an age file begins: its version, then the first recipient (C2SP age, "Header").
const AGE_HEADER: &[u8] = b"age-encryption.org/v1\n-> ";

/// A secret, sealed with age to the lockd of each of its clusters: `zen-lockd seal` makes it. The control plane cannot open it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// To whose lockd it is sealed.
    #[schema(min_items = 1, max_items = 64)]
    pub clusters: Vec<String>,
    /// What lockd calls it.
    pub place: SecretPlace,
    /// An age file, base64 (RFC 4648 section 4).
    #[schema(max_length = 262_144)]
    pub ciphertext: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub description: String,
}

impl Object for Credential {
    const KIND: &'static str = "credentials";

    fn check(&self, name: &str) -> Result<(), FieldFault> {
        check_name(name, "")?;
        check_names(&self.clusters, (1, CLUSTERS_MAX), "/clusters")?;
        self.place.check("/place")?;
        check_description(&self.description)?;
        if self.ciphertext.len() > CIPHERTEXT_CHARACTERS_MAX {
            let detail = format!("at most {CIPHERTEXT_CHARACTERS_MAX} characters");
            return Err(FieldFault::new("/ciphertext", detail));
        }
        let bytes = BASE64_STANDARD.decode(&self.ciphertext).ok();
        if !bytes.is_some_and(|bytes| bytes.starts_with(AGE_HEADER)) {
            // The value is not repeated: it may be the secret itself.
            let detail = "the base64 of an age file, as zen-lockd seal writes it; never the secret itself";
            return Err(FieldFault::new("/ciphertext", detail));
        }
        Ok(())
    }
}
