//! The end of a worker: nothing new is taken in, what is under way is finished, up to a deadline.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Worker;
use crate::egress::{Deliveries, Egress};
use crate::ingester::Ingester;

impl Worker {
    pub(super) fn drain(&mut self) {
        if self.drain_until.is_some() {
            return;
        }
        self.drain_until = Some(Instant::now() + Duration::from_millis(self.snapshot.node.drain_timeout_ms));
        self.metrics.drain.set(1);
        for (listener, _) in self.listeners.drain(..) {
            self.reactor.stop_listening(listener);
        }
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.drain();
        }
        if let Some(egress) = &mut self.egress {
            egress.drain();
        }
        if let Some(ingester) = &mut self.ingester {
            ingester.drain();
        }
        for index in 0..self.sources.len() {
            let Some((_, mut source)) = self.sources[index].take() else { continue };
            let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
            source.handle_drain(ingester, &mut self.reactor);
            self.put_source(source);
        }
        self.links.drain(&mut self.reactor);
    }

    /// Whether a drain ended, and how: with everything finished, or by its deadline.
    pub(super) fn drained(&mut self) -> Option<bool> {
        let until = self.drain_until?;
        if let Some(ingester) = &mut self.ingester {
            ingester.note_all_acknowledged();
        }
        self.note_attempts_ended();
        let mesh = &self.shared.mesh;
        // Attempts at another worker may be for events of this one's journal: their outcomes are yet to be written here.
        let quiet = self.shared.workers_quiet.load(Ordering::Acquire) == mesh.workers()
            && !mesh.has_messages(self.index)
            && self.sources_open == 0
            && self.ingester.as_ref().is_none_or(Ingester::is_quiet)
            && self.egress.as_ref().is_none_or(Egress::is_quiet)
            && self.deliveries.as_ref().is_none_or(Deliveries::is_quiet);
        if quiet {
            return Some(true);
        }
        (Instant::now() >= until).then_some(false)
    }

    /// Tells the other workers once that no attempt is in flight here any more; what became of each is in their inboxes.
    fn note_attempts_ended(&mut self) {
        if self.attempts_ended || !self.deliveries.as_ref().is_none_or(Deliveries::is_quiet) {
            return;
        }
        self.attempts_ended = true;
        self.shared.workers_quiet.fetch_add(1, Ordering::AcqRel);
        self.shared.mesh.ring_all();
    }
}
