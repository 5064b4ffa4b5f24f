//! What agents may ask, as functions: time is an argument, and so is what the connection proved.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rcgen::PublicKeyData as _;
use zen_control_api::{
    CertificateAnswer, CertificateRequest, EXPORTER_BYTES, EnrollmentAnswer, EnrollmentProof,
    EnrollmentRequest, Hex16, LinkStatement, NONCE_BYTES, NonceAnswer, SignedConfiguration, SigningKey,
    StatusReport,
};
use zen_identity::SpiffeId;

use crate::audit::Keeper;
use crate::csr::check_csr;
use crate::database::{begin, integer, open_reader, owner};
use crate::enrollment::{Enrollment, KnownBundle};
use crate::metrics::Kept;
use crate::news::{self, News};
use crate::nonces::Nonces;
use crate::session::{check_session, is_seen, mark_seen};
use crate::witnessing::keep_cosigned;
use crate::{
    Advanced, AgentSession, AuditSettings, Authority, ControlError, Database, Directory, Refusal, SessionKey,
    audit, authority, certificates, configuration, deliveries, enrollment, link_keys, open_database,
    overview,
};

/// Most members of a report.
const REPORT_MEMBERS_MAX: usize = 256;
/// Most requests that read the database at the same instant; they do not wait for the one that writes.
const READERS_MAX: usize = 4;

/// The control plane, without sockets and clocks.
pub struct Control {
    authority: RwLock<Arc<Authority>>,
    trust_domain: String,
    configuration_key: SigningKey,
    pub(crate) keeper: Keeper,
    database: Mutex<Database>,
    readers: [Mutex<Database>; READERS_MAX],
    /// Where the next one that reads looks first.
    turn: AtomicUsize,
    nonces: Mutex<Nonces>,
}

