//! Which configuration is taken: signed, ours, newer, and one that does not cut us off. All others change nothing.

use base64::prelude::{BASE64_STANDARD, Engine};
use zen_control_api::{Configuration, ConfigurationError, SealedSecret, SignedConfiguration};

use super::{CertificateFault, EnrolledWith, Now, check_certificate};

/// Secrets below it are the agent's: no configuration brings any.
pub const OWN_NAMESPACE: &str = "zen";
/// The same alarm again.
const ALARM_INTERVAL_MS: u64 = 600_000;

/// Takes configurations, each newer than the one before.
#[derive(Debug)]
pub struct Acceptance {
    enrolled: EnrolledWith,
    in_force: u64,
}

/// Why a configuration is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its signature, cluster, version or form.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// It would replace keys that never leave this host.
    #[error("the configuration brings the secret {0}; those below {OWN_NAMESPACE}/ are the agent's own")]
    OwnNamespace(String),
    /// A secret that is no base64.
    #[error("the configuration's secret {0} is no sealed file")]
    Secret(String),
    /// With its roots our own certificate is none.
    #[error("the configuration's trust bundle would end this agent's identity: {0}")]
    TrustBundle(CertificateFault),
}

/// Says whether to raise an alarm: at once for each new reason, and every ten minutes for one that stays.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    last: Option<(String, u64)>,
}

impl Acceptance {
    /// After the version that is in force, 0 if there is none.
    pub fn new(enrolled: EnrolledWith, in_force: u64) -> Self {
        Self { enrolled, in_force }
    }

    /// The version that was taken last, 0 if none was.
    pub fn in_force(&self) -> u64 {
        self.in_force
    }

    /// Takes a configuration, or says why not; `chain` is our own certificate, PEM.
    pub fn handle_configuration(
        &mut self,
        signed: &SignedConfiguration,
        chain: &str,
        now: Now,
    ) -> Result<Configuration, Refusal> {
        let whose = (self.enrolled.tenant.as_str(), self.enrolled.cluster.as_str());
        let read = signed.verify(&self.enrolled.configuration_key, whose, self.in_force)?;
        let own = |name: &&String| name.split('/').next() == Some(OWN_NAMESPACE);
        if let Some(name) = read.secrets.keys().find(own) {
            return Err(Refusal::OwnNamespace(name.clone()));
        }
        let is_sealed = |(_, secret): &(&String, &SealedSecret)| BASE64_STANDARD.decode(&secret.0).is_ok();
        if let Some((name, _)) = read.secrets.iter().find(|secret| !is_sealed(secret)) {
            return Err(Refusal::Secret(name.clone()));
        }
        check_roots(&read.trust_bundle, chain, &self.enrolled.trust_domain, now)?;
        self.in_force = read.version;
        Ok(read)
    }
}

/// A certificate that is over anyway says nothing about roots.
fn check_roots(trust_bundle: &str, chain: &str, trust_domain: &str, now: Now) -> Result<(), Refusal> {
    use zen_identity::SvidError::{Expired, NotYetValid};
    match check_certificate(chain, trust_bundle, trust_domain, now.wall_ms) {
        Ok(_) | Err(CertificateFault::Svid(Expired | NotYetValid)) => Ok(()),
        Err(fault) => Err(Refusal::TrustBundle(fault)),
    }
}

impl Alarm {
    /// Something is wrong.
    pub fn handle_fault(&mut self, reason: &str, now: Now) -> bool {
        let is_due = self.last.as_ref().is_none_or(|(last, at)| {
            last != reason || now.steady_ms.saturating_sub(*at) >= ALARM_INTERVAL_MS
        });
        if is_due {
            self.last = Some((reason.to_owned(), now.steady_ms));
        }
        is_due
    }

    /// All is well: the next fault is a new one.
    pub fn handle_success(&mut self) {
        self.last = None;
    }
}
