//! From deliveries whose turn has come to requests that can be sent: bodies of outputs, signatures, heads.

use std::sync::Arc;

use zen_core::crypto::Mac;
use zen_core::deliver::{Attempt, ConnectFailure, DeliveryRequest, Outcome};
use zen_core::event::Event;
use zen_rules::Transformed;

use super::format::prepare_as;
use super::{Deliveries, HEAD_BYTES, SPARE_HEAD_BYTES_MAX, Start};
use crate::config::Authorization;
use crate::crypto::Counted;
use crate::egress::connection::Job;
use crate::egress::owner::Owner;
use crate::mesh::EventBytes;
use crate::spans::OpenSpan;

impl Deliveries {
    /// Signs a batch in one call; what cannot be signed ends here.
    pub(super) fn sign(&mut self, batch: Vec<Start>) -> Vec<(Arc<str>, Job)> {
        let mut requests = std::mem::take(&mut self.requests);
        requests.resize_with(batch.len().max(requests.len()), DeliveryRequest::default);
        let mut prepared = Vec::with_capacity(batch.len());
        for (mut start, request) in batch.into_iter().zip(&mut requests) {
            let nonce = self.entropy.bytes();
            let replay = self.owners.get(&start.target).map_or(0, |owner| owner.replay(start.delivery.key));
            let made = start.delivery.attempt;
            let (made, replay) = if start.batch.is_some() { (0, 0) } else { (made, replay) };
            let attempt = Attempt { made, replay, time_ms: self.clock.wall_ms, nonce };
            match self.prepare(&mut start, attempt, request) {
                Ok(made) => prepared.push((start, request, made)),
                Err(outcome) => self.end_start(&start, &outcome),
            }
        }
        let mut jobs = Vec::with_capacity(prepared.len() * 2);
        for (start, request, Prepared { body_at, .. }) in &prepared {
            let signer = &self.owners[&start.target].target.signer;
            signer.push_jobs(request, &start.bytes[*body_at..], &mut jobs);
        }
        let mut tags = Vec::with_capacity(jobs.len());
        Counted(&self.metrics.hmac_batch_messages.delivery).sign(&jobs, &mut tags);
        drop(jobs);
        let mut tags = &tags[..];
        let mut signed = Vec::with_capacity(prepared.len());
        for (start, request, Prepared { body_at, accepted_us, span }) in prepared {
            let target = Arc::clone(&self.owners[&start.target].target);
            let (own, rest) = tags.split_at(target.signer.tags());
            tags = rest;
            let mut head = self.spare_heads.pop().unwrap_or_else(|| Vec::with_capacity(HEAD_BYTES));
            let credentials = match &target.authorization {
                None => None,
                Some(Authorization::Fixed(credentials)) => Some(credentials),
                Some(Authorization::Tokens(_)) => start.token.as_deref().map(|token| &token.credentials),
            };
            target.signer.write_head(request, own, credentials, &mut head);
            let mut rest_at = body_at;
            // Of two parts rustls makes a list for each request.
            if head.len() + start.bytes.len() - body_at <= SPARE_HEAD_BYTES_MAX {
                head.extend_from_slice(&start.bytes[body_at..]);
                rest_at = start.bytes.len();
            }
            let deadline_ms = self.clock.steady_ms + target.limits.attempt_timeout_ms;
            let (key, event, token) = (start.delivery.key, start.bytes, start.token);
            let others = start.batch.map(|batch| batch.others).unwrap_or_default();
            let job =
                Job { key, head, event, rest_at, accepted_us, others, deadline_ms, target, token, span };
            signed.push((start.target, job));
        }
        self.requests = requests;
        signed
    }

    /// Readies a request. A transform puts its own body into the bytes to be sent.
    fn prepare(
        &self,
        start: &mut Start,
        attempt: Attempt,
        request: &mut DeliveryRequest,
    ) -> Result<Prepared, Outcome> {
        let owner = self.owners.get(&start.target).ok_or(Outcome::TargetRemoved)?;
        if let Some(Authorization::Tokens(source)) = &owner.target.authorization {
            // It was there when the turn came; fetching the event may have taken longer than it lasted.
            let token = source.token(self.clock.steady_ms);
            start.token = Some(token.ok_or(Outcome::ConnectFailed(ConnectFailure::NoToken))?);
        }
        if let Some(batch) = &start.batch {
            batch.prepare(owner, &start.bytes, attempt, request)?;
            return Ok(Prepared { body_at: 0, accepted_us: batch.accepted_us, span: None });
        }
        let event = Event::decode(&start.bytes).map_err(|_| Outcome::Refused)?;
        let accepted_us = event.metadata(":accepted-us").and_then(|value| value.parse().ok()).unwrap_or(0);
        let deadline_ms = owner.deadline_ms(start.delivery.key, accepted_us, self.clock);
        if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.clock.steady_ms) {
            return Err(Outcome::DeadlineOver);
        }
        let span = self.open_span(&event, &attempt);
        let body_at = start.bytes.len() - event.body.len();
        let Some(made) = self.transformed(owner, &event)? else {
            let body = prepare_as(owner, &event, attempt, request)?;
            if let Some(body) = body {
                start.bytes = body;
                return Ok(Prepared { body_at: 0, accepted_us, span });
            }
            return Ok(Prepared { body_at, accepted_us, span });
        };
        let sent = Event { content_type: made.content_type, body: &made.body, ..event };
        let body = prepare_as(owner, &sent, attempt, request)?;
        start.bytes = body.unwrap_or_else(|| EventBytes::from(made.body));
        Ok(Prepared { body_at: 0, accepted_us, span })
    }

    /// What an output makes of the body, if it has a transform.
    pub(super) fn transformed<'a>(
        &self,
        owner: &'a Owner,
        event: &Event<'_>,
    ) -> Result<Option<Transformed<'a>>, Outcome> {
        let Some(made) = owner.output.as_ref().and_then(|output| output.transform(event)) else {
            return Ok(None);
        };
        made.map(Some).map_err(|error| {
            self.metrics.transform_failures.add(error.label());
            tracing::debug!(output = &*owner.name, event = %event.id, %error, "a body could not be made");
            Outcome::TransformFailed
        })
    }
}

/// What is known of an attempt when its request is ready.
struct Prepared {
    /// Where the body begins in the bytes to be sent.
    body_at: usize,
    /// When the event was accepted, Unix µs.
    accepted_us: u64,
    span: Option<Box<OpenSpan>>,
}
