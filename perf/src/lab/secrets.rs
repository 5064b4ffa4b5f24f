//! The secrets of a lab: made in memory, then written as files, or sealed by the lab's zen-lockd.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{INGESTER, Lab, Shape};
use crate::error::LabError;
use crate::pki::{PUBLIC, PrivateKey, write_file};
use crate::random::system_bytes;
use crate::samples::{Endpoint, SchemeName};
use crate::signature::{base64, hex};
use crate::sink::Target;

/// Namespace of what the lab seals.
pub(super) const NAMESPACE: &str = "lab";

/// How a lab keeps its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Custody {
    /// Files in clear, mode 0600: what a lab has unless it is sealed.
    Files,
    /// Files sealed with age; zen-lockd hands out what is in them.
    Lockd,
    /// As [`Self::Lockd`], where the files and the nodes' identities come from a control plane.
    Managed,
}

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What a source signs with; by the endpoint's id.
    Endpoint,
    /// What an egress signs with; by the target.
    Target,
    /// What an ingester signs with; by the egress.
    Link,
    /// By the certificate's name, PEM.
    PrivateKey,
    /// What a node hashes ids with; by the node.
    HashKey,
}

impl Kind {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Endpoint, Self::Target, Self::Link, Self::PrivateKey, Self::HashKey];

    /// Its name in the namespace of the lab.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoints",
            Self::Target => "targets",
            Self::Link => "links",
            Self::PrivateKey => "private-keys",
            Self::HashKey => "hash-keys",
        }
    }

    /// What zen-lockd calls the secret `key`.
    pub(crate) fn sealed_name(self, key: &str) -> String {
        format!("{NAMESPACE}/{}/{key}", self.folder())
    }
}

/// A secret of the lab, in memory.
pub(crate) struct Secret {
    /// What it is for.
    pub(crate) kind: Kind,
    /// Whose it is.
    pub(crate) key: String,
    /// As its file holds it.
    pub(crate) value: Zeroizing<String>,
}

impl Secret {
    /// Its name, which says nothing of its value.
    pub(crate) fn name(&self) -> String {
        self.kind.sealed_name(&self.key)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// All secrets of a lab; the nodes' hash keys only where the nodes do not make them, and what agents make only where there
/// is none: keys of links, and private keys of SVIDs.
pub(super) fn all(
    shape: Shape,
    endpoints: &[Endpoint],
    targets: &[Target],
    keys: Vec<PrivateKey>,
    custody: Custody,
) -> Vec<Secret> {
    let of = |kind, key: &str, value: String| Secret { kind, key: key.to_owned(), value: value.into() };
    let egresses = || shape.egresses.iter().map(|egress| egress.name);
    let hashing: Vec<&str> = match custody {
        Custody::Files => Vec::new(),
        Custody::Lockd | Custody::Managed => [INGESTER].into_iter().chain(egresses()).collect(),
    };
    let is_managed = custody == Custody::Managed;
    let keys = keys.into_iter().filter(|key| !is_managed || key.owner == PUBLIC);
    let links = egresses().filter(|_| !is_managed).map(|name| of(Kind::Link, name, signing_secret()));
    let endpoints = endpoints.iter().map(|own| of(Kind::Endpoint, &own.id, own.secret.clone()));
    let targets = targets.iter().map(|own| of(Kind::Target, &own.name, own.secret.clone()));
    endpoints
        .chain(targets)
        .chain(links)
        .chain(keys.map(|key| Secret { kind: Kind::PrivateKey, key: key.owner, value: key.pem }))
        .chain(hashing.into_iter().map(|node| of(Kind::HashKey, node, hex(&system_bytes::<16>()))))
        .collect()
}

/// What a source with this scheme signs with.
pub(super) fn source_secret(scheme: SchemeName) -> String {
    match scheme {
        SchemeName::StandardWebhooks => signing_secret(),
        SchemeName::GitHub | SchemeName::Hmac => hex(&system_bytes::<20>()),
    }
}

/// `whsec_<base64>`.
pub(super) fn signing_secret() -> String {
    format!("whsec_{}", base64(&system_bytes::<32>()))
}

/// Whether a node of the shape needs a secret.
pub(super) fn needs(shape: Shape, node: &str, secret: &Secret) -> bool {
    let key = secret.key.as_str();
    match (secret.kind, shape.egresses.iter().find(|egress| egress.name == node)) {
        (Kind::Endpoint | Kind::Link, None) => true,
        (Kind::Endpoint, Some(_)) | (Kind::Target, None) => false,
        (Kind::Target, Some(egress)) => egress.targets.contains(&key),
        (Kind::PrivateKey, None) => [node, PUBLIC].contains(&key),
        (Kind::Link | Kind::PrivateKey, Some(_)) | (Kind::HashKey, _) => key == node,
    }
}

/// Writes each into the file that [`Lab::secret`] names, and what sources and targets are told.
pub(super) fn write_files(lab: &Lab) -> Result<(), LabError> {
    let directory = lab.directory.join("secrets");
    fs::create_dir(&directory).map_err(LabError::file(&directory))?;
    for secret in &lab.secrets {
        write_file(&lab.secret_file(secret.kind, &secret.key), secret.value.as_bytes(), 0o600)?;
    }
    write_json(lab.directory.join("endpoints.json"), &lab.endpoints[..])?;
    write_json(lab.directory.join("targets.json"), &lab.targets[..])
}

fn write_json(path: PathBuf, value: &(impl serde::Serialize + ?Sized)) -> Result<(), LabError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|source| LabError::Json { path: path.clone(), source })?;
    write_file(&path, text.as_bytes(), 0o600)
}
