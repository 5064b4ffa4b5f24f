//! Orders: what people at the control plane want a cluster's node to do, signed as configurations are.
//!
//! The text that travels is what is signed. Refused: an order that nobody signed, is for another cluster, is over, or
//! whose number is not above the last one that was done: so none is done twice, whoever sends it again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::encoding::is_name;
use crate::{Base64, PublicKey, SIGNATURE_BYTES, SigningKey};

/// Longest order, bytes.
pub const ORDER_BYTES_MAX: usize = 96 * 1024;
/// Most dead letters of one order.
pub const ORDER_LETTERS_MAX: usize = 1000;
/// How long an order may be done, ms.
pub const ORDER_LIFE_MS: u64 = 3600 * 1000;
const LETTER_ID_BYTES_MAX: usize = 48;
const PURPOSE: &str = "zen-order-v1";

/// An order as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedOrder {
    /// An [`Order`], JSON.
    pub text: String,
    /// Over the text.
    pub signature: Base64<SIGNATURE_BYTES>,
}

/// What is to be done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Rises with each order for the cluster.
    pub number: u64,
    /// Whose cluster.
    pub tenant: String,
    /// Which cluster.
    pub cluster: String,
    /// Which node of it.
    pub member: String,
    /// Unix ms; it is not begun from then on.
    pub expires_at_ms: u64,
    /// Dead letters that are put in once more, by the node's ids.
    pub replay: BTreeSet<String>,
}

/// Why an order is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// Nobody signed it whom the agent knows.
    #[error("the order's signature does not hold")]
    Signature,
    /// Too long.
    #[error("the order has over {ORDER_BYTES_MAX} bytes")]
    Length,
    /// Not the object that it should be, or with a name that is none.
    #[error("the order cannot be read, or names what cannot be")]
    Malformed,
    /// For another cluster.
    #[error("the order is for {tenant}/{cluster}")]
    Elsewhere {
        /// Whose.
        tenant: String,
        /// Which.
        cluster: String,
    },
    /// One with this number or a higher one was begun before.
    #[error("order {number} is not above {last}, the last that was begun: none is done twice")]
    Again {
        /// What came.
        number: u64,
        /// What was begun last.
        last: u64,
    },
    /// Its time is over.
    #[error("order {number} is over since {expires_at_ms} (Unix ms)")]
    Over {
        /// Which one.
        number: u64,
        /// Its end.
        expires_at_ms: u64,
    },
}

impl SignedOrder {
    /// Signs an order.
    pub fn sign(order: &Order, key: &SigningKey) -> Self {
        let text = serde_json::to_string(order).expect("texts and numbers are JSON");
        let signature = key.sign(PURPOSE, &[text.as_bytes()]);
        Self { text, signature }
    }

    /// What was signed, if it is for this cluster, has a number above `last`, and is not over.
    pub fn verify(
        &self,
        key: &PublicKey,
        (tenant, cluster): (&str, &str),
        last: u64,
        now_ms: u64,
    ) -> Result<Order, OrderError> {
        let order = self.signed(key)?;
        let Order { number, expires_at_ms, .. } = order;
        if (order.tenant.as_str(), order.cluster.as_str()) != (tenant, cluster) {
            return Err(OrderError::Elsewhere { tenant: order.tenant, cluster: order.cluster });
        }
        if number <= last {
            return Err(OrderError::Again { number, last });
        }
        if expires_at_ms <= now_ms {
            return Err(OrderError::Over { number, expires_at_ms });
        }
        Ok(order)
    }

    fn signed(&self, key: &PublicKey) -> Result<Order, OrderError> {
        if self.text.len() > ORDER_BYTES_MAX {
            return Err(OrderError::Length);
        }
        key.verify(PURPOSE, &[self.text.as_bytes()], &self.signature).map_err(|_| OrderError::Signature)?;
        let order: Order = serde_json::from_str(&self.text).map_err(|_| OrderError::Malformed)?;
        if order.is_whole() { Ok(order) } else { Err(OrderError::Malformed) }
    }
}

impl Order {
    /// Whether its names are names and its letters are within their bounds.
    pub fn is_whole(&self) -> bool {
        let names = [&self.tenant, &self.cluster, &self.member];
        let letters = &self.replay;
        names.into_iter().all(|name| is_name(name))
            && (1..=ORDER_LETTERS_MAX).contains(&letters.len())
            && letters.iter().all(|id| is_letter_id(id))
    }
}

/// Whether a text may be a node's id of a dead letter: numbers between dashes.
pub fn is_letter_id(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    (1..=LETTER_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOSE: (&str, &str) = ("acme", "edge");

    fn order() -> Order {
        Order {
            number: 7,
            tenant: "acme".to_owned(),
            cluster: "edge".to_owned(),
            member: "edge-1".to_owned(),
            expires_at_ms: 1000,
            replay: ["0-12-0".to_owned()].into(),
        }
    }

    #[test]
    fn an_order_is_refused_for_its_reason() {
        let key = SigningKey::generate();
        let sign = |order: &Order| SignedOrder::sign(order, &key);
        let verify = |signed: &SignedOrder| signed.verify(&key.public(), WHOSE, 6, 999);
        assert_eq!(verify(&sign(&order())), Ok(order()));
        let stranger = SignedOrder::sign(&order(), &SigningKey::generate());
        assert_eq!(verify(&stranger), Err(OrderError::Signature));
        let mut changed = sign(&order());
        changed.text = changed.text.replace("0-12-0", "0-13-0");
        assert_eq!(verify(&changed), Err(OrderError::Signature));
        let (tenant, cluster) = ("acme".to_owned(), "core".to_owned());
        for (made, expected) in [
            (Order { cluster: "core".to_owned(), ..order() }, OrderError::Elsewhere { tenant, cluster }),
            (Order { number: 6, ..order() }, OrderError::Again { number: 6, last: 6 }),
            (Order { expires_at_ms: 999, ..order() }, OrderError::Over { number: 7, expires_at_ms: 999 }),
            (Order { replay: BTreeSet::new(), ..order() }, OrderError::Malformed),
            (Order { replay: ["../x".to_owned()].into(), ..order() }, OrderError::Malformed),
            (Order { member: "a/b".to_owned(), ..order() }, OrderError::Malformed),
        ] {
            assert_eq!(verify(&sign(&made)), Err(expected));
        }
        let most: BTreeSet<String> = (0..ORDER_LETTERS_MAX).map(|at| format!("65535-{at:019}-255")).collect();
        assert!(verify(&sign(&Order { replay: most.clone(), ..order() })).is_ok(), "the longest fits");
        let more = most.into_iter().chain(["1".to_owned()]).collect();
        assert_eq!(verify(&sign(&Order { replay: more, ..order() })), Err(OrderError::Malformed));
    }

    #[test]
    fn a_configuration_s_signature_is_none_of_an_order() {
        let key = SigningKey::generate();
        let text = SignedOrder::sign(&order(), &key).text;
        let signature = key.sign("zen-configuration-v1", &[text.as_bytes()]);
        let signed = SignedOrder { text, signature };
        assert_eq!(signed.verify(&key.public(), WHOSE, 0, 0), Err(OrderError::Signature));
    }
}
