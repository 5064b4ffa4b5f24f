//! How an agent whose certificate has ended is known again: by the binding key of its enrollment, on a connection of that key.

use zen_control_api::{EXPORTER_BYTES, NonceAnswer, RecoveryProof, RecoveryRequest, SigningKey};

/// An identity that is over by this host's clock.
#[derive(Clone, Copy, Debug)]
pub struct Recovering<'a> {
    /// Whose agent it is.
    pub cluster: &'a str,
    /// For a new key that is sealed and on disk, PEM.
    pub csr: &'a str,
    /// The end of the certificate in force, Unix ms.
    pub not_after_ms: u64,
}

/// The certificate has not ended: whoever asks all the same looks like a clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the certificate ended by this host's clock, and is good until {not_after_ms} by the control plane's, which says \
     {server_ms} (Unix ms): set the clock; the identity is recovered then, or when that time has come"
)]
pub struct NotOver {
    /// Its end.
    pub not_after_ms: u64,
    /// Theirs.
    pub server_ms: u64,
}

impl Recovering<'_> {
    /// The request for a nonce, on the connection of this exporter.
    pub fn handle_nonce(
        &self,
        answer: &NonceAnswer,
        exporter: &[u8; EXPORTER_BYTES],
        binding: &SigningKey,
    ) -> Result<RecoveryRequest, NotOver> {
        let Self { cluster, csr, not_after_ms } = *self;
        if answer.server_time_ms < not_after_ms {
            return Err(NotOver { not_after_ms, server_ms: answer.server_time_ms });
        }
        let proof = RecoveryProof { cluster, nonce: &answer.nonce, csr, exporter };
        let (cluster, csr) = (cluster.to_owned(), csr.to_owned());
        Ok(RecoveryRequest { cluster, nonce: answer.nonce, csr, signature: proof.sign(binding) })
    }
}
