//! Whether another cluster's agent said something: its signature, under a certificate that our roots and deny list admit.

use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use zen_control_api::{LinkKeys, LinkStatement, LinkStatementError};
use zen_identity::DenyList;

use super::{CertificateFault, agent_id, check_certificate};

/// Under whose word statements are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Judge<'a> {
    /// Of all identities.
    pub trust_domain: &'a str,
    /// Our cluster.
    pub cluster: &'a str,
    /// Roots of the trust domain, PEM.
    pub roots: &'a str,
    /// Who is not let in any more.
    pub deny_list: &'a DenyList,
    /// Unix ms.
    pub wall_ms: u64,
}

/// Why a statement is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementFault {
    /// Its certificate is not that of the peer's agent, or does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    /// It is denied.
    #[error("its certificate is denied")]
    Denied,
    /// Its signature or form.
    #[error(transparent)]
    Statement(#[from] LinkStatementError),
    /// Said to somebody else, or in somebody else's name.
    #[error("it is of {cluster} for {peer}")]
    Elsewhere {
        /// Whose.
        cluster: String,
        /// To whom.
        peer: String,
    },
}

impl Judge<'_> {
    /// What the agent of `peer` said to us.
    pub fn check(&self, peer: &str, statement: &LinkStatement) -> Result<LinkKeys, StatementFault> {
        let certificate = check_certificate(&statement.chain, self.roots, self.trust_domain, self.wall_ms)?;
        let expected = agent_id(self.trust_domain, peer);
        if certificate.spiffe_id != expected {
            return Err(CertificateFault::Id { expected, found: certificate.spiffe_id }.into());
        }
        if self.is_denied(&statement.chain) {
            return Err(StatementFault::Denied);
        }
        let said = statement.verify(&certificate.public_key)?;
        if said.cluster != peer || said.peer != self.cluster {
            return Err(StatementFault::Elsewhere { cluster: said.cluster, peer: said.peer });
        }
        Ok(said)
    }

    fn is_denied(&self, chain: &str) -> bool {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).filter_map(Result::ok).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_millis(self.wall_ms));
        self.deny_list.denies(&chain, now).is_some()
    }
}
