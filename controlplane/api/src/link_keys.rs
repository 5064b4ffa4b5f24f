//! Link keys: what the agents of two clusters say to each other through a control plane that can read none of it.
//!
//! The agent of a link's sender makes keys and seals them to both clusters' lockd; the agent of its receiver says which
//! keys its nodes have. Each signs what it says with the key of its SVID (ECDSA P-256, SHA-256, FIPS 186-5), over the
//! text that travels, and attaches its chain: the control plane hands it on, and cannot put other words in its place.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};

use crate::encoding::is_name;
use crate::signing::message;
use crate::{Base64, SIGNATURE_BYTES, SealedSecret};

/// Where statements go: `POST`, by the agent over mutual TLS, one for each cluster that it has links with.
pub const LINK_KEYS: &str = "/agent/v1/link-keys";
/// Longest name of a link, bytes: its keys' ids are the name, a dash and a number.
pub const LINK_NAME_BYTES_MAX: usize = 40;
/// Most links of a cluster.
pub const LINKS_MAX: usize = 1024;
/// Most links between two clusters.
pub const PEER_LINKS_MAX: usize = 64;
/// Most keys of a link at a time, as nodes take them.
pub const LINK_KEYS_MAX: usize = 4;
/// Longest sealed link key, bytes of base64.
pub const SEALED_LINK_KEY_BYTES_MAX: usize = 4096;
/// Longest statement with its chain, bytes.
pub const LINK_STATEMENT_BYTES_MAX: usize = 256 * 1024;
const CHAIN_BYTES_MAX: usize = 32 * 1024;
const PURPOSE: &str = "zen-link-keys-v1";
const RECIPIENT_PREFIX: &str = "age1";
const RECIPIENT_BYTES_MAX: usize = 128;

/// A link between two clusters, or within one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The cluster whose ingesters send; its agent makes the keys.
    pub sender: String,
    /// The cluster whose egresses receive.
    pub receiver: String,
}

/// What one agent says to another, as it travels and as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkStatement {
    /// A [`LinkKeys`], JSON.
    pub text: String,
    /// The X.509-SVID of the agent that says it and its issuers, PEM, leaf first.
    pub chain: String,
    /// By the key of that SVID, over the text.
    pub signature: Base64<SIGNATURE_BYTES>,
}

/// What an agent says of the links with one other cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkKeys {
    /// Whose agent says it.
    pub cluster: String,
    /// For which cluster's agent.
    pub peer: String,
    /// Unix ms; each statement's is higher than that of the one before.
    pub made_at_ms: u64,
    /// To whom link keys for this cluster are sealed: `age1...`, its lockd.
    pub recipient: String,
    /// Links by name.
    pub links: BTreeMap<String, LinkSide>,
}

/// One end of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSide {
    /// Of the sender: keys that the receiver should have, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<SealedLinkKey>,
    /// Of the receiver: numbers of the keys that all its nodes take.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub held: BTreeSet<u64>,
}

/// A key, sealed to both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedLinkKey {
    /// From 1, rising.
    pub number: u64,
    /// An age file, whose envelope is for [`link_secret`].
    pub sealed: SealedSecret,
}

/// Why a statement is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkStatementError {
    /// Too long.
    #[error("the statement has over {LINK_STATEMENT_BYTES_MAX} bytes")]
    Length,
    /// Not the object that it should be.
    #[error("the statement breaks its schema at line {line}, column {column}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A name, number or size that is none.
    #[error("the statement's {0}")]
    Field(&'static str),
    /// The key that is attached did not sign it.
    #[error("the statement's signature does not hold")]
    Signature,
    /// The key cannot sign: it is not PKCS #8 of a P-256 key.
    #[error("the key of the identity cannot sign statements: it is not of P-256")]
    Key,
}

/// The secret of a link key in lockd: `NAMESPACE/NAME/KEY`, at both ends.
pub fn link_secret(link: &str, number: u64) -> (&'static str, String, String) {
    (LINK_NAMESPACE, link.to_owned(), format!("key-{number}"))
}

/// Link keys' namespace in lockd; no configuration brings any of its secrets.
pub const LINK_NAMESPACE: &str = "zen-link";

