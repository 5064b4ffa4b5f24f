//! What nodes keep of what they did, on its way to the control plane: digests of receipts, metadata of deliveries, lists of
//! dead letters.
//!
//! The control plane says how far it has come with each node, so nothing of this is on disk here: whoever is killed asks
//! again. What the node does not have any more is not sent; its digests are kept for longer than what they are of.

mod vault;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zen_control_api::{
    DEAD_LETTERS, DELIVERIES, DELIVERIES_MAX, DIGESTS_MAX, DeadLetter, DeadLetterReport, Delivery,
    DeliveryReport, DigestReport, LETTERS_MAX, RECEIPTS, RelayAnswer,
};

use self::vault::VaultCourse;
use crate::clock::{Clock, random};
use crate::control_plane::{Connection, ControlError, ControlPlane};
use crate::core::{Backoff, jittered};
use crate::node;

/// How often nodes are asked, a tenth more or less.
const RELAY_INTERVAL_MS: u64 = 10_000;
const RELAY_JITTER_PERCENT: u64 = 10;
/// The same while there is more.
const RELAY_MORE_MS: u64 = 500;
/// Deliveries that wait at a node; of more, the oldest are left out: their receipts stay there, and their digests come.
const BEHIND_MAX: u64 = 50_000;
/// Most reports of one kind in a row for one node.
const ROUNDS_MAX: u32 = 4;

/// All nodes of an agent.
#[derive(Default)]
pub(crate) struct Relay {
    courses: BTreeMap<String, Course>,
    vault: VaultCourse,
    due_steady_ms: u64,
    backoff: Backoff,
}

/// How far one node's are.
#[derive(Default)]
struct Course {
    key: String,
    /// The last segment that the control plane has, once it has said so.
    digests: Option<RelayAnswer>,
    /// The last delivery.
    deliveries: Option<RelayAnswer>,
    /// As the control plane has them.
    letters: Option<DeadLetterReport>,
    trouble: Option<String>,
}

/// Why something does not come through.
enum RelayError {
    Control(ControlError),
    Node(String),
}

/// The key of a node's receipts.
#[derive(Deserialize)]
struct NodeKey {
    key: String,
}

/// Digests of a node, oldest first.
#[derive(Deserialize)]
struct NodeDigests {
    digests: Vec<NodeDigest>,
}

#[derive(Deserialize)]
struct NodeDigest {
    note: String,
}

/// Receipts of a node, oldest first.
#[derive(Deserialize)]
struct NodeReceipts {
    /// The number that the next line gets.
    next: u64,
    receipts: Vec<NodeReceipt>,
}

/// A line; those of acts have other fields beside these two.
#[derive(Deserialize)]
struct NodeReceipt {
    sequence: u64,
    #[serde(flatten)]
    line: serde_json::Value,
}

/// A line of an outcome.
#[derive(Deserialize)]
struct Line {
    time_ms: u64,
    event: Option<String>,
    endpoint: Option<String>,
    target: String,
    outcome: String,
    reason: Option<String>,
    status: Option<u16>,
    attempts: u32,
    body_hmac_sha256: Option<String>,
}

#[derive(Deserialize)]
struct NodeLetters {
    letters: Vec<NodeLetter>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct NodeLetter {
    id: String,
    event: Option<String>,
    target: String,
    reason: Option<String>,
    status: Option<u16>,
    attempts: u32,
    died_ms: u64,
}

impl From<ControlError> for RelayError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

impl From<String> for RelayError {
    fn from(reason: String) -> Self {
        Self::Node(reason)
    }
}

impl Relay {
    /// With the directory of lockd's receipts, if its digests are to come as well.
    pub(crate) fn of(vault: Option<PathBuf>) -> Self {
        Self { vault: VaultCourse::of(vault), ..Self::default() }
    }

    /// Until when nothing is due, ms.
    pub(crate) fn wait_ms(&self, steady_ms: u64) -> u64 {
        self.due_steady_ms.saturating_sub(steady_ms)
    }

    /// Why what a node keeps does not come through, by member.
    pub(crate) fn troubles(&self) -> BTreeMap<String, String> {
        let trouble = |(name, course): (&String, &Course)| Some((name.clone(), course.trouble.clone()?));
        self.courses.iter().filter_map(trouble).collect()
    }

