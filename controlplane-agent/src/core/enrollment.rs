//! The steps from a bundle to an identity; each consumes the one before, and can be repeated from the first.
//!
//! Enters: a bundle, what the state directory knows, answers of the control plane. Refused: a bundle for another cluster or
//! that is over, a clock that is minutes off, a certificate that a peer would refuse. The key is sealed and on disk before
//! [`Enrolling`] exists, and a second run begins with the same one: the control plane has the same answer for it.

use serde::{Deserialize, Serialize};
use zen_control_api::{
    EXPORTER_BYTES, EnrollmentAnswer, EnrollmentBundle, EnrollmentProof, EnrollmentRequest, Hex16,
    NonceAnswer, PublicKey,
};

use super::{Certificate, CertificateFault, Now, check_certificate};

/// A clock that is further off is worth a warning.
pub const CLOCK_WARNED_MS: u64 = 5_000;
/// With a clock that is further off nobody enrolls: the certificate would look as if it were over, or not begun.
pub const CLOCK_REFUSED_MS: u64 = 300_000;

/// What stays of a bundle; nothing of it admits anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledWith {
    /// Which bundle it was.
    pub bundle_id: Hex16,
    /// Whose cluster.
    pub tenant: String,
    /// Which cluster.
    pub cluster: String,
    /// Of all SVIDs.
    pub trust_domain: String,
    /// Where the control plane is, `https://HOST:PORT`, to be tried in order.
    pub control_plane: Vec<String>,
    /// Signs configurations.
    pub configuration_key: PublicKey,
    /// Signs the audit log's checkpoints; without it the first log that is shown is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_key: Option<String>,
}

/// An enrollment that was begun: its key may have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// With which bundle.
    pub bundle_id: Hex16,
    /// With which key.
    pub key: u64,
}

/// What the state directory knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The identity in force.
    pub enrolled: Option<EnrolledWith>,
    /// An enrollment that was begun.
    pub pending: Option<Pending>,
    /// Numbers of the agent's keys.
    pub keys: Vec<u64>,
}

/// Where an enrollment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// This bundle has done its work.
    Enrolled,
    /// The key of this number is sealed, and may have been sent.
    KeySealed(u64),
    /// A key of this number is to be made.
    KeyNeeded(u64),
}

/// Why there is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrollmentRefused {
    /// A state directory belongs to one cluster.
    #[error(
        "this state directory belongs to {tenant}/{cluster}; give the bundle's cluster a state_dir of its own"
    )]
    Elsewhere {
        /// Whose.
        tenant: String,
        /// Which.
        cluster: String,
    },
    /// The bundle's time is over.
    #[error("the bundle expired {} s ago by this host's clock; make a new one", .0 / 1000)]
    Expired(u64),
    /// The clock is off.
    #[error(transparent)]
    Clock(#[from] ClockSkew),
    /// What was issued would be refused.
    #[error("the control plane's answer is not installed: {0}")]
    Certificate(#[from] CertificateFault),
}

/// Our clock and the control plane's are too far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "clock_skew: this host's clock says {own_ms}, the control plane's {server_ms} (Unix ms), {} s apart where {} are \
     allowed; set it, then try again: nothing is spent",
    own_ms.abs_diff(*server_ms) / 1000, CLOCK_REFUSED_MS / 1000
)]
pub struct ClockSkew {
    /// Ours.
    pub own_ms: u64,
    /// Theirs.
    pub server_ms: u64,
}

/// The key is sealed; a nonce is to be asked for.
#[derive(Debug)]
pub struct Enrolling<'a> {
    bundle: &'a EnrollmentBundle,
    csr: String,
    public_key: Vec<u8>,
    binding_key: PublicKey,
}

