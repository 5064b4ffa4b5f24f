//! A key with its inner and outer hash states computed once.

use std::fmt;

use crate::portable::{self, State};
use crate::{Tag, tags_equal};

/// A prepared key; its state is wiped when it is dropped, and never shown.
#[derive(Clone)]
pub struct PreparedKey {
    state: State,
}

impl PreparedKey {
    /// Prepares a key of any length; one over 64 bytes is hashed first (RFC 2104 section 2).
    pub fn new(secret: &[u8]) -> Self {
        Self { state: portable::prepare(secret) }
    }

    /// One tag per message, in order.
    #[must_use]
    pub fn sign(&self, messages: &[&[u8]]) -> Vec<Tag> {
        messages.iter().map(|message| portable::sign(&self.state, [message, &[]])).collect()
    }

    /// Whether `tag` is the tag of `message`, compared in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &Tag) -> bool {
        tags_equal(&portable::sign(&self.state, [message, &[]]), tag)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedKey(..)")
    }
}
