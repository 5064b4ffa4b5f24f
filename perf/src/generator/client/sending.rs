//! What is due goes out: on the connection that has waited longest, signed with what else goes out now.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Client, DRAIN_SEND_NS, Phase, WAIT_NS_MAX};
use crate::generator::connection::Flight;
use crate::generator::draw::Sending;
use crate::generator::requests::Order;
use crate::generator::tally::Waited;

/// No HTTP in any version, and an end of a line, for servers that wait for one.
const JUNK: &[u8] = b"\x16\x03\x01\x00\xa5 this is no request \x00\xff\r\n\r\n";

/// Why an event is sent now.
enum Due {
    /// The schedule said so, for this moment.
    At(u64),
    /// A connection has its answer.
    WithAnswer,
}

impl Client<'_> {
    /// Sends what is due at `now_ns`, as far as there are connections.
    pub(super) fn send(&mut self, now_ns: u64) {
        self.skip_until(now_ns.saturating_sub(WAIT_NS_MAX).min(self.end_ns));
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        while !self.idle.is_empty() && !self.is_enough() {
            let due_ns = match self.take_due(now_ns) {
                None => break,
                Some(Due::WithAnswer) => None,
                Some(Due::At(due_ns)) => Some(due_ns),
            };
            let index = self.idle.pop_front().expect("the loop has looked");
            self.connections[index].is_idle = false;
            self.counted += u64::from(self.is_measured(due_ns));
            self.draft(index, due_ns, now_s);
            if self.batch.is_full() {
                self.flush();
            }
        }
        self.flush();
    }

    /// The next event to be sent, if one is due.
    fn take_due(&mut self, now_ns: u64) -> Option<Due> {
        let is_loaded = matches!(self.phase, Phase::WarmUp | Phase::Measure);
        let Some(schedule) = &mut self.schedule else {
            return is_loaded.then_some(Due::WithAnswer);
        };
        let due_ns = schedule.due_ns();
        let is_late = self.phase == Phase::Drain && now_ns <= self.end_ns + DRAIN_SEND_NS;
        if due_ns > now_ns || due_ns >= self.end_ns || !(is_loaded || is_late) {
            return None;
        }
        schedule.advance();
        Some(Due::At(due_ns))
    }

    /// Whether an event that is sent now counts.
    fn is_measured(&self, due_ns: Option<u64>) -> bool {
        match due_ns {
            Some(due_ns) => (self.begin_ns..self.end_ns).contains(&due_ns),
            None => self.phase == Phase::Measure,
        }
    }

    /// Gives up events that were due before `until_ns`.
    pub(super) fn skip_until(&mut self, until_ns: u64) {
        if self.is_enough() {
            return;
        }
        let Some(schedule) = &mut self.schedule else { return };
        while schedule.due_ns() < until_ns {
            self.tally.load.unsent += u64::from((self.begin_ns..self.end_ns).contains(&schedule.due_ns()));
            schedule.advance();
        }
    }

    /// Chooses what to send, and writes it down for the next signing.
    fn draft(&mut self, connection: usize, due_ns: Option<u64>, now_s: u64) {
        let mut sending = self.plan.draw.sending(self.sendings);
        self.sendings += 1;
        if sending == Sending::Repeat && self.remembered.is_empty() {
            sending = Sending::New;
        }
        let number = match sending {
            Sending::Junk => 0,
            Sending::Repeat => self.remembered[self.random.below(self.remembered.len() as u64) as usize],
            Sending::New | Sending::BadSignature => {
                self.events += 1;
                self.events - 1
            }
        };
        let order = Order { connection, sending, number, due_ns };
        match (&self.plan.catalogue, &self.plan.raw) {
            _ if sending == Sending::Junk => self.batch.add_raw(order, JUNK),
            (Some(catalogue), _) => self.batch.add(catalogue, order, now_s),
            (None, raw) => self.batch.add_raw(order, raw),
        }
    }

    /// Signs what was written down, and sends it.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let drafts = batch.sign(self.plan.catalogue.as_ref());
        let sent_ns = self.now_ns();
        for draft in drafts {
            let connection = &self.connections[draft.connection];
            let free_ns = connection.idle_since_ns;
            let flight = Flight {
                sending: draft.sending,
                number: draft.number,
                since_ns: draft.due_ns.unwrap_or(sent_ns),
                sent_ns,
                measured: self.is_measured(draft.due_ns),
            };
            let lag_ns = draft.due_ns.map(|due_ns| sent_ns.saturating_sub(due_ns.max(free_ns)));
            let is_late = draft.due_ns.is_some_and(|due_ns| free_ns > due_ns);
            let waited = if is_late { Waited::ForConnection } else { Waited::No };
            self.tally.sent(&flight, lag_ns, waited);
            self.flights += 1;
            let is_down = connection.socket.is_none();
            let connection = &mut self.connections[draft.connection];
            connection.request(flight, &mut draft.bytes, &mut self.reactor);
            if is_down {
                self.dial(draft.connection);
            }
        }
        self.batch = batch;
    }
}
