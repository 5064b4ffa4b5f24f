//! What the reactor reports, and what it means for the counts.

use zen_uring::SocketId;

use super::{Client, Completion, Phase, REMEMBERED_MAX, REST_NS, Step};
use crate::generator::connection::{Answer, Flight};
use crate::generator::draw::Sending;
use crate::generator::tally::Verdict;

impl Client<'_> {
    /// Takes all that is there; it counts as of one moment, when the tick gave it out.
    pub(super) fn handle_completions(&mut self, completions: &mut Vec<Completion>) {
        let now_ns = self.now_ns();
        for completion in completions.drain(..) {
            let Some((index, step)) = self.handle_completion(completion) else { continue };
            self.handle_step(index, step, now_ns);
        }
    }

    fn handle_completion(&mut self, completion: Completion) -> Option<(usize, Step)> {
        let reactor = &mut self.reactor;
        let owned =
            |client: &[crate::generator::connection::Connection], owners: &[usize], socket: SocketId| {
                let index = owners[socket.index()];
                (client[index].socket == Some(socket)).then_some(index)
            };
        let (index, step) = match completion {
            Completion::Connected { socket, result } => {
                let index = owned(&self.connections, &self.owners, socket)?;
                let tls = self.plan.tls.as_ref();
                (index, self.connections[index].handle_connected(result, tls, reactor))
            }
            Completion::Received { socket, buffer } => {
                let Some(index) = owned(&self.connections, &self.owners, socket) else {
                    reactor.recycle(buffer);
                    return None;
                };
                let connection = &mut self.connections[index];
                let parsed = connection.handle_received(reactor.bytes(&buffer));
                reactor.recycle(buffer);
                (index, connection.handle_parsed(parsed, self.plan.reuse, reactor))
            }
            Completion::Closed { socket, error } => {
                let index = owned(&self.connections, &self.owners, socket)?;
                (index, self.connections[index].handle_closed(error.as_ref(), reactor))
            }
            Completion::Sent { socket, buffer, result } => {
                let index = owned(&self.connections, &self.owners, socket)?;
                (index, self.connections[index].handle_sent(buffer, result, reactor))
            }
            _ => return None,
        };
        Some((index, step))
    }

    /// What a connection came to.
    pub(super) fn handle_step(&mut self, index: usize, step: Step, now_ns: u64) {
        if let Some(resumed) = self.connections[index].take_news() {
            self.tally.opened(resumed);
        }
        match step {
            Step::Busy => {}
            Step::Opened => {
                self.opening = self.opening.saturating_sub(1);
                self.rest_idle(index, now_ns);
            }
            Step::Answered(flight, answer) => {
                self.flights -= 1;
                self.answered(index, &flight, answer, now_ns);
                self.rest_idle(index, now_ns);
            }
            Step::Failed(flight, reason) => self.failed(index, flight, reason, now_ns),
        }
    }

    fn answered(&mut self, index: usize, flight: &Flight, answer: Answer, now_ns: u64) {
        let in_span = self.phase == Phase::Measure;
        let verdict = self.tally.answered(flight, answer, now_ns, in_span);
        if verdict != Verdict::Accepted || flight.sending != Sending::New {
            return;
        }
        if self.remembered.len() < REMEMBERED_MAX {
            self.remembered.push(flight.number);
        } else {
            self.remembered[self.accepted % REMEMBERED_MAX] = flight.number;
        }
        self.accepted += 1;
        if let (Some(recorder), Some(catalogue)) = (&mut self.recorder, &self.plan.catalogue) {
            let body = catalogue.body(flight.number);
            recorder.accepted(flight.number, self.connections[index].kept(), &body);
        }
    }

    fn failed(&mut self, index: usize, flight: Option<Flight>, reason: String, now_ns: u64) {
        match flight {
            Some(flight) => {
                self.flights -= 1;
                self.tally.failed(&flight, reason);
            }
            None => self.tally.last_failure = Some(reason),
        }
        if !self.connections[index].is_idle {
            self.opening = self.opening.saturating_sub(1);
            self.resting.push_back((now_ns + REST_NS, index));
        }
    }
}
