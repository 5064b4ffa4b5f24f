//! A request on its way in, from its head to its verdict: where it goes, its body, and what is to prove it.
//!
//! One whose proof is an HMAC-SHA256 is held until it is whole, so that its tag is computed beside those of others; a
//! body that is too long for that is hashed as it arrives.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use zen_core::crypto::Tag;
use zen_core::verify::{Held, Refusal, Started, Verified};
use zen_hmac::Job;

use super::source::View;
use super::unverified::HELD_BODY_BYTES_MAX;
use crate::config::Endpoint;
use crate::crypto::NodeCrypto;

/// A request under way.
pub struct Request {
    /// Where it goes.
    pub endpoint: Arc<Endpoint>,
    /// The client's address.
    pub address: IpAddr,
    /// What came of its body.
    pub body: Vec<u8>,
    /// When it was whole.
    pub since: Option<Instant>,
    proof: Started<NodeCrypto>,
}

impl Request {
    /// Behind its head, which says that its body will have `expected_bytes`, if it does.
    pub fn new(
        (endpoint, address): (Arc<Endpoint>, IpAddr),
        proof: Started<NodeCrypto>,
        body: Vec<u8>,
        expected_bytes: Option<u64>,
    ) -> Self {
        let mut request = Self { endpoint, address, body, since: None, proof };
        if expected_bytes.is_some_and(|bytes| bytes > HELD_BODY_BYTES_MAX as u64) {
            request.release();
        }
        request
    }

    /// Takes the next piece of the body.
    pub fn handle_body(&mut self, bytes: &[u8]) {
        if self.is_held() && self.body.len() + bytes.len() > HELD_BODY_BYTES_MAX {
            self.release();
        }
        if let Started::Running(check) = &mut self.proof {
            check.update(bytes);
        }
        self.body.extend_from_slice(bytes);
    }

    /// Whether its verdict needs the tags of [`Request::jobs`].
    pub fn is_held(&self) -> bool {
        matches!(self.proof, Started::Held(_))
    }

    /// What is to be computed for its verdict: one tag for each secret of its endpoint, whichever matches.
    pub fn jobs(&self) -> impl Iterator<Item = Job<'_>> {
        let held = self.held().map(Held::preamble);
        let job = move |preamble| {
            self.endpoint.held_keys.iter().map(move |key| Job { key, parts: [preamble, &self.body] })
        };
        held.into_iter().flat_map(job)
    }

    /// Who it is from; `expected` are the tags of its jobs.
    pub fn verdict<'r>(self, expected: &[Tag], view: &'r View<'_>) -> (Result<Verified<'r>, Refusal>, Whole) {
        let Self { endpoint, address, body, since, proof } = self;
        let authentication = &endpoint.authentication;
        let verdict = match proof {
            Started::Held(held) => authentication.finish_held(&held, expected, view),
            Started::Running(check) => authentication.finish(check, view, &body, &NodeCrypto),
        };
        (verdict, Whole { endpoint, address, body, since: since.unwrap_or_else(Instant::now) })
    }

    fn held(&self) -> Option<&Held> {
        match &self.proof {
            Started::Held(held) => Some(held),
            Started::Running(_) => None,
        }
    }

    /// Its body is too long to be held.
    fn release(&mut self) {
        if let Started::Held(held) = &self.proof {
            let check = self.endpoint.authentication.release(held, &self.body, &NodeCrypto);
            self.proof = Started::Running(check);
        }
    }
}

/// A request that is all there, after its verdict.
pub struct Whole {
    /// Where it goes.
    pub endpoint: Arc<Endpoint>,
    /// The client's address.
    pub address: IpAddr,
    /// Its body.
    pub body: Vec<u8>,
    /// When it was whole.
    pub since: Instant,
}