/// What is written down with others.
#[derive(Debug)]
pub(crate) enum Note {
    /// A certificate was used in a handshake, for the first time.
    Seen {
        /// Which one.
        key: SessionKey,
        /// Unix ms.
        at_ms: u64,
    },
    /// An agent cosigned a checkpoint.
    Cosigned {
        /// Whose.
        cluster: String,
        /// As notes write keys.
        witness_key: String,
        /// A note.
        cosigned: String,
        /// Unix ms.
        at_ms: u64,
    },
    /// What an agent reports.
    Report {
        /// Whose.
        cluster: String,
        /// The report.
        report: StatusReport,
        /// Unix ms.
        at_ms: u64,
    },
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
        Self::open_with(directory, &AuditSettings::default())
    }

    /// The same with settings for its audit log.
    pub fn open_with(directory: &Directory, audit: &AuditSettings) -> Result<Self, ControlError> {
        let database = open_database(directory)?;
        let keeper = Keeper::open(directory, &database, audit)?;
        let trust_domain = owner(&database)?.trust_domain;
        let authority = Authority::load(directory)?;
        let configuration_key = authority::configuration_key(directory)?;
        let mut readers = Vec::with_capacity(READERS_MAX);
        for _ in 0..READERS_MAX {
            readers.push(Mutex::new(open_reader(directory)?));
        }
        Ok(Self {
            authority: RwLock::new(Arc::new(authority)),
            trust_domain,
            configuration_key,
            keeper,
            database: Mutex::new(database),
            readers: readers.try_into().expect("as many as there are places"),
            turn: AtomicUsize::new(0),
            nonces: Mutex::default(),
        })
    }

    /// Of all identities.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Who issues.
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the CAs again if the directory has others by now; whether it has.
    pub fn refresh_authority(&self, directory: &Directory) -> Result<bool, ControlError> {
        if self.authority().is_current(directory)? {
            return Ok(false);
        }
        let next = Arc::new(Authority::load(directory)?);
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(true)
    }

    /// Does with the CAs what is due, and issues by what they are then.
    pub fn advance_authority(&self, directory: &Directory, now_ms: u64) -> Result<Advanced, ControlError> {
        let advanced = authority::advance(directory, &mut self.database(), now_ms)?;
        self.refresh_authority(directory)?;
        Ok(advanced)
    }

    /// Whether some bundle has this key, or some agent as its binding key.
    pub fn is_bundle_key(&self, client: &[u8; 32]) -> Result<bool, Refusal> {
        let sql = "SELECT EXISTS (SELECT 1 FROM bundles WHERE public_key = ?1)
            OR EXISTS (SELECT 1 FROM identities WHERE binding_key = ?1)";
        Ok(self.reader().query_row(sql, (client,), |row| row.get(0))?)
    }

    /// A nonce, `random`, for the holder of a bundle.
    pub fn nonce(
        &self,
        client: &[u8; 32],
        bundle_id: Hex16,
        random: [u8; NONCE_BYTES],
        now_ms: u64,
    ) -> Result<NonceAnswer, Refusal> {
        KnownBundle::find(&self.reader(), bundle_id, client)?.check(now_ms)?;
        let nonce = self.nonces().give(random, *client, now_ms)?;
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
        self.nonces().take(&request.nonce, attempt.client, now_ms)?;
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
        if request.binding_key.0.0 == *attempt.client {
            return Err(Refusal::Field("binding_key is the bundle's key; make one of its own"));
        }
        let authority = self.authority();
        let enrollment = Enrollment {
            bundle_id: request.bundle_id,
            client: attempt.client,
            id: &id,
            key: &key,
            binding_key: &request.binding_key,
            source: attempt.source,
        };
        let mut database = self.database();
        let given = enrollment::enroll(begin(&mut database)?, &*authority, &enrollment, now_ms);
        if let Err(Refusal::BundleConsumed) = given {
            audit::append_consumed(&mut database, (request.bundle_id, &bundle.cluster), now_ms)?;
        }
        let given = given?;
        let answer = given.answer(&*authority, now_ms);
        Ok(EnrollmentAnswer {
            certificate_chain: answer.certificate_chain,
            trust_bundle: answer.trust_bundle,
            generation: answer.generation,
            server_time_ms: answer.server_time_ms,
        })
    }

    /// Whether nothing is known yet of a certificate's use in a handshake.
    pub(crate) fn is_first_use(&self, key: &SessionKey) -> Result<bool, Refusal> {
        Ok(!is_seen(&self.reader(), key)?)
    }

    /// Writes down what came meanwhile, all of it or none.
    pub(crate) fn keep(&self, notes: &[Note]) -> Result<(), Refusal> {
        let mut database = self.database();
        let transaction = begin(&mut database)?;
        for note in notes {
            match note {
                Note::Seen { key, at_ms } => mark_seen(&transaction, key, *at_ms)?,
                Note::Cosigned { cluster, witness_key, cosigned, at_ms } => {
                    let whose = (self.trust_domain.as_str(), cluster.as_str());
                    keep_cosigned(&transaction, whose, (witness_key, cosigned), *at_ms)?;
                }
                Note::Report { cluster, report, at_ms } => {
                    overview::keep_report(&transaction, cluster, report, *at_ms)?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// Whether an agent may speak.
    pub fn session(&self, key: &SessionKey, now_ms: u64) -> Result<AgentSession, Refusal> {
        check_session(&self.reader(), key, now_ms)
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
        let authority = self.authority();
        let mut database = self.database();
        let transaction = begin(&mut database)?;
        let agent = check_session(&transaction, key, now_ms)?;
        let given = certificates::certify(transaction, &*authority, &agent, request, now_ms)?;
        Ok(given.answer(&*authority, now_ms))
    }

    /// Who asks, and the configuration of its cluster if that is newer than `after`.
    pub fn configuration(
        &self,
        key: &SessionKey,
        after: u64,
        now_ms: u64,
    ) -> Result<(AgentSession, Option<SignedConfiguration>), Refusal> {
        let database = self.reader();
        let agent = check_session(&database, key, now_ms)?;
        let newer = configuration::newer(&database, &agent.cluster, integer(after))?;
        Ok((agent, newer))
    }

    /// What an agent reports, to be written down.
    pub(crate) fn report(
        &self,
        key: &SessionKey,
        report: StatusReport,
        now_ms: u64,
    ) -> Result<Note, Refusal> {
        if report.members.len() > REPORT_MEMBERS_MAX {
            return Err(Refusal::Field("members are more than 256"));
        }
        let AgentSession { cluster, .. } = self.session(key, now_ms)?;
        Ok(Note::Report { cluster, report, at_ms: now_ms })
    }

    /// Gives what an agent says of links to the agent at their other end.
    pub fn state_links(&self, key: &SessionKey, said: &LinkStatement, now_ms: u64) -> Result<(), Refusal> {
        let mut database = self.database();
        let transaction = begin(&mut database)?;
        let agent = check_session(&transaction, key, now_ms)?;
        link_keys::keep(&transaction, &agent.cluster, said, &self.configuration_key)?;
        let peer = said.unverified().map_err(Refusal::LinkStatement)?.peer.clone();
        let what = ("link-keys.put", format!("link-keys/{peer}"));
        audit::append_agent(&transaction, (&agent.id, &agent.cluster), (what.0, &what.1), now_ms)?;
        Ok(transaction.commit()?)
    }

    /// What agents wait for, if there is any since `known` was read.
    pub(crate) fn news(&self, known: &News, now_ms: u64) -> Result<Option<News>, Refusal> {
        let database = self.reader();
        let is_old = news::changes(&database)? != known.changes
            || known.next_end_ms.is_some_and(|end_ms| end_ms <= now_ms);
        Ok(if is_old { Some(News::read(&database, now_ms)?) } else { None })
    }

    /// What is known of clusters, for metrics.
    pub(crate) fn kept(&self) -> Result<Kept, Refusal> {
        Ok(overview::kept(&self.reader())?)
    }

    /// Drops what is kept for a time: texts of certificates, whose keys and serials stay known, and deliveries.
    pub fn sweep(&self, now_ms: u64) -> Result<(), Refusal> {
        let sql = "UPDATE certificates SET chain = '' WHERE not_after_ms <= ?1 AND chain <> ''";
        let database = self.database();
        database.execute(sql, (integer(now_ms),))?;
        Ok(deliveries::sweep(&database, now_ms)?)
    }

    pub(crate) fn agent_id(&self, cluster: &str) -> Result<SpiffeId, Refusal> {
        SpiffeId::parse(&format!("spiffe://{}/agent/{cluster}", self.trust_domain))
            .map_err(|_| Refusal::Field("the cluster's name is none"))
    }

    pub(crate) fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is free, or the next to be.
    pub(crate) fn reader(&self) -> MutexGuard<'_, Database> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = |index: usize| &self.readers[(first + index) % READERS_MAX];
        let free = (0..READERS_MAX).find_map(|index| in_turn(index).try_lock().ok());
        free.unwrap_or_else(|| in_turn(0).lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn nonces(&self) -> MutexGuard<'_, Nonces> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