/// The id of a link key, as nodes have it in hellos and events.
pub fn link_key_id(link: &str, number: u64) -> String {
    format!("{link}-{number}")
}

/// Whether a link may be called so.
pub fn is_link_name(text: &str) -> bool {
    is_name(text) && text.len() <= LINK_NAME_BYTES_MAX
}

impl Link {
    /// Whether `cluster` is one of its ends, and both have names.
    pub fn is_of(&self, cluster: &str) -> bool {
        is_name(&self.sender)
            && is_name(&self.receiver)
            && (self.sender == cluster || self.receiver == cluster)
    }

    /// The other end, as `cluster` sees it: itself, if both are the same.
    pub fn peer_of(&self, cluster: &str) -> &str {
        if self.sender == cluster { &self.receiver } else { &self.sender }
    }
}

impl LinkKeys {
    /// Signs it with the private key of the SVID in `chain`, PKCS #8, DER.
    pub fn sign(&self, chain: &str, private_key: &[u8]) -> Result<LinkStatement, LinkStatementError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private_key)
            .map_err(|_| LinkStatementError::Key)?;
        let text = serde_json::to_string(self).expect("texts and numbers are JSON");
        let signed = key.sign(&SystemRandom::new(), &message(PURPOSE, &[text.as_bytes()]));
        let signature = signed.expect("aws-lc-rs aborts by itself when it has no randomness");
        let signature = Base64(signature.as_ref().try_into().expect("r and s of P-256 are 64 bytes"));
        Ok(LinkStatement { text, chain: chain.to_owned(), signature })
    }

    fn checked(self) -> Result<Self, LinkStatementError> {
        let sides = || self.links.values();
        let keys = || sides().flat_map(|side| &side.keys);
        let rises = |side: &LinkSide| side.keys.is_sorted_by(|one, next| one.number < next.number);
        let fields = [
            ("cluster or peer is no name", is_name(&self.cluster) && is_name(&self.peer)),
            ("recipient is none (age1...)", is_recipient(&self.recipient)),
            ("links are too many", self.links.len() <= PEER_LINKS_MAX),
            ("links have a name that is none", self.links.keys().all(|name| is_link_name(name))),
            ("keys are too many", sides().all(|side| side.keys.len().max(side.held.len()) <= LINK_KEYS_MAX)),
            ("keys are not in order", sides().all(rises)),
            ("keys are too long", keys().all(|key| key.sealed.0.len() <= SEALED_LINK_KEY_BYTES_MAX)),
        ];
        match fields.into_iter().find(|(_, is_good)| !is_good) {
            Some((field, _)) => Err(LinkStatementError::Field(field)),
            None => Ok(self),
        }
    }
}

impl LinkStatement {
    /// What it says, whoever says it: names and sizes are checked, the signature is not.
    pub fn unverified(&self) -> Result<LinkKeys, LinkStatementError> {
        if self.chain.len() > CHAIN_BYTES_MAX || self.text.len() + self.chain.len() > LINK_STATEMENT_BYTES_MAX
        {
            return Err(LinkStatementError::Length);
        }
        let read: LinkKeys = serde_json::from_str(&self.text)
            .map_err(|error| LinkStatementError::Malformed { line: error.line(), column: error.column() })?;
        read.checked()
    }

    /// What the holder of `public_key` says: `SubjectPublicKeyInfo`, DER, of the chain's leaf. That the chain holds,
    /// and whose it is, is for the caller to check.
    pub fn verify(&self, public_key: &[u8]) -> Result<LinkKeys, LinkStatementError> {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public_key);
        key.verify(&message(PURPOSE, &[self.text.as_bytes()]), &self.signature.0)
            .map_err(|_| LinkStatementError::Signature)?;
        self.unverified()
    }
}

