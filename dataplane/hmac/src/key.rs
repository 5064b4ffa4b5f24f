//! A key with its inner and outer hash states computed once.

use std::fmt;

use aws_lc_rs::hmac::Context;
use zeroize::{Zeroize, Zeroizing};

use crate::alone::{self, AloneKey};
use crate::engine::Singles;
use crate::portable::{self, State};
use crate::{Tag, tags_equal};

/// A prepared key; its state is wiped when it is dropped, and never shown.
#[derive(Clone)]
pub struct PreparedKey {
    state: State,
    chains: Chains,
    /// Where that is the faster way for a message that has no company.
    alone: Option<AloneKey>,
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
    state: RunningState,
}

enum RunningState {
    Portable(State),
    /// Boxed, as it is several times as large, and rare.
    AwsLc(Box<Context>),
}

impl PreparedKey {
    /// Prepares a key of any length; one over 64 bytes is hashed first (RFC 2104 section 2).
    ///
    /// The process' first key also chooses its engine, so that no batch has to wait for that.
    pub fn new(secret: &[u8]) -> Self {
        Self::prepare(secret, crate::engine().singles())
    }

    /// For an engine that treats messages without company like this.
    pub(crate) fn prepare(secret: &[u8], singles: Singles) -> Self {
        let mut padded = Zeroizing::new([0; 64]);
        if secret.len() > padded.len() {
            padded[..32].copy_from_slice(&portable::sha256(secret));
        } else {
            padded[..secret.len()].copy_from_slice(secret);
        }
        let [inner, outer] = [0x36, 0x5c].map(|pad| portable::chain_after(&padded.map(|byte| byte ^ pad)));
        let alone = (singles == Singles::AwsLc).then(|| AloneKey::new(secret));
        Self { state: portable::prepare(secret), chains: Chains { inner, outer }, alone }
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
        let state = match &self.alone {
            Some(alone) => RunningState::AwsLc(Box::new(alone.start())),
            None => RunningState::Portable(self.state.clone()),
        };
        Running { state }
    }

    /// Whether `tag` is the tag of `message`, compared in constant time.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &Tag) -> bool {
        tags_equal(&self.sign_alone([message, &[]]), tag)
    }

    /// A message without company. A key that was prepared for another engine may go the portable way.
    pub(crate) fn sign_alone(&self, parts: [&[u8]; 2]) -> Tag {
        match &self.alone {
            Some(alone) => alone.sign(parts),
            None => portable::sign(&self.state, parts),
        }
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
        match &mut self.state {
            RunningState::Portable(state) => portable::update(state, bytes),
            RunningState::AwsLc(context) => context.update(bytes),
        }
    }

    /// The tag of everything that was added.
    #[must_use]
    pub fn finish(self) -> Tag {
        match self.state {
            RunningState::Portable(state) => portable::finish(state),
            RunningState::AwsLc(context) => alone::finish(*context),
        }
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
