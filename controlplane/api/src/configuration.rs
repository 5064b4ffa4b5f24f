//! Configurations: signed as the bytes that travel, and only ever newer.
//!
//! What is signed is the text, not what it means, so that nothing has to be written again to be checked. Secrets in it
//! are ciphertext for the cluster's lockd.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::is_name;
use crate::{
    Base64, LINK_NAMESPACE, LINKS_MAX, Link, LinkStatement, PEER_LINKS_MAX, PublicKey, SIGNATURE_BYTES,
    SigningKey, is_link_name,
};

/// Where configurations come from: `GET`, with the query `after`, the version that is in force; answered when there is a
/// newer one, or with 204 after a while.
pub const CONFIGURATION: &str = "/agent/v1/configuration";
/// Longest configuration, bytes.
pub const CONFIGURATION_BYTES_MAX: usize = 8 << 20;
/// Most sealed secrets.
pub const SECRETS_MAX: usize = 10_000;
const MEMBERS_MAX: usize = 256;
const SEALED_BYTES_MAX: usize = 256 * 1024;
const PURPOSE: &str = "zen-configuration-v1";

/// A configuration as it travels and as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedConfiguration {
    /// A [`Configuration`], JSON.
    pub text: String,
    /// Over the text.
    pub signature: Base64<SIGNATURE_BYTES>,
}

/// What a cluster runs by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// Rises with each change.
    pub version: u64,
    /// Whose cluster.
    pub tenant: String,
    /// Which cluster.
    pub cluster: String,
    /// Roots of the trust domain, PEM.
    pub trust_bundle: String,
    /// Nodes by name.
    pub members: BTreeMap<String, Member>,
    /// Who is not let in any more: the text of a node's deny list.
    pub deny_list: String,
    /// Secrets by `NAMESPACE/NAME/KEY`.
    #[serde(default)]
    pub secrets: BTreeMap<String, SealedSecret>,
    /// Links of this cluster whose keys agents make, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub link_keys: BTreeMap<String, Link>,
    /// What agents of other clusters said to this one's, by cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub link_statements: BTreeMap<String, LinkStatement>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its SPIFFE id.
    pub spiffe_id: String,
    /// Its configuration, TOML, with paths relative to its generation.
    pub node: String,
}

/// An age file for the cluster's lockd, base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedSecret(pub String);

/// Why a configuration is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// Nobody signed it whom the agent knows.
    #[error("the configuration's signature does not hold")]
    Signature,
    /// Too long.
    #[error("the configuration has over {CONFIGURATION_BYTES_MAX} bytes")]
    Length,
    /// Not the object that it should be.
    #[error("the configuration cannot be read (line {line}, column {column})")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A member or secret whose name is none, or too many of them.
    #[error("the configuration's {0}")]
    Field(&'static str),
    /// For another cluster.
    #[error("the configuration is for {tenant}/{cluster}")]
    Elsewhere {
        /// Whose.
        tenant: String,
        /// Which.
        cluster: String,
    },
    /// Not newer than the one in force.
    #[error(
        "the configuration has version {version}, version {in_force} is in force: it would be a step back"
    )]
    Older {
        /// What came.
        version: u64,
        /// What is in force.
        in_force: u64,
    },
}

impl SignedConfiguration {
    /// Signs a configuration.
    pub fn sign(configuration: &Configuration, key: &SigningKey) -> Self {
        let text = serde_json::to_string(configuration).expect("texts and numbers are JSON");
        let signature = key.sign(PURPOSE, &[text.as_bytes()]);
        Self { text, signature }
    }

    /// What was signed, if it is for this cluster and newer than `in_force`.
    pub fn verify(
        &self,
        key: &PublicKey,
        (tenant, cluster): (&str, &str),
        in_force: u64,
    ) -> Result<Configuration, ConfigurationError> {
        if self.text.len() > CONFIGURATION_BYTES_MAX {
            return Err(ConfigurationError::Length);
        }
        key.verify(PURPOSE, &[self.text.as_bytes()], &self.signature)
            .map_err(|_| ConfigurationError::Signature)?;
        let read: Configuration = serde_json::from_str(&self.text)
            .map_err(|error| ConfigurationError::Malformed { line: error.line(), column: error.column() })?;
        read.check()?;
        if (read.tenant.as_str(), read.cluster.as_str()) != (tenant, cluster) {
            return Err(ConfigurationError::Elsewhere { tenant: read.tenant, cluster: read.cluster });
        }
        if read.version <= in_force {
            return Err(ConfigurationError::Older { version: read.version, in_force });
        }
        Ok(read)
    }
}

impl Configuration {
    /// Whether names and sizes in it are as agents take them.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        let is_secret = |name: &String| {
            let parts: Vec<&str> = name.split('/').collect();
            parts.len() == 3 && parts.into_iter().all(is_segment)
        };
        let is_own_link = |(name, link): (&String, &Link)| is_link_name(name) && link.is_of(&self.cluster);
        let has_links =
            |cluster: &String| self.link_keys.values().any(|link| link.peer_of(&self.cluster) == cluster);
        let own_secrets = format!("{LINK_NAMESPACE}/");
        let mut per_peer: BTreeMap<&str, usize> = BTreeMap::new();
        self.link_keys
            .values()
            .for_each(|link| *per_peer.entry(link.peer_of(&self.cluster)).or_default() += 1);
        let fields = [
            ("members are too many", self.members.len() <= MEMBERS_MAX),
            ("members have a name that is none", self.members.keys().all(|name| is_name(name))),
            ("secrets are too many", self.secrets.len() <= SECRETS_MAX),
            ("secrets have a name that is none", self.secrets.keys().all(is_secret)),
            ("secrets are too long", self.secrets.values().all(|secret| secret.0.len() <= SEALED_BYTES_MAX)),
            (
                "secrets are below zen-link/, whose keys agents make",
                !self.secrets.keys().any(|name| name.starts_with(&own_secrets)),
            ),
            ("links are too many", self.link_keys.len() <= LINKS_MAX),
            ("links with one cluster are over 64", per_peer.values().all(|count| *count <= PEER_LINKS_MAX)),
            (
                "links have a name that is none, or are of other clusters",
                self.link_keys.iter().all(is_own_link),
            ),
            (
                "statements are of clusters that it has no links with",
                self.link_statements.keys().all(has_links),
            ),
        ];
        match fields.into_iter().find(|(_, is_good)| !is_good) {
            Some((field, _)) => Err(ConfigurationError::Field(field)),
            None => Ok(()),
        }
    }
}

