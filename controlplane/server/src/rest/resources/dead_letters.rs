//! Dead letters as nodes list them, and orders to send some of them again: carried out by the node, which alone has them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zen_control_api::{ORDER_LETTERS_MAX, is_letter_id, is_name};

use crate::authority;
use crate::deliveries::{
    Letter, LetterFilter, NewOrder, OrderRow, create_order, find_order, page_of_letters, page_of_orders,
};
use crate::rest::page::{LIST_QUERY, List, Page};
use crate::rest::permission::Operation;
use crate::rest::problem::Fault;
use crate::rest::route::{Route, Verb};
use crate::rest::unit::{Answer, Call, Unit};
use crate::store;

const LETTERS: &str = "/v1/tenants/{tenant}/dead-letters";
const REPLAY: &str = "/v1/tenants/{tenant}/dead-letters/replay";
const ORDERS: &str = "/v1/tenants/{tenant}/orders";
const ORDER: &str = "/v1/tenants/{tenant}/orders/{order}";
const LETTERS_QUERY: &[&str] = &["limit", "cursor", "cluster", "target"];

/// A delivery that was given up.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct LetterView {
    /// Whose node has it.
    cluster: String,
    /// Which node.
    member: String,
    /// The node's name for it.
    id: String,
    /// Unless its record was damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    /// For whom.
    target: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Of the target's last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// How many there were.
    attempts: u32,
    /// Unix ms.
    died_at_ms: i64,
}

/// What to send again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    /// Whose node has them.
    #[schema(min_length = 1, max_length = 64)]
    cluster: String,
    /// Which node.
    #[schema(min_length = 1, max_length = 64)]
    member: String,
    /// Which letters.
    #[schema(min_items = 1, max_items = 1000, example = json!(["0-1234-0"]))]
    letters: Vec<String>,
}

/// An order and what came of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Order)]
struct OrderView {
    /// Names it: when it was made, Unix ms, or one more than the last.
    order: i64,
    /// Whose node.
    cluster: String,
    /// Which node.
    member: String,
    /// How many letters.
    letters: i64,
    /// Who wanted it.
    ordered_by: String,
    /// Unix ms.
    created_ms: i64,
    /// It is not begun after that, Unix ms.
    expires_ms: i64,
    /// `open`, `sent`, `done`, `failed`, `expired`, or `unknown`: the agent ended before it knew, and it is not begun again.
    state: String,
    /// Letters that were sent again, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<i64>,
    /// Letters that were not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<i64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When its end was told, Unix ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ms: Option<i64>,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::new(Verb::Get, LETTERS, Operation::Read, list)
            .says("Deliveries that were given up, the last one first: the first 1000 of each node")
            .query(LETTERS_QUERY)
            .gives::<List<LetterView>>(200),
        Route::new(Verb::Post, REPLAY, Operation::Replay, replay)
            .says(
                "Has a node send dead letters again; the answer is the order, which is to be looked at later",
            )
            .acts("dead-letters.replay")
            .takes::<ReplayRequest>()
            .gives::<OrderView>(201),
        Route::new(Verb::Get, ORDERS, Operation::Read, orders)
            .says("Orders of the tenant, newest first")
            .query(LIST_QUERY)
            .gives::<List<OrderView>>(200),
        Route::new(Verb::Get, ORDER, Operation::Read, order)
            .says("One order, and what came of it")
            .gives::<OrderView>(200),
    ]
}

fn list(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let page = Page::read(&call.query, "dead-letters")?;
    let filter = LetterFilter {
        cluster: call.query.get("cluster").cloned(),
        target: call.query.get("target").cloned(),
    };
    let found = page_of_letters(unit.database, call.name("tenant"), &filter, (&page.after, page.count + 1))?;
    Ok(Answer::json(200, &page.list(found, "dead-letters", Letter::key, LetterView::from)))
}

fn replay(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let ReplayRequest { cluster, member, letters } = call.body()?;
    let tenant = call.name("tenant");
    if !is_name(&cluster) || store::tenant_of(unit.database, &cluster)? != tenant {
        return Err(Fault::field("/cluster", "is a cluster of this tenant"));
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM members WHERE cluster = ?1 AND name = ?2)";
    if !unit.database.query_row(sql, (&cluster, &member), |row| row.get::<_, bool>(0))? {
        return Err(Fault::field("/member", "is a member of the cluster's configuration"));
    }
    let is_count = (1..=ORDER_LETTERS_MAX).contains(&letters.len());
    if !is_count || !letters.iter().all(|id| is_letter_id(id)) {
        return Err(Fault::field("/letters", "1 to 1000 ids of dead letters, such as 0-1234-0"));
    }
    let key = authority::configuration_key(unit.directory)?;
    let letters = letters.into_iter().collect::<BTreeSet<_>>();
    let ordered_by = unit.person.actor.as_str();
    let new = NewOrder { tenant, cluster: &cluster, member: &member, letters, ordered_by };
    let number = create_order(unit.database, &key, new, unit.now_ms)?;
    let number =
        number.ok_or(Fault::Conflict("64 orders for this cluster have no end yet; wait for some"))?;
    let row = find_order(unit.database, tenant, i64::try_from(number).unwrap_or(i64::MAX), unit.now_ms)?;
    let row = row.ok_or(Fault::NotFound("order"))?;
    let location = Some(format!("/v1/tenants/{tenant}/orders/{number}"));
    Ok(Answer { location, ..Answer::json(201, &OrderView::from(row)) })
}

fn orders(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let page = Page::read(&call.query, "orders")?;
    let from = (super::number_after(&page)?, page.count + 1);
    let found = page_of_orders(unit.database, call.name("tenant"), from, unit.now_ms)?;
    Ok(Answer::json(200, &page.list(found, "orders", |row| row.number.to_string(), OrderView::from)))
}

fn order(unit: &Unit<'_>, call: &Call) -> Result<Answer, Fault> {
    unit.check_tenant(call)?;
    let missing = Fault::NotFound("order");
    let Ok(number) = call.name("order").parse() else { return Err(missing) };
    let found = find_order(unit.database, call.name("tenant"), number, unit.now_ms)?;
    Ok(Answer::json(200, &OrderView::from(found.ok_or(missing)?)))
}

impl From<Letter> for LetterView {
    fn from(letter: Letter) -> Self {
        let Letter { cluster, member, id, event, target, reason, status, attempts, died_at_ms } = letter;
        Self { cluster, member, id, event, target, reason, status, attempts, died_at_ms }
    }
}

impl From<OrderRow> for OrderView {
    fn from(row: OrderRow) -> Self {
        let OrderRow { number: order, cluster, member, letters, ordered_by, created_ms, .. } = row;
        let OrderRow { expires_ms, state, done, skipped, reason, ended_ms, .. } = row;
        Self {
            order,
            cluster,
            member,
            letters,
            ordered_by,
            created_ms,
            expires_ms,
            state,
            done,
            skipped,
            reason,
            ended_ms,
        }
    }
}
