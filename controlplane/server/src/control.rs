//! What agents may ask, as functions: time is an argument, and so is what the connection proved.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rcgen::PublicKeyData as _;
use zen_control_api::{
    CertificateAnswer, CertificateRequest, EXPORTER_BYTES, EnrollmentAnswer, EnrollmentProof,
    EnrollmentRequest, Hex16, NONCE_BYTES, NonceAnswer, SignedConfiguration, StatusReport,
};
use zen_identity::{DenyList, SpiffeId};

use crate::csr::check_csr;
use crate::database::{begin, integer, owner};
use crate::enrollment::{Enrollment, KnownBundle};
use crate::nonces::Nonces;
use crate::session::{check_session, mark_seen};
use crate::{
    AgentSession, Authority, ControlError, Database, Directory, Refusal, SessionKey, certificates,
    configuration, deny, enrollment, open_database, overview,
};

/// Most members of a report.
const REPORT_MEMBERS_MAX: usize = 256;

/// The control plane, without sockets and clocks.
pub struct Control {
    authority: Authority,
    trust_domain: String,
    database: Mutex<Database>,
    nonces: Mutex<Nonces>,
}

/// Who asks to be enrolled, as the connection has it.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The key that the connection was made with.
    pub client: &'a [u8; 32],
    /// What both ends exported from it.
    pub exporter: &'a [u8; EXPORTER_BYTES],
    /// Where it comes from, for the log.
    pub source: &'a str,
}

impl Control {
    /// The control plane of a directory.
    pub fn open(directory: &Directory) -> Result<Self, ControlError> {
        let database = open_database(directory)?;
        let trust_domain = owner(&database)?.trust_domain;
        let authority = Authority::load(directory)?;
        let nonces = Mutex::default();
        Ok(Self { authority, trust_domain, database: Mutex::new(database), nonces })
    }

    /// Of all identities.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Who issues.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether some bundle has this key.
    pub fn is_bundle_key(&self, client: &[u8; 32]) -> Result<bool, Refusal> {
        let sql = "SELECT EXISTS (SELECT 1 FROM bundles WHERE public_key = ?1)";
        Ok(self.database().query_row(sql, (client,), |row| row.get(0))?)
    }

    /// A nonce, `random`, for the holder of a bundle.
    pub fn nonce(
        &self,
        client: &[u8; 32],
        bundle_id: Hex16,
        random: [u8; NONCE_BYTES],
        now_ms: u64,
    ) -> Result<NonceAnswer, Refusal> {
        KnownBundle::find(&self.database(), bundle_id, client)?.check(now_ms)?;
        let nonce = self.nonces().give(random, bundle_id, now_ms)?;
        Ok(NonceAnswer { nonce, server_time_ms: now_ms })
    }

    /// Lets an agent in.
    pub fn enroll(
        &self,
        attempt: Attempt<'_>,
        request: &EnrollmentRequest,
        now_ms: u64,
    ) -> Result<EnrollmentAnswer, Refusal> {
        let bundle = KnownBundle::find(&self.database(), request.bundle_id, attempt.client)?;
        self.nonces().take(&request.nonce, request.bundle_id, now_ms)?;
        let proof = EnrollmentProof {
            bundle_id: request.bundle_id,
            nonce: &request.nonce,
            csr: &request.csr,
            binding_key: &request.binding_key,
            exporter: attempt.exporter,
        };
        proof.verify(&bundle.public_key, &request.signature).map_err(|_| Refusal::Proof)?;
        bundle.check(now_ms)?;
        let id = self.agent_id(&bundle.cluster)?;
        let key = check_csr(&request.csr, &id)?;
        if key.der_bytes() == attempt.client {
            return Err(Refusal::KeySeen);
        }
        let enrollment = Enrollment {
            bundle_id: request.bundle_id,
            client: attempt.client,
            id: &id,
            key: &key,
            binding_key: &request.binding_key,
            source: attempt.source,
        };
        let mut database = self.database();
        let given = enrollment::enroll(begin(&mut database)?, &self.authority, &enrollment, now_ms)?;
        let answer = given.answer(&self.authority, now_ms);
        Ok(EnrollmentAnswer {
            certificate_chain: answer.certificate_chain,
            trust_bundle: answer.trust_bundle,
            generation: answer.generation,
            server_time_ms: answer.server_time_ms,
        })
    }

    /// Remembers that a certificate was used in a handshake.
    pub fn mark_seen(&self, key: &SessionKey, now_ms: u64) -> Result<(), Refusal> {
        Ok(mark_seen(&self.database(), key, now_ms)?)
    }

    /// Whether an agent may speak.
    pub fn session(&self, key: &SessionKey, now_ms: u64) -> Result<AgentSession, Refusal> {
        check_session(&self.database(), key, now_ms)
    }

    /// A certificate for the agent itself or a member of its cluster.
    pub fn certify(
        &self,
        key: &SessionKey,
        request: &CertificateRequest,
        now_ms: u64,
    ) -> Result<CertificateAnswer, Refusal> {
        if !request.names_well() {
            return Err(Refusal::Field("member is not a name"));
        }
        let mut database = self.database();
        let transaction = begin(&mut database)?;
        let agent = check_session(&transaction, key, now_ms)?;
        let given = certificates::certify(transaction, &self.authority, &agent, request, now_ms)?;
        Ok(given.answer(&self.authority, now_ms))
    }

    /// The configuration of the agent's cluster, if it is newer than `after`.
    pub fn configuration(
        &self,
        key: &SessionKey,
        after: u64,
        now_ms: u64,
    ) -> Result<Option<SignedConfiguration>, Refusal> {
        let database = self.database();
        let agent = check_session(&database, key, now_ms)?;
        Ok(configuration::newer(&database, &agent.cluster, integer(after))?)
    }

    /// Keeps what an agent reports.
    pub fn report(&self, key: &SessionKey, report: &StatusReport, now_ms: u64) -> Result<(), Refusal> {
        if report.members.len() > REPORT_MEMBERS_MAX {
            return Err(Refusal::Field("members are more than 256"));
        }
        let database = self.database();
        let agent = check_session(&database, key, now_ms)?;
        Ok(overview::keep_report(&database, &agent.cluster, report, now_ms)?)
    }

    /// Who is refused in handshakes, and when that changes by itself.
    pub fn deny_list(&self, now_ms: u64) -> Result<(DenyList, Option<u64>), Refusal> {
        Ok(deny::deny_list(&self.database(), now_ms)?)
    }

    /// Another number after each change that another process made.
    pub fn data_version(&self) -> Result<i64, Refusal> {
        Ok(self.database().pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Drops the texts of certificates that are over; their keys and serials stay known.
    pub fn sweep(&self, now_ms: u64) -> Result<(), Refusal> {
        let sql = "UPDATE certificates SET chain = '' WHERE not_after_ms <= ?1 AND chain <> ''";
        self.database().execute(sql, (integer(now_ms),))?;
        Ok(())
    }

    fn agent_id(&self, cluster: &str) -> Result<SpiffeId, Refusal> {
        SpiffeId::parse(&format!("spiffe://{}/agent/{cluster}", self.trust_domain))
            .map_err(|_| Refusal::Field("the cluster's name is none"))
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
