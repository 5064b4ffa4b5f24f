//! Faults, sorted by whose they are: a client's is a problem for it, ours is one for the operator.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use zen_audit::{EntryError, ExportError};
use zen_control_api::{BundleError, ConfigurationError, LinkStatementError, Problem, ProblemType};
use zen_identity::{IdentityError, SpiffeIdError, SvidError};

use crate::csr::CsrFault;
use crate::recovery::RecoveryFault;

/// Why a request is not granted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The body is not the object that it should be.
    #[error("the body breaks its schema at line {line}, column {column}: {class}")]
    Body {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// In what way.
        class: &'static str,
    },
    /// The body did not come, or not in time.
    #[error("the body ended early or came too slowly")]
    BodyLost,
    /// The body is too long.
    #[error("the body has over {max} bytes")]
    BodyLength {
        /// How many it may have.
        max: usize,
    },
    /// The query is not the one that the route has.
    #[error("the query is not {0}")]
    Query(&'static str),
    /// A field holds what it may not.
    #[error("{0}")]
    Field(&'static str),
    /// Neither route nor method.
    #[error("there is no such route for this method")]
    Route,
    /// A route for the other kind of client.
    #[error("this route is for {0}")]
    Client(&'static str),
    /// No bundle has this id and the key of this connection.
    #[error("no bundle has this id and the key that the connection was made with")]
    Bundle,
    /// No identity was enrolled with this key.
    #[error("no agent of this cluster was enrolled with the key that the connection was made with")]
    Binding,
    /// The identity is not recovered.
    #[error("{0}")]
    Recovery(RecoveryFault),
    /// A nonce that is none, or no more.
    #[error("get another nonce: each is good for one attempt, within 60 s, for its bundle or key")]
    Nonce,
    /// The signature does not hold.
    #[error("the signature is not by the key of the connection, for this request and this connection")]
    Proof,
    /// The request for a certificate asks for what it may not.
    #[error("{0}")]
    Csr(#[from] CsrFault),
    /// The key is not new.
    #[error("the key was used before: make a new one")]
    KeySeen,
    /// Too late, or an operator said so.
    #[error("the bundle is over or was revoked: ask for a new one")]
    BundleOver,
    /// Somebody else was faster.
    #[error("another key was enrolled with this bundle: if that was not you, deny it, and make a new bundle")]
    BundleConsumed,
    /// This control plane did not issue the certificate, or it is of an earlier enrollment.
    #[error("the certificate is not of the identity's present enrollment: enroll again")]
    Superseded,
    /// On the deny list.
    #[error("the identity is denied")]
    Denied,
    /// Locked now or before.
    #[error(
        "the identity is locked because it seems to be used in two places: enroll again with a new bundle"
    )]
    Locked,
    /// Not a member of this cluster.
    #[error("the cluster's configuration has no such member")]
    Member,
    /// The connection is older than what the client claims.
    #[error(
        "the connection was made with the certificate of generation {connection}: connect with the newest"
    )]
    Connection {
        /// Of the connection's certificate.
        connection: i64,
    },
    /// A member's generation is not what is known of it.
    #[error("the member's certificate has generation {current}; say 0 if it was lost")]
    Generation {
        /// What is known.
        current: i64,
    },
    /// A statement about link keys that no agent would take.
    #[error("{0}")]
    LinkStatement(LinkStatementError),
    /// The cluster has no links with the peer of a statement.
    #[error("the cluster's configuration has no link with this peer; wait for the one that has it")]
    Link,
    /// Not newer than what was said before.
    #[error("the statement is not newer than the one before: is the clock of its host right?")]
    OlderStatement,
    /// With the statement, the peer's configuration is over its bounds.
    #[error("the peer's configuration has no room for the statement: make it smaller")]
    PeerFull,
    /// What the database holds is not what was put there.
    #[error("control.db: {0}")]
    Kept(String),
    /// Too much at once.
    #[error("try again in a moment")]
    Busy,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    Issue(#[from] rcgen::Error),
    /// The issuing CA is at its end.
    #[error("the issuing CA is over; run: zen-control authority renew")]
    AuthorityOver,
    /// No entry of the audit log could be made for it.
    #[error("{0}")]
    Control(Box<ControlError>),
    /// The process is ending.
    #[error("the control plane is ending")]
    Ending,
}

impl Refusal {
    /// Which problem it is.
    pub fn kind(&self) -> ProblemType {
        match self {
            Self::Body { .. } | Self::BodyLost | Self::Query(_) | Self::Field(_) | Self::LinkStatement(_) => {
                ProblemType::Malformed
            }
            Self::BodyLength { .. } => ProblemType::TooLarge,
            Self::Route => ProblemType::NotFound,
            Self::Client(_) | Self::Bundle | Self::Superseded | Self::Denied | Self::Member | Self::Link => {
                ProblemType::Forbidden
            }
            Self::Binding => ProblemType::Forbidden,
            Self::Recovery(RecoveryFault::Good { .. }) => ProblemType::Conflict,
            Self::Recovery(_) => ProblemType::RecoveryRefused,
            Self::Nonce => ProblemType::NonceRefused,
            Self::Proof => ProblemType::ProofRefused,
            Self::Csr(_) | Self::KeySeen => ProblemType::CsrRefused,
            Self::BundleOver => ProblemType::BundleExpired,
            Self::BundleConsumed => ProblemType::BundleConsumed,
            Self::Locked => ProblemType::CloneSuspected,
            Self::Connection { .. } | Self::Generation { .. } | Self::OlderStatement | Self::PeerFull => {
                ProblemType::Conflict
            }
            Self::Busy => ProblemType::Busy,
            Self::Database(error) if is_contention(error) => ProblemType::Busy,
            Self::Database(_) | Self::Issue(_) | Self::AuthorityOver | Self::Ending | Self::Kept(_) => {
                ProblemType::Internal
            }
            Self::Control(_) => ProblemType::Internal,
        }
    }

