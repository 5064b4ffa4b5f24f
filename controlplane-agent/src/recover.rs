//! Recovery of the agent's own identity, once its certificate has ended: binding key, nonce, proof, on one connection.

use zen_control_api::{CertificateAnswer, SigningKey};
use zen_identity::IdentityError;

use crate::control_plane::{ControlError, ControlPlane};
use crate::core::{EnrolledWith, NotOver, Recovering};
use crate::enroll::open_binding;
use crate::key::PrivateKey;
use crate::lockd::{Lockd, LockdError};

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    #[error(transparent)]
    Lockd(#[from] LockdError),
    #[error("zen/agent/binding in lockd is no key that the agent made; enroll again with a new bundle")]
    Binding,
    #[error("the trust bundle cannot be used: {0}")]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    NotOver(#[from] NotOver),
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// What is known of the identity that is over.
pub(crate) struct Over<'a> {
    pub(crate) enrolled: &'a EnrolledWith,
    /// PEM.
    pub(crate) roots: &'a str,
    pub(crate) not_after_ms: u64,
}

/// A certificate for a new key, which is sealed and on disk.
pub(crate) async fn recover(
    over: &Over<'_>,
    lockd: &Lockd,
    key: &PrivateKey,
) -> Result<CertificateAnswer, RecoverError> {
    let binding: SigningKey = open_binding(lockd)?.ok_or(RecoverError::Binding)?;
    let mut connection = ControlPlane::by_binding(over.enrolled, &binding, over.roots)?.connect().await?;
    let cluster = over.enrolled.cluster.as_str();
    let nonce = connection.recovery_nonce(cluster).await?;
    let csr = key.request();
    let recovering = Recovering { cluster, csr: &csr, not_after_ms: over.not_after_ms };
    let request = recovering.handle_nonce(&nonce, &connection.exporter(), &binding)?;
    Ok(connection.recover(&request).await?)
}
