//! What nodes and the host's vault keep of what they did, on its way to the control plane: signed digests of their receipts,
//! metadata of deliveries, lists of dead letters. Names, numbers and keyed hashes; never a body, a header or an answer.
//!
//! The control plane remembers how far it has come with each writer and says so in each answer, an answer to nothing among
//! them: so what got lost is sent again, and what came twice is kept once.

use serde::{Deserialize, Serialize};

use crate::encoding::is_name;
use crate::order::is_letter_id;
use crate::sync::NOTE_KEY_BYTES_MAX;

/// Where digests go: `POST`.
pub const RECEIPTS: &str = "/agent/v1/receipts";
/// Where deliveries go: `POST`.
pub const DELIVERIES: &str = "/agent/v1/deliveries";
/// Where dead letters go: `POST`.
pub const DEAD_LETTERS: &str = "/agent/v1/dead-letters";
/// Most digests of one report.
pub const DIGESTS_MAX: usize = 16;
/// Most deliveries of one report.
pub const DELIVERIES_MAX: usize = 500;
/// Most dead letters of one report.
pub const LETTERS_MAX: usize = 1000;
/// Longest digest with its signature, bytes.
pub const DIGEST_BYTES_MAX: usize = 4096;
const LABEL_BYTES_MAX: usize = 64;
const HASH_DIGITS: usize = 64;

/// Digests of one writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestReport {
    /// The node that wrote; none is the host's vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The writer's key, as notes write keys.
    pub key: String,
    /// Signed digests that follow those that are known, in order.
    pub digests: Vec<String>,
}

/// Deliveries of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryReport {
    /// Which node.
    pub member: String,
    /// The key of its receipts: another one numbers anew.
    pub key: String,
    /// Rising by their sequences.
    pub deliveries: Vec<Delivery>,
}

/// How far the control plane has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayAnswer {
    /// The number of the last segment, or the sequence of the last delivery; none before the first.
    pub last: Option<u64>,
}

/// How one delivery ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// Of its receipt.
    pub sequence: u64,
    /// Unix ms.
    pub time_ms: u64,
    /// Unless its record was damaged.
    pub event: Option<String>,
    /// Where it came in, if the node still knew.
    pub endpoint: Option<String>,
    /// For whom.
    pub target: String,
    /// As the node calls it: `delivered`, `dead`, ...
    pub verdict: String,
    /// Why, if it was not delivered.
    pub reason: Option<String>,
    /// Of the target's last answer.
    pub status: Option<u16>,
    /// How many there were.
    pub attempts: u32,
    /// HMAC-SHA256 of the body by a key that stays on the node, hex.
    pub body_hmac: Option<String>,
}

/// All dead letters of one node, or the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterReport {
    /// Which node.
    pub member: String,
    /// Oldest first.
    pub letters: Vec<DeadLetter>,
    /// There are more than these.
    pub has_more: bool,
}

/// One dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetter {
    /// The node's name for it.
    pub id: String,
    /// Unless its record was damaged.
    pub event: Option<String>,
    /// For whom.
    pub target: String,
    /// Why.
    pub reason: Option<String>,
    /// Of the target's last answer.
    pub status: Option<u16>,
    /// How many there were.
    pub attempts: u32,
    /// Unix ms.
    pub died_at_ms: u64,
}

impl DigestReport {
    /// Whether names are names and all is within its bounds.
    pub fn is_bounded(&self) -> bool {
        self.member.as_ref().is_none_or(|name| is_name(name))
            && self.key.len() <= NOTE_KEY_BYTES_MAX
            && self.digests.len() <= DIGESTS_MAX
            && self.digests.iter().all(|digest| digest.len() <= DIGEST_BYTES_MAX)
    }
}

impl DeliveryReport {
    /// Whether names are names, sequences rise and all is within its bounds.
    pub fn is_bounded(&self) -> bool {
        is_name(&self.member)
            && self.key.len() <= NOTE_KEY_BYTES_MAX
            && self.deliveries.len() <= DELIVERIES_MAX
            && self.deliveries.windows(2).all(|pair| pair[0].sequence < pair[1].sequence)
            && self.deliveries.iter().all(Delivery::is_bounded)
    }
}

