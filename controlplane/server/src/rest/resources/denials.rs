//! Denials: who is refused before their certificate ends. They act at once, in all clusters, and on people too.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::deny::{self, Denial, REASON_BYTES_MAX, hex};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::{ControlError, Subject};

const DENIALS: &str = "/v1/denials";
const DENIAL: &str = "/v1/denials/{denial}";

/// Whom to deny: by exactly one of id, serial and key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DenialRequest {
    /// An identity.
    #[serde(default)]
    #[schema(max_length = 2048, example = "spiffe://acme.example/edge/node-1")]
    spiffe_id: Option<String>,
    /// A certificate: its serial number, hex.
    #[serde(default)]
    #[schema(max_length = 40)]
    serial: Option<String>,
    /// A key: SHA-256 of its `SubjectPublicKeyInfo`, hex.
    #[serde(default)]
    #[schema(max_length = 64)]
    spki_sha256: Option<String>,
    /// For whoever reads the list.
    #[serde(default)]
    #[schema(max_length = 256)]
    reason: Option<String>,
    /// When it ends by itself, Unix ms.
    #[serde(default)]
    until_ms: Option<u64>,
}

/// A denial.
#[derive(Serialize, ToSchema)]
#[schema(as = Denial)]
struct DenialView {
    /// Names it.
    denial_id: String,
    /// An identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    /// A certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    /// A key.
    #[serde(skip_serializing_if = "Option::is_none")]
    spki_sha256: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When it ends, Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<i64>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Post, DENIALS, Operation::Deny, create)
            .says("Denies somebody, or changes why and until when")
            .takes::<DenialRequest>()
            .gives::<DenialView>(201),
        Route::new(Verb::Get, DENIALS, Operation::Read, list)
            .says("All denials that are in force")
            .query(LIST_QUERY)
            .gives::<List<DenialView>>(200),
        Route::new(Verb::Get, DENIAL, Operation::Read, get).says("One denial").gives::<DenialView>(200),
        Route::new(Verb::Delete, DENIAL, Operation::Deny, delete).says("Takes a denial back"),
    ]
}

fn create(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let request: DenialRequest = call.body()?;
    let (pointer, subject) = match (request.spiffe_id, request.serial, request.spki_sha256) {
        (Some(id), None, None) => ("/spiffe_id", Subject::Id(id)),
        (None, Some(serial), None) => ("/serial", Subject::Serial(serial)),
        (None, None, Some(key)) => ("/spki_sha256", Subject::Key(key)),
        _ => return Err(Fault::field("", "say exactly one of spiffe_id, serial and spki_sha256")),
    };
    let subject = subject.normalized().map_err(|error| Fault::field(pointer, error.to_string()))?;
    if request.reason.as_ref().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
        return Err(Fault::field("/reason", format!("at most {REASON_BYTES_MAX} bytes")));
    }
    if request.until_ms.is_some_and(|until| until <= unit.now_ms || i64::try_from(until).is_err()) {
        return Err(Fault::field("/until_ms", "is to come, in Unix milliseconds"));
    }
    let end = (request.reason.as_deref(), request.until_ms);
    deny::add(unit.database, unit.directory, &subject, end, unit.now_ms).map_err(|error| match error {
        ControlError::Argument(detail) => Fault::Conflict(detail),
        error => error.into(),
    })?;
    let until_ms = request.until_ms.and_then(|until| i64::try_from(until).ok());
    let acted_on = Some(subject.target()?);
    let view = DenialView::from(Denial { subject, reason: request.reason, until_ms });
    let location = Some(format!("{DENIALS}/{}", view.denial_id));
    Ok(Answer { location, acted_on, ..Answer::json(201, &view) })
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let page = Page::read(&call.query, "denials")?;
    let mut found = views(unit)?;
    found.sort_by(|one, other| one.denial_id.cmp(&other.denial_id));
    found.retain(|view| view.denial_id > page.after);
    found.truncate(page.count + 1);
    Ok(Answer::json(200, &page.list(found, "denials", |view| view.denial_id.clone(), |view| view)))
}

fn get(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let found = views(unit)?.into_iter().find(|view| view.denial_id == call.name("denial"));
    Ok(Answer::json(200, &found.ok_or(Fault::NotFound("denial"))?))
}

fn delete(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    let found = deny::list(unit.database, unit.now_ms)?;
    let found = found.into_iter().find(|denial| id_of(&denial.subject) == call.name("denial"));
    let found = found.ok_or(Fault::NotFound("denial"))?;
    deny::remove(unit.database, unit.directory, &found.subject, unit.now_ms)?;
    Ok(Answer { acted_on: Some(found.subject.target()?), ..Answer::nothing() })
}

fn views(unit: &Unit<'_>) -> Result<Vec<DenialView>, Fault> {
    Ok(deny::list(unit.database, unit.now_ms)?.into_iter().map(DenialView::from).collect())
}

/// Half of a hash of what is denied: a name for paths, the same whenever the same is denied.
fn id_of(subject: &Subject) -> String {
    let (kind, value) = match subject {
        Subject::Id(value) => ("spiffe_id", value),
        Subject::Serial(value) => ("serial", value),
        Subject::Key(value) => ("spki_sha256", value),
    };
    hex(&digest(&SHA256, format!("{kind}\n{value}").as_bytes()).as_ref()[..16])
}

impl From<Denial> for DenialView {
    fn from(denial: Denial) -> Self {
        let denial_id = id_of(&denial.subject);
        let (spiffe_id, serial, spki_sha256) = match denial.subject {
            Subject::Id(value) => (Some(value), None, None),
            Subject::Serial(value) => (None, Some(value), None),
            Subject::Key(value) => (None, None, Some(value)),
        };
        let (reason, until_ms) = (denial.reason, denial.until_ms);
        Self { denial_id, spiffe_id, serial, spki_sha256, reason, until_ms }
    }
}
