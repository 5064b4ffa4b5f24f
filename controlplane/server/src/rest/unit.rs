//! A request as a unit of work: one place where person, route, target and transaction are known together.
//!
//! A step does its work in the transaction; here it is asked who may, whether it was done before, and here it is committed.
//! What has to be kept with a change, whoever made it, is kept in [`Server::perform`], before it commits.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zen_audit::Outcome;

use super::head::Conditions;
use super::idempotency::{self, Key};
use super::permission::{Scope, may};
use super::problem::Fault;
use super::route::Route;
use super::{Server, json};
use crate::audit::{self, Act};
use crate::database::begin;
use crate::directory::Directory;
use crate::people::{self, Caller, Person};
use crate::{Database, database, sign_in, store};

/// A request, read.
pub(crate) struct Call {
    pub(crate) request_id: String,
    pub(crate) caller: Caller,
    /// As it came, for the log.
    pub(crate) target: String,
    /// Of the path, each a name.
    pub(crate) names: BTreeMap<String, String>,
    pub(crate) query: BTreeMap<&'static str, String>,
    pub(crate) conditions: Conditions,
    pub(crate) key: Option<Key>,
    pub(crate) body: Option<Value>,
}

/// What a step has.
pub(crate) struct Unit<'a> {
    pub(crate) database: &'a Connection,
    pub(crate) directory: &'a Directory,
    pub(crate) trust_domain: &'a str,
    pub(crate) document: &'a str,
    pub(crate) person: &'a Person,
    pub(crate) now_ms: u64,
}

/// What is answered when all went well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// JSON.
    pub(crate) body: Option<String>,
    /// The `ETag`.
    pub(crate) revision: Option<i64>,
    /// The Location.
    pub(crate) location: Option<String>,
    /// Its body holds a secret, and is not kept for a second time.
    #[serde(skip)]
    pub(crate) is_once: bool,
    /// What the body is, if it is no JSON.
    #[serde(skip)]
    pub(crate) media: Option<&'static str>,
    /// What was done to whom, for the log of acts, if the path does not say it.
    #[serde(skip)]
    pub(crate) acted_on: Option<String>,
    /// It only shows what would be, so there is nothing to put into the log of acts.
    #[serde(skip)]
    pub(crate) is_shown_only: bool,
}

impl Call {
    /// A name of the path.
    pub(crate) fn name(&self, which: &str) -> &str {
        self.names.get(which).map_or("", String::as_str)
    }

    /// The body as an object of a type.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        json::decode(self.body.clone().unwrap_or_default())
    }
}

impl Answer {
    /// A value.
    pub(crate) fn json(status: u16, value: &impl Serialize) -> Self {
        let body = serde_json::to_string(value).expect("texts and numbers are JSON");
        Self { status, body: Some(body), ..Self::default() }
    }

    /// Nothing to say.
    pub(crate) fn nothing() -> Self {
        Self { status: 204, ..Self::default() }
    }
}

impl Unit<'_> {
    /// Whether the path's tenant is there.
    pub(crate) fn check_tenant(&self, call: &Call) -> Result<(), Fault> {
        let is_there = store::has_tenant(self.database, call.name("tenant"))?;
        if is_there { Ok(()) } else { Err(Fault::NotFound("tenant")) }
    }
}

impl Server {
    /// Does what a request asks for, whole or not at all. What a role does not allow is kept as well.
    pub(crate) fn perform(&self, route: &Route, call: &Call, now_ms: u64) -> Result<Answer, Fault> {
        let mut database = self.database();
        if let Caller::Session(session) = &call.caller {
            sign_in::touch(&mut database, *session, now_ms)?;
        }
        let answered = self.perform_in(&mut database, route, call, now_ms);
        if let Err(Fault::Role(_)) = answered {
            let person = people::find(&database, &self.trust_domain, &call.caller, now_ms)?;
            let (action, target) = (route.action(), route.target(call));
            let act = act(call, &person, (&action, &target), Outcome::Refused);
            audit::append_refused(&mut database, &act, now_ms)?;
        }
        answered
    }

    fn perform_in(
        &self,
        database: &mut Database,
        route: &Route,
        call: &Call,
        now_ms: u64,
    ) -> Result<Answer, Fault> {
        let transaction = if route.is_safe() { database.transaction()? } else { begin(database)? };
        let person = people::find(&transaction, &self.trust_domain, &call.caller, now_ms)?;
        check_role(&transaction, route, call, &person)?;
        let unit = Unit {
            database: &transaction,
            directory: &self.directory,
            trust_domain: &self.trust_domain,
            document: &self.document,
            person: &person,
            now_ms,
        };
        if let Some(key) = &call.key
            && let Some(answer) = idempotency::answer_again(&unit, key)?
        {
            return Ok(answer);
        }
        let answer = (route.step)(&unit, call)?;
        if route.is_safe() {
            return Ok(answer);
        }
        if let Some(key) = &call.key {
            idempotency::keep(&unit, key, &answer)?;
        }
        if !answer.is_shown_only {
            append(&unit, route, call, &answer)?;
        }
        let (operation, target, request_id) = (route.operation, &call.target, &call.request_id);
        transaction.commit()?;
        tracing::info!(person = person.name, ?operation, target, request_id, status = answer.status, "done");
        Ok(answer)
    }
}

/// No entry, no act. What was made is named by its own path.
fn append(unit: &Unit<'_>, route: &Route, call: &Call, answer: &Answer) -> Result<(), Fault> {
    let made = answer.location.as_deref().map(|path| path.strip_prefix("/v1/").unwrap_or(path));
    let target = answer.acted_on.as_deref().or(made).map_or_else(|| route.target(call), str::to_owned);
    let action = route.action();
    let act = act(call, unit.person, (&action, &target), Outcome::Done);
    audit::append(unit.database, &act, unit.now_ms)?;
    Ok(())
}

fn act<'a>(
    call: &'a Call,
    person: &'a Person,
    (action, target): (&'a str, &'a str),
    outcome: Outcome,
) -> Act<'a> {
    let (tenant, request_id) = (call.name("tenant"), call.request_id.as_str());
    Act { tenant, actor: &person.actor, action, target, outcome, request_id }
}

/// Whether a role lets somebody do this. To whom has none there, a tenant is one that is not.
fn check_role(database: &Connection, route: &Route, call: &Call, person: &Person) -> Result<(), Fault> {
    let (role, missing) = match route.scope() {
        Scope::Anybody => return Ok(()),
        Scope::Tenant => {
            (people::role_in(database, &person.name, call.name("tenant"))?, Fault::NotFound("tenant"))
        }
        Scope::Installation => {
            (people::role_in(database, &person.name, &database::owner(database)?.tenant)?, Fault::Route)
        }
    };
    let role = role.ok_or(missing)?;
    if may(role, route.operation) { Ok(()) } else { Err(Fault::Role(role.name())) }
}
