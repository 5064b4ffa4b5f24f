//! A key with its inner and outer hash states computed once.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use crate::portable::{self, State};
use crate::{Tag, tags_equal};

/// A prepared key; its state is wiped when it is dropped, and never shown.
#[derive(Clone)]
pub struct PreparedKey {
    state: State,
    chains: Chains,
}

/// Chaining values after the padded key, as the lanes need them.
#[derive(Clone)]
pub(crate) struct Chains {
    pub(crate) inner: [u32; 8],
    pub(crate) outer: [u32; 8],
}

impl Drop for Chains {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

/// An HMAC that takes its message in pieces.
pub struct Running {
    state: State,
}

impl PreparedKey {
    /// Prepares a key of any length; one over 64 bytes is hashed first (RFC 2104 section 2).
    ///
    /// The process' first key also chooses its engine, so that no batch has to wait for that.
    pub fn new(secret: &[u8]) -> Self {
        crate::engine();
        Self::unmeasured(secret)
    }

    /// What an engine is measured with.
    pub(crate) fn unmeasured(secret: &[u8]) -> Self {
        let mut padded = Zeroizing::new([0; 64]);
        if secret.len() > padded.len() {
            padded[..32].copy_from_slice(&portable::sha256(secret));
        } else {
            padded[..secret.len()].copy_from_slice(secret);
        }
        let [inner, outer] = [0x36, 0x5c].map(|pad| portable::chain_after(&padded.map(|byte| byte ^ pad)));
        Self { state: portable::prepare(secret), chains: Chains { inner, outer } }
    }

    /// One tag per message, in order.
    #[must_use]
    pub fn sign(&self, messages: &[&[u8]]) -> Vec<Tag> {
        let mut tags = Vec::with_capacity(messages.len());
        crate::sign_jobs(
            messages.iter().map(|message| crate::Job { key: self, parts: [message, &[]] }),
            &mut tags,
        );
        tags
    }

    /// Starts an HMAC whose message comes in pieces.
    #[must_use]
    pub fn start(&self) -> Running {
        Running { state: self.state.clone() }
    }

    /// Whether `tag` is the tag of `message`, compared in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &Tag) -> bool {
        tags_equal(&portable::sign(&self.state, [message, &[]]), tag)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn chains(&self) -> &Chains {
        &self.chains
    }
}

impl Running {
    /// Adds message bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        portable::update(&mut self.state, bytes);
    }

    /// The tag of everything that was added.
    #[must_use]
    pub fn finish(self) -> Tag {
        portable::finish(self.state)
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedKey(..)")
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running(..)")
    }
}
