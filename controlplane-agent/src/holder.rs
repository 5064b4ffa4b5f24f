//! One identity that is kept alive, the agent's own or a member's: each renewal with a new key, which is sealed and on disk
//! before it is sent. Whatever fails, the certificate in force stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use zen_control_api::{CertificateAnswer, CertificateRequest, ProblemType};

use crate::clock::{Clock, random};
use crate::control_plane::{ControlError, ControlPlane};
use crate::core::{
    Alarm, CLOCK_WARNED_MS, CertificateFault, EnrolledWith, Now, Renewal, begins_later, check_certificate,
    key_name, skew_ms,
};
use crate::key::PrivateKey;
use crate::lockd::{Lockd, LockdError, own_secret};
use crate::recover::{Over, RecoverError, recover};
use crate::state::{AGENT, Identity, Record, StateDirectory, StateError, own_path};

/// An identity with its timer.
pub(crate) struct Holder {
    pub(crate) name: String,
    pub(crate) identity: Option<Identity>,
    pub(crate) renewal: Renewal,
    /// Why the last attempt failed.
    pub(crate) trouble: Option<String>,
    pending: Option<(u64, PrivateKey)>,
    /// The control plane does not want keys up to this one.
    refused_key: u64,
    /// The control plane has issued more than came here.
    is_behind: bool,
    /// What was issued and begins later, by this host's clock.
    early: Option<Identity>,
    alarm: Alarm,
}

/// What a renewal needs.
pub(crate) struct Means<'a> {
    pub(crate) state: &'a StateDirectory,
    pub(crate) lockd: &'a Lockd,
    pub(crate) clock: Clock,
    pub(crate) enrolled: &'a EnrolledWith,
    pub(crate) way: Way,
}

/// How the control plane knows whose certificate it is to be.
pub(crate) enum Way {
    /// By the agent's certificate.
    Certificate(Arc<ControlPlane>),
    /// By its binding key, since its certificate has ended.
    Binding,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// A new certificate is in force; the control plane's clock less ours, ms, if it was asked now.
    InForce(Option<i64>),
    /// There is one, which begins later.
    Early,
}

