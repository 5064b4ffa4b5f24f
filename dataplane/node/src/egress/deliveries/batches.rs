//! Batches: deliveries whose turn has come become lines, and lines that go together one request.
//!
//! A delivery in a batch is under way like any other: it keeps its place in the queue and its parcel, and what the
//! request comes to is its outcome. A configuration or failover that changes the target ends the wait of its lines.

use std::sync::Arc;

use zen_core::deliver::cloudevents::LINES_CONTENT_TYPE;
use zen_core::deliver::{Attempt, Batcher, ConnectFailure, Delivery, DeliveryRequest, Outcome};
use zen_core::event::Event;
use zen_core::hops::HOPS_LINE;
use zen_core::id::{EndpointId, EventId};

use super::format::{data_of, prepare};
use super::{Deliveries, Start};
use crate::config::{Format, Target};
use crate::egress::connection::Member;
use crate::egress::owner::Owner;
use crate::mesh::EventBytes;

/// Lines that wait, and for whom they were made.
pub struct Batching {
    target: Arc<Target>,
    lines: Batcher<Line>,
}

struct Line {
    delivery: Delivery,
    accepted_us: u64,
    hops: u8,
    text: Vec<u8>,
}

/// Several deliveries in one request; [`Start`] is the first of them.
pub(super) struct Batch {
    id: EventId,
    /// The furthest of all.
    hops: u8,
    pub(super) accepted_us: u64,
    pub(super) others: Vec<Member>,
}

impl Batching {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl Batch {
    /// Prepares the request: an event of its own, of no endpoint.
    pub(super) fn prepare(
        &self,
        owner: &Owner,
        body: &[u8],
        attempt: Attempt,
        request: &mut DeliveryRequest,
    ) -> Result<(), Outcome> {
        let headers = format!("{HOPS_LINE}:{}\n", self.hops);
        let endpoint = EndpointId([0; 16]);
        let event =
            Event { id: self.id, endpoint, content_type: LINES_CONTENT_TYPE, headers: &headers, body };
        prepare(owner, &event, attempt, request)
    }
}

impl Deliveries {
    /// Takes the starts of targets that want batches, and puts in the batches that may go now.
    pub(super) fn gather(&mut self) {
        self.end_stale_lines();
        for start in std::mem::take(&mut self.starts) {
            let owner = self.owners.get(&start.target);
            match owner.filter(|owner| owner.target.batch.is_some()).map(|owner| self.line(owner, &start)) {
                None => self.starts.push(start),
                Some(Ok(line)) => self.take_line(&start.target, line),
                Some(Err(outcome)) => self.finish(&start.target, start.delivery.key, 0, &outcome),
            }
        }
        // Nobody comes any more whom it would be worth to wait for.
        let now_ms = if self.draining { u64::MAX } else { self.clock.steady_ms };
        let (wall_ms, ids, entropy) = (self.clock.wall_ms, &mut self.ids, &mut self.entropy);
        for owner in self.owners.values_mut() {
            let Some(batching) = &mut owner.batching else { continue };
            while let Some(lines) = batching.lines.poll_batch(now_ms) {
                self.metrics.batches.add(1);
                let id = ids.next(wall_ms, entropy.bytes());
                self.starts.push(start_of(&owner.name, id, lines));
            }
        }
    }

    /// When a batch has waited long enough, steady ms.
    pub(super) fn poll_batch_timeout(&self) -> Option<u64> {
        let batching = self.owners.values().filter_map(|owner| owner.batching.as_ref());
        batching.filter_map(|batching| batching.lines.poll_timeout()).min()
    }

    /// Ends what could not be sent.
    pub(super) fn end_start(&mut self, start: &Start, outcome: &Outcome) {
        self.finish(&start.target, start.delivery.key, 0, outcome);
        for member in start.batch.iter().flat_map(|batch| &batch.others) {
            self.finish(&start.target, member.key, 0, outcome);
        }
    }

    /// Lines that were made for a target as it was before are made again, as after a broken connection.
    fn end_stale_lines(&mut self) {
        let mut ended = Vec::new();
        for owner in self.owners.values_mut() {
            let stale = |batching: &mut Batching| !Arc::ptr_eq(&batching.target, &owner.target);
            let Some(mut batching) = owner.batching.take_if(stale) else { continue };
            let lines = batching.lines.take_all();
            ended.extend(lines.into_iter().map(|line| (Arc::clone(&owner.name), line)));
        }
        for (target, line) in ended {
            let outcome = Outcome::ConnectFailed(ConnectFailure::Reset);
            self.finish(&target, line.delivery.key, line.accepted_us, &outcome);
        }
    }

    fn line(&self, owner: &Owner, start: &Start) -> Result<Line, Outcome> {
        let event = Event::decode(&start.bytes).map_err(|_| Outcome::Refused)?;
        let Format::Structured(attributes) = &owner.target.format else { return Err(Outcome::Refused) };
        let metadata = |name| event.metadata(name);
        let mut line = Line {
            delivery: start.delivery,
            accepted_us: metadata(":accepted-us").and_then(|value| value.parse().ok()).unwrap_or(0),
            hops: metadata(HOPS_LINE).and_then(|value| value.parse().ok()).unwrap_or(0),
            text: Vec::new(),
        };
        let deadline_ms = owner.deadline_ms(line.delivery.key, line.accepted_us, self.clock);
        if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= self.clock.steady_ms) {
            return Err(Outcome::DeadlineOver);
        }
        match self.transformed(owner, &event)? {
            None => attributes.write_line(&event, data_of(&event), &mut line.text),
            Some(made) => {
                let sent = Event { content_type: made.content_type, body: &made.body, ..event };
                attributes.write_line(&sent, data_of(&sent), &mut line.text);
            }
        }
        Ok(line)
    }

    fn take_line(&mut self, target: &Arc<str>, line: Line) {
        let Some(owner) = self.owners.get_mut(target) else { return };
        let limits = owner.target.batch.expect("a line is made for a target that takes batches");
        let made = || Batching { target: Arc::clone(&owner.target), lines: Batcher::new(limits) };
        let bytes = line.text.len();
        owner.batching.get_or_insert_with(made).lines.handle_item(line, bytes, self.clock.steady_ms);
    }
}

fn start_of(target: &Arc<str>, id: EventId, lines: Vec<Line>) -> Start {
    let hops = lines.iter().map(|line| line.hops).max().unwrap_or(0);
    let mut body = Vec::with_capacity(lines.iter().map(|line| line.text.len()).sum());
    let first = lines.first().expect("a batch holds something");
    let (delivery, accepted_us) = (first.delivery, first.accepted_us);
    let mut others = Vec::with_capacity(lines.len() - 1);
    for (index, line) in lines.into_iter().enumerate() {
        body.extend_from_slice(&line.text);
        if index > 0 {
            others.push(Member { key: line.delivery.key, accepted_us: line.accepted_us });
        }
    }
    let batch = Some(Box::new(Batch { id, hops, accepted_us, others }));
    Start { batch, ..Start::new(Arc::clone(target), delivery, EventBytes::from(body)) }
}
