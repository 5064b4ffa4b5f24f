//! The API for people: HTTP/1.1 over TLS 1.3, each client known by the certificate of a person.
//!
//! Enters: requests of people whom an owner has added. Leaves: JSON, or a problem (RFC 9457) for everything that is no success.
//! Refused: whoever is no person, is denied or was removed, with the next request even on a connection that is open; what the
//! person's role does not allow; and all that is over its bounds. Routes and document are one table.

mod answer;
mod document;
pub(crate) mod fuzz;
mod head;
mod idempotency;
mod json;
mod listener;
mod page;
mod permission;
mod problem;
mod resources;
mod route;
mod unit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) use self::answer::{nowhere, paths, whole};
pub use self::document::openapi;
pub use self::listener::PeopleListening;
pub use self::permission::permission_table;

pub(crate) use self::head::{Conditions, Tags};
pub(crate) use self::json::parse;
pub(crate) use self::permission::{Operation, may};
pub(crate) use self::problem::{Fault, FieldError, Kind};
pub(crate) use self::resources::routes;
pub(crate) use self::route::{Route, Verb};
pub(crate) use self::unit::{Answer, Call};

use self::idempotency::Running;
use crate::directory::Directory;
use crate::{ControlError, Database, Refusal, database, open_database};

/// Most requests that are read or done at a time.
pub(crate) const PERSON_WORK_MAX: usize = 16;

/// How long a request waits for its turn.
const PERSON_WORK_TIMEOUT: Duration = Duration::from_secs(5);

/// What all connections share.
pub(crate) struct Server {
    directory: Directory,
    trust_domain: String,
    document: String,
    database: Mutex<Database>,
    running: Running,
    work: Semaphore,
}

impl Server {
    pub(crate) fn open(directory: Directory) -> Result<Arc<Self>, ControlError> {
        let database = open_database(&directory)?;
        let trust_domain = database::owner(&database)?.trust_domain;
        Ok(Arc::new(Self {
            directory,
            trust_domain,
            document: openapi(),
            database: Mutex::new(database),
            running: Running::default(),
            work: Semaphore::new(PERSON_WORK_MAX),
        }))
    }

    /// Of all identities.
    pub(crate) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// One of [`PERSON_WORK_MAX`], when it is free.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let turn = tokio::time::timeout(PERSON_WORK_TIMEOUT, self.work.acquire()).await;
        turn.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Ending)
    }

    pub(crate) fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