/// As lockd has them: such a name cannot leave its directory.
fn is_segment(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=253).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> Configuration {
        Configuration {
            version: 7,
            tenant: "acme".to_owned(),
            cluster: "edge".to_owned(),
            trust_bundle: String::new(),
            members: BTreeMap::new(),
            deny_list: String::new(),
            secrets: BTreeMap::new(),
            link_keys: BTreeMap::new(),
            link_statements: BTreeMap::new(),
        }
    }

    fn verified(configuration: &Configuration, in_force: u64) -> Result<Configuration, ConfigurationError> {
        let key = SigningKey::generate();
        SignedConfiguration::sign(configuration, &key).verify(&key.public(), ("acme", "edge"), in_force)
    }

    #[test]
    fn only_a_newer_one_is_taken() {
        assert_eq!(verified(&configuration(), 6), Ok(configuration()));
        for in_force in [7, 8, u64::MAX] {
            assert_eq!(
                verified(&configuration(), in_force),
                Err(ConfigurationError::Older { version: 7, in_force })
            );
        }
    }

    #[test]
    fn what_was_not_signed_is_not_read() {
        let (key, other) = (SigningKey::generate(), SigningKey::generate());
        let signed = SignedConfiguration::sign(&configuration(), &key);
        let verify = |signed: &SignedConfiguration, key: &SigningKey| {
            signed.verify(&key.public(), ("acme", "edge"), 0)
        };
        assert_eq!(verify(&signed, &other), Err(ConfigurationError::Signature));
        let changed =
            SignedConfiguration { text: signed.text.replace("\"version\":7", "\"version\":8"), ..signed };
        assert_eq!(verify(&changed, &key), Err(ConfigurationError::Signature));
        let malformed = SignedConfiguration { signature: key.sign(PURPOSE, &[b"{"]), text: "{".to_owned() };
        assert!(matches!(verify(&malformed, &key), Err(ConfigurationError::Malformed { .. })));
    }

    #[test]
    fn another_cluster_s_is_refused() {
        let other = Configuration { cluster: "core".to_owned(), ..configuration() };
        assert!(matches!(verified(&other, 0), Err(ConfigurationError::Elsewhere { .. })));
    }

    #[test]
    fn links_are_the_cluster_s_own() {
        let link = Link { sender: "edge".to_owned(), receiver: "core".to_owned() };
        let with = |links: Vec<(String, Link)>| {
            verified(&Configuration { link_keys: links.into_iter().collect(), ..configuration() }, 0)
        };
        assert!(with(vec![("edge-core".to_owned(), link.clone())]).is_ok());
        let others = Link { sender: "a".to_owned(), receiver: "b".to_owned() };
        let field = "links have a name that is none, or are of other clusters";
        for (name, link) in [("a-b", &others), ("a/b", &link), (&"a".repeat(41), &link)] {
            assert_eq!(
                with(vec![(name.to_owned(), link.clone())]),
                Err(ConfigurationError::Field(field)),
                "{name}"
            );
        }
        let many = |count: usize| (0..count).map(|at| (format!("link-{at}"), link.clone())).collect();
        assert!(with(many(PEER_LINKS_MAX)).is_ok());
        let field = "links with one cluster are over 64";
        assert_eq!(with(many(PEER_LINKS_MAX + 1)), Err(ConfigurationError::Field(field)));
        let statement = LinkStatement {
            text: String::new(),
            chain: String::new(),
            signature: Base64([0; SIGNATURE_BYTES]),
        };
        let link_statements = BTreeMap::from([("core".to_owned(), statement)]);
        let field = "statements are of clusters that it has no links with";
        let found = verified(&Configuration { link_statements, ..configuration() }, 0);
        assert_eq!(found, Err(ConfigurationError::Field(field)));
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        let member = Member { spiffe_id: String::new(), node: String::new() };
        let secret = SealedSecret(String::new());
        for name in ["..", "a/b", ""] {
            let members = BTreeMap::from([(name.to_owned(), member.clone())]);
            let found = verified(&Configuration { members, ..configuration() }, 0);
            assert_eq!(found, Err(ConfigurationError::Field("members have a name that is none")), "{name}");
        }
        let own = BTreeMap::from([("zen-link/a/key-1".to_owned(), secret.clone())]);
        let found = verified(&Configuration { secrets: own, ..configuration() }, 0);
        let field = "secrets are below zen-link/, whose keys agents make";
        assert_eq!(found, Err(ConfigurationError::Field(field)));
        for name in ["a/b", "a/../c", "/a/b/c", "a/b/.c"] {
            let secrets = BTreeMap::from([(name.to_owned(), secret.clone())]);
            let found = verified(&Configuration { secrets, ..configuration() }, 0);
            assert_eq!(found, Err(ConfigurationError::Field("secrets have a name that is none")), "{name}");
        }
    }
}