/// Bech32 of an X25519 recipient (age-encryption.org/v1), as far as it can be seen without decoding.
fn is_recipient(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= RECIPIENT_BYTES_MAX
        && text
            .strip_prefix(RECIPIENT_PREFIX)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    fn keys() -> LinkKeys {
        let key = |number| SealedLinkKey { number, sealed: SealedSecret("YQ==".to_owned()) };
        let side = LinkSide { keys: vec![key(1), key(2)], held: BTreeSet::new() };
        LinkKeys {
            cluster: "edge".to_owned(),
            peer: "core".to_owned(),
            made_at_ms: 7,
            recipient: "age1qqqq".to_owned(),
            links: BTreeMap::from([("edge-core".to_owned(), side)]),
        }
    }

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let made = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = made.to_pkcs8v1().unwrap().as_ref().to_vec();
        (private, made.public_key().as_ref().to_vec())
    }

    #[test]
    fn a_statement_is_its_signer_s() {
        let ((private, public), (_, other)) = (pair(), pair());
        let signed = keys().sign("chain", &private).unwrap();
        assert_eq!(signed.verify(&public), Ok(keys()));
        assert_eq!(signed.verify(&other), Err(LinkStatementError::Signature));
        let text = signed.text.replace("age1qqqq", "age1zzzz");
        let changed = LinkStatement { text, ..signed.clone() };
        assert_eq!(changed.verify(&public), Err(LinkStatementError::Signature));
        assert!(changed.unverified().is_ok(), "it says so");
        assert_eq!(keys().sign("chain", b"no key").unwrap_err(), LinkStatementError::Key);
        let seed = crate::SigningKey::generate();
        assert_eq!(signed.verify(&seed.public().0.0), Err(LinkStatementError::Signature), "another kind");
    }

    #[test]
    fn what_no_agent_says_is_refused() {
        type Change = fn(&mut LinkKeys);
        let cases: [(Change, &str); 9] = [
            (|keys| keys.cluster = "..".to_owned(), "cluster or peer is no name"),
            (|keys| keys.peer = "a/b".to_owned(), "cluster or peer is no name"),
            (|keys| keys.recipient = "age1".to_owned(), "recipient is none (age1...)"),
            (|keys| keys.recipient = "age1 --output".to_owned(), "recipient is none (age1...)"),
            (|keys| keys.recipient = "-----BEGIN".to_owned(), "recipient is none (age1...)"),
            (
                |keys| {
                    keys.links.insert("a".repeat(LINK_NAME_BYTES_MAX + 1), LinkSide::default());
                },
                "links have a name that is none",
            ),
            (
                |keys| {
                    keys.links =
                        (0..=PEER_LINKS_MAX).map(|at| (at.to_string(), LinkSide::default())).collect();
                },
                "links are too many",
            ),
            (
                |keys| keys.links.get_mut("edge-core").unwrap().held = (0..=LINK_KEYS_MAX as u64).collect(),
                "keys are too many",
            ),
            (|keys| keys.links.get_mut("edge-core").unwrap().keys.reverse(), "keys are not in order"),
        ];
        let (private, public) = pair();
        for (change, expected) in cases {
            let mut changed = keys();
            change(&mut changed);
            let signed = changed.sign("", &private).unwrap();
            assert_eq!(signed.verify(&public), Err(LinkStatementError::Field(expected)));
        }
        let mut long = keys();
        long.links.get_mut("edge-core").unwrap().keys[0].sealed.0 = "A".repeat(SEALED_LINK_KEY_BYTES_MAX + 1);
        assert_eq!(
            long.sign("", &private).unwrap().unverified(),
            Err(LinkStatementError::Field("keys are too long"))
        );
        let signed = keys().sign(&"c".repeat(CHAIN_BYTES_MAX + 1), &private).unwrap();
        assert_eq!(signed.unverified(), Err(LinkStatementError::Length));
        let other = LinkStatement { text: "{\"cluster\":1}".to_owned(), ..signed };
        let other = LinkStatement { chain: String::new(), ..other };
        assert!(matches!(other.unverified(), Err(LinkStatementError::Malformed { line: 1, .. })));
    }

    #[test]
    fn a_link_has_two_ends() {
        let link = Link { sender: "edge".to_owned(), receiver: "core".to_owned() };
        assert!(link.is_of("edge") && link.is_of("core") && !link.is_of("other"));
        assert_eq!((link.peer_of("edge"), link.peer_of("core")), ("core", "edge"));
        let within = Link { receiver: "edge".to_owned(), ..link };
        assert_eq!(within.peer_of("edge"), "edge");
        assert_eq!(link_key_id(&"a".repeat(LINK_NAME_BYTES_MAX), u64::MAX).len(), 61, "a name of 64 at most");
    }
}