/// Why an identity was not renewed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Lockd(#[from] LockdError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the certificate has ended, and is not recovered: {0}")]
    Recover(#[from] RecoverError),
    #[error("the control plane's answer is not installed: {0}")]
    Certificate(#[from] CertificateFault),
}

impl Holder {
    /// With what is on disk.
    pub(crate) fn load(name: &str, state: &StateDirectory, now: Now) -> Result<Self, StateError> {
        let identity = state.identity(name)?;
        let renewal = match &identity {
            Some(identity) => Renewal::of(identity.certificate.validity, now, random()),
            None => Renewal::absent(),
        };
        let name = name.to_owned();
        Ok(Self {
            name,
            identity,
            renewal,
            trouble: None,
            pending: None,
            refused_key: 0,
            is_behind: false,
            early: None,
            alarm: Alarm::default(),
        })
    }

    /// Whether the certificate in force has ended.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.renewal.validity().is_some_and(|validity| validity.not_after_ms <= now.wall_ms)
    }

    /// Gets a certificate for a new key, as `spiffe_id`, or puts the one in force that was waited for.
    pub(crate) async fn renew(&mut self, means: &Means<'_>, spiffe_id: &str) -> Result<Renewed, RenewError> {
        if let Some(early) = self.early.take() {
            return self.handle_early(means, early);
        }
        let (number, key) = match self.pending.take() {
            Some(pending) => pending,
            None => self.make_key(means)?,
        };
        let answer = match self.ask(means, &key).await {
            Ok(answer) => answer,
            Err(error) => {
                self.handle_refusal(&error, (number, key));
                return Err(error);
            }
        };
        let now = means.clock.now();
        let (chain, roots) = (&answer.certificate_chain, &answer.trust_bundle);
        let (domain, recovered) = (&means.enrolled.trust_domain, matches!(means.way, Way::Binding));
        let mut found = check_certificate(chain, roots, domain, now.wall_ms);
        let begins_ms = found.as_ref().err().and_then(|fault| begins_later(chain, fault, now.wall_ms));
        if let Some(begins_ms) = begins_ms {
            found = check_certificate(chain, roots, domain, begins_ms);
        }
        let certificate = found?.for_us(spiffe_id, &key.public_key())?;
        let enrolled = (self.name == AGENT).then(|| means.enrolled.clone());
        let before = self.identity.as_ref().map_or(0, |identity| identity.record.recoveries);
        let recoveries = before + u64::from(recovered);
        let record = Record { key: number, generation: answer.generation, recoveries, enrolled };
        let identity = Identity { record, certificate, roots: answer.trust_bundle };
        let skew_ms = skew_ms(answer.server_time_ms, now);
        if skew_ms.unsigned_abs() > CLOCK_WARNED_MS {
            tracing::warn!(
                skew_ms,
                "this host's clock and the control plane's are apart; is it synchronised?"
            );
        }
        if begins_ms.is_some() {
            return self.handle_early(means, identity);
        }
        self.install(means, identity, now)?;
        Ok(Renewed::InForce(Some(skew_ms)))
    }

    /// The control plane's answer, whichever way it knows us.
    async fn ask(&self, means: &Means<'_>, key: &PrivateKey) -> Result<CertificateAnswer, RenewError> {
        let generation = self.identity.as_ref().filter(|_| !self.is_behind);
        match (&means.way, &self.identity) {
            (Way::Binding, Some(identity)) => {
                let over = Over {
                    enrolled: means.enrolled,
                    roots: &identity.roots,
                    not_after_ms: identity.certificate.validity.not_after_ms,
                };
                Ok(recover(&over, means.lockd, key).await?)
            }
            (Way::Binding, None) => unreachable!("only an identity can be over"),
            (Way::Certificate(control), _) => {
                let request = CertificateRequest {
                    member: (self.name != AGENT).then(|| self.name.clone()),
                    csr: key.request(),
                    generation: generation.map_or(0, |identity| identity.record.generation),
                };
                Ok(control.certificate(&request).await?)
            }
        }
    }

    /// One that begins later by this host's clock is kept until then: a node that has it too early has no identity.
    fn handle_early(&mut self, means: &Means<'_>, identity: Identity) -> Result<Renewed, RenewError> {
        let (now, begins_ms) = (means.clock.now(), identity.certificate.validity.not_before_ms);
        if begins_ms <= now.wall_ms {
            self.install(means, identity, now)?;
            return Ok(Renewed::InForce(None));
        }
        if self.trouble.is_none() {
            tracing::warn!(
                identity = self.name,
                begins_ms,
                "the new certificate has not begun by this host's clock, which is behind; the one in force stays until then"
            );
        }
        self.trouble =
            Some(format!("the new certificate begins at {begins_ms} (Unix ms) by this host's clock"));
        self.renewal.handle_early(begins_ms);
        self.early = Some(identity);
        Ok(Renewed::Early)
    }

    fn install(&mut self, means: &Means<'_>, identity: Identity, now: Now) -> Result<(), RenewError> {
        means.state.install(&self.name, &identity)?;
        self.renewal = Renewal::of(identity.certificate.validity, now, random());
        tracing::info!(
            identity = self.name,
            spiffe_id = identity.certificate.spiffe_id,
            generation = identity.record.generation,
            key = identity.record.key,
            not_after_ms = identity.certificate.validity.not_after_ms,
            "a new certificate is in force"
        );
        let before = self.identity.as_ref().map_or(0, |identity| identity.record.recoveries);
        if identity.record.recoveries > before {
            tracing::warn!(
                identity = self.name,
                recoveries = identity.record.recoveries,
                "alarm: the certificate had ended, and the identity was recovered by the binding key"
            );
        }
        self.identity = Some(identity);
        self.trouble = None;
        self.is_behind = false;
        self.alarm.handle_success();
        Ok(())
    }

    /// It was not renewed; the next attempt is later.
    pub(crate) fn handle_failure(&mut self, reason: String, retry_after_ms: Option<u64>, now: Now) {
        self.renewal.handle_failure(retry_after_ms, now, random());
        if self.alarm.handle_fault(&reason, now) {
            tracing::warn!(
                identity = self.name,
                reason,
                "the certificate is not renewed; the one in force stays"
            );
        }
        self.trouble = Some(reason);
    }

    /// The same key again finds the same answer, unless it is the key that is refused.
    fn handle_refusal(&mut self, error: &RenewError, pending: (u64, PrivateKey)) {
        let kind = match error.control() {
            Some(ControlError::Refused { problem, .. }) => Some(problem.kind),
            _ => None,
        };
        match kind {
            Some(ProblemType::CsrRefused) => self.refused_key = pending.0,
            kind => {
                // Answers of a member's requests were lost; the agent's own are found again by their key.
                self.is_behind |= kind == Some(ProblemType::Conflict) && self.name != AGENT;
                self.pending = Some(pending);
            }
        }
    }

    /// A new key, sealed and on disk; the agent's own is seen to be opened by lockd before anybody knows it.
    fn make_key(&self, means: &Means<'_>) -> Result<(u64, PrivateKey), RenewError> {
        let in_force = self.identity.as_ref().map_or(0, |identity| identity.record.key);
        let present = means.state.keys(&self.name)?;
        let newest = present.into_iter().max().unwrap_or(0);
        if self.name == AGENT && newest > in_force.max(self.refused_key) {
            // It may have been sent before this process began: another one could look like a clone's.
            let pem = means.lockd.open(&own_secret(AGENT, &key_name(newest)))?;
            if let Some(key) = PrivateKey::from_pem(&pem) {
                return Ok((newest, key));
            }
        }
        let number = newest.max(in_force) + 1;
        let key = PrivateKey::generate();
        let values = [(key_name(number), key.pem())];
        let sealed = means.lockd.seal(&self.name, &values, &means.state.scratch())?;
        let new: BTreeMap<String, Vec<u8>> =
            sealed.into_iter().map(|bytes| (own_path(&self.name, &values[0].0), bytes)).collect();
        means.state.publish_secrets(&new, |_| true)?;
        if self.name == AGENT {
            let name = own_secret(AGENT, &values[0].0);
            if *means.lockd.open(&name)? != values[0].1.as_bytes() {
                return Err(LockdError::Other(name).into());
            }
        }
        Ok((number, key))
    }
}

impl RenewError {
    /// When the control plane wants to be asked again, ms.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        self.control()?.retry_after_ms()
    }

    fn control(&self) -> Option<&ControlError> {
        match self {
            Self::Control(error) | Self::Recover(RecoverError::Control(error)) => Some(error),
            Self::State(_) | Self::Lockd(_) | Self::Certificate(_) | Self::Recover(_) => None,
        }
    }
}