    /// What the client is told; of our own faults, nothing but that they are ours.
    pub fn problem(&self) -> Problem {
        match self.kind() {
            ProblemType::Internal => {
                ProblemType::Internal.with("try again later; the operator's log says why")
            }
            ProblemType::Busy => ProblemType::Busy.with(Self::Busy),
            kind => kind.with(self),
        }
    }
}

/// A command held the database for longer than we wait.
fn is_contention(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Database(error) => error.into(),
            error => Self::Control(Box::new(error)),
        }
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        let class = match error.classify() {
            serde_json::error::Category::Data => "a field is missing, unknown, doubled or of another type",
            serde_json::error::Category::Eof => "it ends early",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "it is not JSON",
        };
        Self::Body { line: error.line(), column: error.column(), class }
    }
}

/// Why a command or the start failed; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is a control plane, or something else, already.
    #[error("{}: exists already; choose another directory, a control plane is never made anew in place", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Others may look into the directory.
    #[error("{}: mode {mode:04o} lets others in; run: chmod 0700 {}", path.display(), path.display())]
    Mode {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file holds something else.
    #[error("{}: is not {what}; restore it from a backup, or for the issuing CA run: zen-control authority renew", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// A file is too long.
    #[error("{}: over {max} bytes", path.display())]
    Length {
        /// Which one.
        path: PathBuf,
        /// How many it may have.
        max: u64,
    },
    /// A name that is none.
    #[error("the trust domain: {0}")]
    TrustDomain(SpiffeIdError),
    /// A SPIFFE id that is none.
    #[error("{id}: {source}")]
    Id {
        /// What was given.
        id: String,
        /// What is wrong with it.
        source: SpiffeIdError,
    },
    /// A server or a command uses it.
    #[error("{}: is in use; stop the server, and wait for commands", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
    },
    /// A copy is put into it.
    #[error("{}: is being restored; wait for the end of that", path.display())]
    Restoring {
        /// Which directory.
        path: PathBuf,
    },
    /// The file of a server's settings.
    #[error("{}: {source}", path.display())]
    Settings {
        /// Which one.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Argument(&'static str),
    /// A member that cannot be.
    #[error("member {name}: {fault}")]
    Member {
        /// Its name.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A bundle with a name or address that is none.
    #[error("{0}")]
    Bundle(#[from] BundleError),
    /// A configuration that agents would refuse.
    #[error("{0}")]
    Configuration(#[from] ConfigurationError),
    /// The file of a configuration.
    #[error("{}: {source}", path.display())]
    Json {
        /// Which one.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// The database.
    #[error("control.db: {0}")]
    Database(#[from] rusqlite::Error),
    /// Made by another version of this program.
    #[error("control.db has schema {found}, this program knows {known}; use the program that made it")]
    Schema {
        /// What is there.
        found: i64,
        /// What is known.
        known: i64,
    },
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    Issue(#[from] rcgen::Error),
    /// The issuing CA is at its end.
    #[error("the issuing CA is over; run: zen-control authority renew")]
    AuthorityOver,
    /// A key that is not the root's.
    #[error(
        "the key is not that of root {number}; give the right one: zen-control authority renew --root-key FILE"
    )]
    RootKey {
        /// Which root.
        number: u64,
    },
    /// Somebody needs the old root.
    #[error(
        "{stragglers} do not know the new root, and {leaves} good certificates lead to the old one; see: zen-control \
         authority status, or break them with --force"
    )]
    RootInUse {
        /// Agents and nodes.
        stragglers: usize,
        /// Certificates.
        leaves: u64,
    },
    /// An entry that the audit log cannot take.
    #[error("the audit log takes no such entry, so nothing was changed: {0}")]
    AuditEntry(#[from] EntryError),
    /// Hashes that earlier entries left are missing, or there are those of entries that are not there.
    #[error(
        "control.db: entries or hashes of the audit log are missing, so nothing is changed any more; see what: \
         zen-control audit verify, then restore a backup"
    )]
    AuditDamaged,
    /// Something in the audit log does not hold.
    #[error(
        "the audit log was changed: {0}; keep control.db as it is, and compare with an export or a backup"
    )]
    AuditFault(ExportError),
    /// The key of the audit log is lost.
    #[error("{}: is not there; restore it from a backup: no agent takes checkpoints of another key", path.display())]
    AuditKey {
        /// Where.
        path: PathBuf,
    },
    /// The audit log is not the one that was signed for last.
    #[error(
        "{}: {fault}; bring back the newest database, or this file if it was moved, or go on without the entries that \
         are lost: zen-control run --accept-truncation", file.display()
    )]
    AuditTruncated {
        /// What tells of it.
        file: PathBuf,
        /// In what way.
        fault: &'static str,
    },
    /// The server did not give a token.
    #[error("no token: {0}")]
    Login(String),
    /// Somebody has to be owner.
    #[error("the last owner of a tenant stays, as owner; make another one first")]
    LastOwner,
    /// The listener's own identity.
    #[error("{0}")]
    Identity(#[from] IdentityError),
    /// An own certificate that peers would refuse.
    #[error("the certificates of this directory do not hold: {0}")]
    Svid(#[from] SvidError),
}

impl ControlError {
    /// For `map_err` on what concerns one path.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