    /// Asks each node, and says what is new.
    pub(crate) async fn step(
        &mut self,
        control: &ControlPlane,
        sockets: &BTreeMap<String, PathBuf>,
        clock: Clock,
    ) {
        self.courses.retain(|name, _| sockets.contains_key(name));
        let (mut connection, mut has_more) = (None, false);
        let mut failed = None;
        for (name, socket) in sockets {
            let course = self.courses.entry(name.clone()).or_default();
            match course.step(name, socket, control, &mut connection).await {
                Ok(more) => {
                    has_more |= more;
                    course.trouble = None;
                }
                // The node's state is told elsewhere: it may be stopped.
                Err(RelayError::Node(reason)) => tracing::debug!(member = name, reason, "no receipts"),
                Err(RelayError::Control(error)) => {
                    // A control plane of an earlier version wants nothing of this.
                    let is_trouble = error.is_answered() && !error.is_unknown_route();
                    course.trouble = is_trouble.then(|| error.to_string());
                    failed = Some(error);
                    break;
                }
            }
        }
        if failed.is_none() {
            match self.vault.step(control, &mut connection).await {
                Ok(more) => has_more |= more,
                Err(RelayError::Node(reason)) => tracing::debug!(reason, "no receipts of lockd"),
                Err(RelayError::Control(error)) => {
                    tracing::warn!(%error, "digests of lockd's receipts are not taken");
                    failed = Some(error);
                }
            }
        }
        let now = clock.now();
        let wait = match failed {
            Some(error) => {
                self.backoff.handle_failure(error.retry_after_ms(), random()).max(RELAY_INTERVAL_MS)
            }
            None => {
                self.backoff.handle_success();
                let interval = if has_more { RELAY_MORE_MS } else { RELAY_INTERVAL_MS };
                jittered(interval, RELAY_JITTER_PERCENT, random())
            }
        };
        self.due_steady_ms = now.steady_ms.saturating_add(wait);
    }
}

impl Course {
    /// Whether the node has more than was said now.
    async fn step(
        &mut self,
        name: &str,
        socket: &Path,
        control: &ControlPlane,
        connection: &mut Option<Connection>,
    ) -> Result<bool, RelayError> {
        let mut has_more = false;
        if let Some(NodeKey { key }) = node::get(socket, "/receipts/key").await? {
            if self.key != key {
                *self = Self { key, ..Self::default() };
            }
            has_more |= self.say_digests(name, socket, control, connection).await?;
            has_more |= self.say_deliveries(name, socket, control, connection).await?;
        }
        let list = format!("/dead-letters?limit={LETTERS_MAX}");
        if let Some(NodeLetters { letters, next }) = node::get(socket, &list).await? {
            let letters = letters.into_iter().map(DeadLetter::from).collect();
            let report = DeadLetterReport { member: name.to_owned(), letters, has_more: next.is_some() };
            let is_known = match &self.letters {
                Some(said) => *said == report,
                None => false,
            };
            if !is_known {
                open(control, connection).await?.relay(DEAD_LETTERS, &report).await?;
                self.letters = Some(report);
            }
        }
        Ok(has_more)
    }

    async fn say_digests(
        &mut self,
        name: &str,
        socket: &Path,
        control: &ControlPlane,
        connection: &mut Option<Connection>,
    ) -> Result<bool, RelayError> {
        let report =
            |key: &str, digests| DigestReport { member: Some(name.to_owned()), key: key.to_owned(), digests };
        for _ in 0..ROUNDS_MAX {
            let digests = match self.digests {
                None => Vec::new(),
                Some(RelayAnswer { last }) => {
                    let target = page("/receipts/digests", last, DIGESTS_MAX);
                    let found: Option<NodeDigests> = node::get(socket, &target).await?;
                    found.into_iter().flat_map(|found| found.digests).map(|digest| digest.note).collect()
                }
            };
            if digests.is_empty() && self.digests.is_some() {
                return Ok(false);
            }
            let answer =
                open(control, connection).await?.relay(RECEIPTS, &report(&self.key, digests)).await?;
            self.digests = Some(answer);
        }
        Ok(true)
    }

    async fn say_deliveries(
        &mut self,
        name: &str,
        socket: &Path,
        control: &ControlPlane,
        connection: &mut Option<Connection>,
    ) -> Result<bool, RelayError> {
        for _ in 0..ROUNDS_MAX {
            let deliveries = match self.deliveries {
                None => Vec::new(),
                Some(RelayAnswer { last }) => {
                    let target = page("/receipts", last, DELIVERIES_MAX);
                    let found: Option<NodeReceipts> = node::get(socket, &target).await?;
                    let Some(NodeReceipts { next, receipts: found }) = found else { return Ok(false) };
                    let Some(first) = found.first() else { return Ok(false) };
                    if next.saturating_sub(first.sequence) > BEHIND_MAX {
                        tracing::warn!(
                            member = name,
                            "more deliveries than can be told; the oldest are left out"
                        );
                        self.deliveries = Some(RelayAnswer { last: Some(next - BEHIND_MAX) });
                        continue;
                    }
                    let newest = found.last().map(|receipt| receipt.sequence);
                    let deliveries: Vec<Delivery> = found.iter().filter_map(NodeReceipt::delivery).collect();
                    if deliveries.is_empty() {
                        // Acts alone: they are in the digests.
                        self.deliveries = Some(RelayAnswer { last: newest });
                        continue;
                    }
                    deliveries
                }
            };
            let report = DeliveryReport { member: name.to_owned(), key: self.key.clone(), deliveries };
            let answer = open(control, connection).await?.relay(DELIVERIES, &report).await?;
            self.deliveries = Some(answer);
        }
        Ok(true)
    }
}

impl NodeReceipt {
    /// Its metadata, if it is of an outcome.
    fn delivery(&self) -> Option<Delivery> {
        let outcome: Line = serde_json::from_value(self.line.clone()).ok()?;
        Some(Delivery {
            sequence: self.sequence,
            time_ms: outcome.time_ms,
            event: outcome.event,
            endpoint: outcome.endpoint,
            target: outcome.target,
            verdict: outcome.outcome,
            reason: outcome.reason,
            status: outcome.status,
            attempts: outcome.attempts,
            body_hmac: outcome.body_hmac_sha256,
        })
    }
}

impl From<NodeLetter> for DeadLetter {
    fn from(letter: NodeLetter) -> Self {
        let NodeLetter { id, event, target, reason, status, attempts, died_ms } = letter;
        Self { id, event, target, reason, status, attempts, died_at_ms: died_ms }
    }
}

/// A page behind `last`.
fn page(target: &str, last: Option<u64>, limit: usize) -> String {
    match last {
        Some(last) => format!("{target}?after={last}&limit={limit}"),
        None => format!("{target}?limit={limit}"),
    }
}

async fn open<'a>(
    control: &ControlPlane,
    connection: &'a mut Option<Connection>,
) -> Result<&'a mut Connection, ControlError> {
    match connection {
        Some(connection) => Ok(connection),
        None => Ok(connection.insert(control.connect().await?)),
    }
}
