//! Deliveries: how each ended, as the nodes' receipts say. Never a body, a header or an answer: those stay on the node.

use serde::Serialize;
use utoipa::ToSchema;

use crate::deliveries::{DeliveryFilter, DeliveryRow, page_of_deliveries};
use crate::rest::page::{List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};

const DELIVERIES: &str = "/v1/tenants/{tenant}/deliveries";
const QUERY: &[&str] =
    &["limit", "cursor", "cluster", "event", "endpoint", "target", "verdict", "from_ms", "until_ms"];

/// How one delivery ended.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryView {
    /// Rises in the tenant as they are told.
    number: i64,
    /// Whose node delivered.
    cluster: String,
    /// Which node.
    member: String,
    /// Of the node's receipt.
    sequence: i64,
    /// Unix ms.
    time_ms: i64,
    /// Unless its record was damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// Where it came in, if the node still knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// For whom.
    target: String,
    /// `delivered`, `dead`, `dropped`, `discarded` or `moved`.
    verdict: String,
    /// Why, if it was not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Of the target's last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// How many there were.
    attempts: u32,
    /// HMAC-SHA256 of the body by a key that stays on the node, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_hmac: Option<String>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, DELIVERIES, Operation::Read, list)
            .says("How deliveries ended, those told last first; names whole, times in Unix ms")
            .query(QUERY)
            .gives::<List<DeliveryView>>(200),
    ]
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let page = Page::read(&call.query, "deliveries")?;
    let after = super::number_after(&page)?;
    let text = |name: &str| call.query.get(name).cloned();
    let filter = DeliveryFilter {
        cluster: text("cluster"),
        event: text("event"),
        endpoint: text("endpoint"),
        target: text("target"),
        verdict: text("verdict"),
        from_ms: time(call, "from_ms")?,
        until_ms: time(call, "until_ms")?,
    };
    let found = page_of_deliveries(unit.database, call.name("tenant"), &filter, (after, page.count + 1))?;
    let list = page.list(found, "deliveries", |row| row.number.to_string(), DeliveryView::from);
    Ok(Answer::json(200, &list))
}

fn time(call: &Call, name: &str) -> Result<Option<i64>, Fault> {
    let Some(text) = call.query.get(name) else { return Ok(None) };
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let read = text.parse().ok().filter(|_| is_number);
    read.map(Some).ok_or_else(|| Fault::Malformed(format!("{name} is a time in Unix milliseconds")))
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        let DeliveryRow { number, cluster, member, sequence, time_ms, event, endpoint, target, .. } = row;
        let DeliveryRow { verdict, reason, status, attempts, body_hmac, .. } = row;
        Self {
            number,
            cluster,
            member,
            sequence,
            time_ms,
            event,
            endpoint,
            target,
            verdict,
            reason,
            status,
            attempts,
            body_hmac,
        }
    }
}