impl Known {
    /// Where to begin with a bundle.
    pub fn begin(&self, bundle: &EnrollmentBundle, now: Now) -> Result<Begun, EnrollmentRefused> {
        if let Some(enrolled) = &self.enrolled {
            if (&enrolled.tenant, &enrolled.cluster) != (&bundle.tenant, &bundle.cluster) {
                let (tenant, cluster) = (enrolled.tenant.clone(), enrolled.cluster.clone());
                return Err(EnrollmentRefused::Elsewhere { tenant, cluster });
            }
            if enrolled.bundle_id == bundle.bundle_id {
                return Ok(Begun::Enrolled);
            }
        }
        // The control plane decides; a clock that is this far off is an error anyway.
        let over = now.wall_ms.saturating_sub(bundle.expires_at_ms);
        if over > CLOCK_REFUSED_MS {
            return Err(EnrollmentRefused::Expired(over));
        }
        match self.pending {
            Some(Pending { bundle_id, key }) if bundle_id == bundle.bundle_id && self.keys.contains(&key) => {
                Ok(Begun::KeySealed(key))
            }
            _ => Ok(Begun::KeyNeeded(self.keys.iter().copied().max().unwrap_or(0) + 1)),
        }
    }
}

impl<'a> Enrolling<'a> {
    /// With a key that is sealed and on disk.
    pub fn new(
        bundle: &'a EnrollmentBundle,
        (csr, public_key): (String, Vec<u8>),
        binding_key: PublicKey,
    ) -> Self {
        Self { bundle, csr, public_key, binding_key }
    }

    /// The request for a nonce, on the connection of this exporter.
    pub fn handle_nonce(
        &self,
        answer: &NonceAnswer,
        exporter: &[u8; EXPORTER_BYTES],
        now: Now,
    ) -> Result<EnrollmentRequest, EnrollmentRefused> {
        check_clock(answer.server_time_ms, now)?;
        let proof = EnrollmentProof {
            bundle_id: self.bundle.bundle_id,
            nonce: &answer.nonce,
            csr: &self.csr,
            binding_key: &self.binding_key,
            exporter,
        };
        Ok(EnrollmentRequest {
            bundle_id: self.bundle.bundle_id,
            nonce: answer.nonce,
            csr: self.csr.clone(),
            binding_key: self.binding_key,
            signature: proof.sign(&self.bundle.key()),
        })
    }

    /// What may be installed.
    pub fn handle_answer(
        &self,
        answer: &EnrollmentAnswer,
        now: Now,
    ) -> Result<(EnrolledWith, Certificate), EnrollmentRefused> {
        let bundle = self.bundle;
        let found = check_certificate(
            &answer.certificate_chain,
            &answer.trust_bundle,
            &bundle.trust_domain,
            now.wall_ms,
        )?;
        let certificate = found.for_us(&agent_id(&bundle.trust_domain, &bundle.cluster), &self.public_key)?;
        let enrolled = EnrolledWith {
            bundle_id: bundle.bundle_id,
            tenant: bundle.tenant.clone(),
            cluster: bundle.cluster.clone(),
            trust_domain: bundle.trust_domain.clone(),
            control_plane: bundle.control_plane.clone(),
            configuration_key: bundle.configuration_key,
            audit_key: bundle.audit_key.clone(),
        };
        Ok((enrolled, certificate))
    }
}

/// The SPIFFE id of a cluster's agent.
pub fn agent_id(trust_domain: &str, cluster: &str) -> String {
    format!("spiffe://{trust_domain}/agent/{cluster}")
}

/// How far our clock is ahead of the control plane's, ms.
pub fn skew_ms(server_ms: u64, now: Now) -> i64 {
    let apart = i64::try_from(now.wall_ms.abs_diff(server_ms)).unwrap_or(i64::MAX);
    if now.wall_ms < server_ms { -apart } else { apart }
}

/// Refuses a clock that is more than [`CLOCK_REFUSED_MS`] off.
pub fn check_clock(server_ms: u64, now: Now) -> Result<i64, ClockSkew> {
    let skew = skew_ms(server_ms, now);
    if skew.unsigned_abs() > CLOCK_REFUSED_MS {
        return Err(ClockSkew { own_ms: now.wall_ms, server_ms });
    }
    Ok(skew)
}
