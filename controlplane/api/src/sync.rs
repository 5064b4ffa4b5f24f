//! What agent and control plane tell each other once a minute and after each news: how far the audit log has come and that
//! the agent has seen it, orders, and what came of them.
//!
//! Notes, keys and proofs are as `docs/audit.md` has them; here they are text, and mean nothing before they are verified.

use serde::{Deserialize, Serialize};

use crate::{Base64, SignedOrder};

/// Where it is said: `POST`, by the agent over mutual TLS.
pub const SYNC: &str = "/agent/v1/sync";
/// Most orders of one answer.
pub const SYNC_ORDERS_MAX: usize = 8;
/// Longest reason, bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// Longest key of a log or a witness as text, bytes.
pub const NOTE_KEY_BYTES_MAX: usize = 512;
/// Longest checkpoint with its signatures, bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncRequest {
    /// As a witness; none while it has no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<WitnessReport>,
    /// The number of the order that was begun last, 0 if none was.
    #[serde(default)]
    pub last_order: u64,
    /// What came of orders and is not known to have been heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<OrderResult>,
}

/// A witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessReport {
    /// Its key, as notes write keys.
    pub key: String,
    /// How many entries the checkpoint has that it saw last.
    pub size: u64,
    /// That checkpoint with its cosignature, as a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cosigned: Option<String>,
    /// Why it does not go on, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}

/// What the control plane says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncAnswer {
    /// The audit log, once it has a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogReport>,
    /// Orders above the last one, lowest number first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<SignedOrder>,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogReport {
    /// Its key.
    pub key: String,
    /// The newest checkpoint, a note.
    pub checkpoint: String,
    /// That it continues the one that the agent saw (RFC 9162 section 2.1.4); empty if the agent has seen more.
    pub proof: Vec<Base64<32>>,
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderResult {
    /// Which one.
    pub number: u64,
    /// What.
    pub end: OrderEnd,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case", deny_unknown_fields)]
pub enum OrderEnd {
    /// The node did it.
    Done {
        /// Letters that were put in once more, as far as is known.
        done: u64,
        /// Letters that were not there any more.
        skipped: u64,
    },
    /// The node refused, or could not be asked.
    Failed {
        /// Why.
        reason: String,
    },
    /// The agent ended after it had begun and before it knew; it is not done again.
    Unknown,
}

impl SyncRequest {
    /// Whether its texts are within their bounds.
    pub fn is_bounded(&self) -> bool {
        let fits = |text: &Option<String>, max| text.as_ref().is_none_or(|text| text.len() <= max);
        let is_bounded = |witness: &WitnessReport| {
            witness.key.len() <= NOTE_KEY_BYTES_MAX
                && fits(&witness.cosigned, CHECKPOINT_BYTES_MAX)
                && fits(&witness.alarm, REASON_BYTES_MAX)
        };
        self.witness.as_ref().is_none_or(is_bounded)
            && self.results.len() <= SYNC_ORDERS_MAX
            && self.results.iter().all(|result| result.end.is_bounded())
    }
}

impl OrderEnd {
    fn is_bounded(&self) -> bool {
        !matches!(self, Self::Failed { reason } if reason.len() > REASON_BYTES_MAX)
    }
}
