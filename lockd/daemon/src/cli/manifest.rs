//! zen-lock manifests: `spec.encryptedData`, a map from keys to base64 of age files. Labels, annotations and subjects
//! stay as they are, and decide nothing: what a value may be used for is in its envelope.

use std::fs;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Map, Value, json};
use zen_lock::{NameError, SecretName};
use zen_lockd::files::replace;

use super::error::CliError;

const API_VERSION: &str = "security.kube-zen.io/v1alpha1";
const KIND: &str = "ZenLock";
const BYTES_MAX: u64 = 4 << 20;
const MODE: u32 = 0o644;

/// A manifest as it was written.
#[derive(Debug)]
pub(crate) struct Manifest(Value);

/// Why a file is no manifest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("{}: is neither a directory nor a ZenLock manifest ({API_VERSION}) in YAML or JSON", .0.display())]
    Kind(PathBuf),
    #[error("the manifest has no {0}")]
    Missing(&'static str),
    #[error("encryptedData.{0}: is no base64")]
    Base64(String),
    #[error("encryptedData.{key}: {source}")]
    Name { key: String, source: NameError },
    #[error("the manifest cannot be written as YAML")]
    Write,
}

impl Manifest {
    /// A new manifest without values.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"algorithm": "age", "encryptedData": {}},
        }))
    }

    /// Reads a file; YAML or JSON.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let kind = || CliError::from(ManifestError::Kind(path.to_owned()));
        if fs::metadata(path).map_err(CliError::io(path))?.len() > BYTES_MAX {
            return Err(kind());
        }
        let text = fs::read_to_string(path).map_err(|_| kind())?;
        let value: Value = serde_saphyr::from_str(&text).map_err(|_| kind())?;
        if value["apiVersion"] != API_VERSION || value["kind"] != KIND {
            return Err(kind());
        }
        Ok(Self(value))
    }

    /// Values by name.
    pub(crate) fn entries(&self) -> Result<Vec<(SecretName, Vec<u8>)>, ManifestError> {
        let text = |field: &'static str| {
            self.0["metadata"][field].as_str().ok_or(ManifestError::Missing(match field {
                "name" => "metadata.name",
                _ => "metadata.namespace",
            }))
        };
        let (namespace, name) = (text("namespace")?, text("name")?);
        let values = self.0["spec"]["encryptedData"].as_object();
        let values = values.ok_or(ManifestError::Missing("spec.encryptedData"))?;
        let entries = values.iter().map(|(key, value)| {
            let failed = |source| ManifestError::Name { key: key.clone(), source };
            let place = SecretName::new(namespace, name, key).map_err(failed)?;
            let sealed = value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
            Ok((place, sealed.ok_or_else(|| ManifestError::Base64(key.clone()))?))
        });
        entries.collect()
    }

    /// Sets a value.
    pub(crate) fn set(&mut self, key: &str, sealed: &[u8]) {
        let values = self.0["spec"]["encryptedData"].as_object_mut();
        let mut empty = Map::new();
        values.unwrap_or(&mut empty).insert(key.to_owned(), BASE64_STANDARD.encode(sealed).into());
    }

    /// Writes the file, or with `-` to the standard output.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CliError> {
        let text = serde_saphyr::to_string(&self.0).map_err(|_| ManifestError::Write)?;
        if path.as_os_str() == "-" {
            print!("{text}");
            return Ok(());
        }
        replace(path, text.as_bytes(), MODE).map_err(CliError::io(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back_with_what_else_is_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock.yaml");
        let text = "apiVersion: security.kube-zen.io/v1alpha1\nkind: ZenLock\nmetadata:\n  name: webhooks\n  \
                    namespace: edge\n  labels: {a: b}\nspec:\n  encryptedData: {github: YWdl}\n  allowedSubjects: \
                    [{kind: ServiceAccount, name: x, namespace: y}]\n";
        fs::write(&path, text).unwrap();
        let mut manifest = Manifest::read(&path).unwrap();
        let name = SecretName::parse("edge/webhooks/github").unwrap();
        assert_eq!(manifest.entries().unwrap(), [(name.clone(), b"age".to_vec())]);
        manifest.set("github", b"new");
        manifest.write(&path).unwrap();
        let again = Manifest::read(&path).unwrap();
        assert_eq!(again.entries().unwrap(), [(name, b"new".to_vec())]);
        assert_eq!(again.0["metadata"]["labels"]["a"], "b");
        assert_eq!(again.0["spec"]["allowedSubjects"][0]["name"], "x");
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock.yaml");
        for text in ["", "[]", "kind: ZenLock", "apiVersion: v1\nkind: Secret\n", "\u{0}", "a: [", "&a [*a]"]
        {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(Manifest::read(&path), Err(CliError::Manifest(ManifestError::Kind(_)))),
                "{text}"
            );
        }
        let of = |more: Value| {
            let mut manifest = Manifest::new("edge", "webhooks");
            manifest.0["spec"]["encryptedData"] = more;
            manifest.entries()
        };
        assert!(matches!(of(json!(null)), Err(ManifestError::Missing(_))));
        assert!(matches!(of(json!({"a": 1})), Err(ManifestError::Base64(_))));
        assert!(matches!(of(json!({"../a": "YWdl"})), Err(ManifestError::Name { .. })));
    }
}