impl DeadLetterReport {
    /// Whether names are names and all is within its bounds.
    pub fn is_bounded(&self) -> bool {
        is_name(&self.member)
            && self.letters.len() <= LETTERS_MAX
            && self.letters.iter().all(DeadLetter::is_bounded)
    }
}

impl Delivery {
    fn is_bounded(&self) -> bool {
        let is_hash =
            |hash: &String| hash.len() == HASH_DIGITS && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        let labels = [&self.event, &self.endpoint, &self.reason];
        i64::try_from(self.sequence).is_ok()
            && i64::try_from(self.time_ms).is_ok()
            && labels.into_iter().flatten().chain([&self.target, &self.verdict]).all(|text| is_label(text))
            && self.body_hmac.as_ref().is_none_or(is_hash)
    }
}

impl DeadLetter {
    fn is_bounded(&self) -> bool {
        let labels = [&self.event, &self.reason];
        is_letter_id(&self.id)
            && i64::try_from(self.died_at_ms).is_ok()
            && labels.into_iter().flatten().chain([&self.target]).all(|text| is_label(text))
    }
}

/// Names, ids and labels of nodes: printable, without spaces, and short.
fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(sequence: u64) -> Delivery {
        Delivery {
            sequence,
            time_ms: 1,
            event: Some("0198c0de-0000-7000-8000-000000000000".to_owned()),
            endpoint: Some("00112233445566778899aabbccddeeff".to_owned()),
            target: "sink".to_owned(),
            verdict: "delivered".to_owned(),
            reason: None,
            status: Some(200),
            attempts: 1,
            body_hmac: Some("0f".repeat(32)),
        }
    }

    fn report(deliveries: Vec<Delivery>) -> DeliveryReport {
        DeliveryReport { member: "edge-1".to_owned(), key: "k".to_owned(), deliveries }
    }

    #[test]
    fn what_could_be_a_payload_is_none_of_a_delivery() {
        assert!(report(vec![delivery(1), delivery(2)]).is_bounded());
        assert!(report(Vec::new()).is_bounded());
        let one = |change: fn(&mut Delivery)| {
            let mut changed = delivery(1);
            change(&mut changed);
            report(vec![changed])
        };
        for refused in [
            report(vec![delivery(2), delivery(1)]),
            report(vec![delivery(1), delivery(1)]),
            report((0..=DELIVERIES_MAX as u64).map(delivery).collect()),
            DeliveryReport { member: "a/b".to_owned(), ..report(Vec::new()) },
            DeliveryReport { key: "k".repeat(NOTE_KEY_BYTES_MAX + 1), ..report(Vec::new()) },
            one(|delivery| delivery.target = "a text with spaces".to_owned()),
            one(|delivery| delivery.target = String::new()),
            one(|delivery| delivery.verdict = "v".repeat(LABEL_BYTES_MAX + 1)),
            one(|delivery| delivery.reason = Some("\n".to_owned())),
            one(|delivery| delivery.body_hmac = Some("0f".repeat(31))),
            one(|delivery| delivery.body_hmac = Some("zz".repeat(32))),
            one(|delivery| delivery.sequence = u64::MAX),
        ] {
            assert!(!refused.is_bounded(), "{refused:?}");
        }
    }

    #[test]
    fn a_dead_letter_has_an_id_of_a_node() {
        let letter = |id: &str| DeadLetter {
            id: id.to_owned(),
            event: None,
            target: "sink".to_owned(),
            reason: Some("refused".to_owned()),
            status: None,
            attempts: 3,
            died_at_ms: 1,
        };
        let report = |letters| DeadLetterReport { member: "edge-1".to_owned(), letters, has_more: false };
        assert!(report(vec![letter("0-12-0")]).is_bounded());
        for id in ["", "a", "0-1 2", &"1".repeat(49)] {
            assert!(!report(vec![letter(id)]).is_bounded(), "{id}");
        }
        assert!(!report(vec![letter("1"); LETTERS_MAX + 1]).is_bounded());
    }
}
