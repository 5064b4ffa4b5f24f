//! Signatures of sources, a tick's side by side.
//!
//! Enters: the connections that wait with a whole request. Each then goes on as if it had been verified alone, in the
//! order in which they became whole. A request that came whole counts, though its connection ends in the same tick.

use zen_uring::SocketId;

use super::{Worker, take_source};
use crate::ingester::{Ingester, Source};

impl Worker {
    /// Verifies all requests that wait, and those that stand behind them in the same buffers.
    pub(super) fn verify(&mut self) {
        while let Some(mut batch) = self.ingester.as_mut().and_then(Ingester::take_unverified) {
            let sockets = std::mem::take(&mut batch.sockets);
            let sources = sockets.iter().filter_map(|socket| self.source(*socket));
            let mut tags = batch.compute(sources.flat_map(Source::jobs));
            self.metrics.hmac_batch_messages.source.record(tags.len());
            for &socket in &sockets {
                let Some(mut source) = take_source(&mut self.sources, socket) else { continue };
                let own = tags.split_off(..source.jobs().count()).expect("the tags of all jobs");
                let ingester = self.ingester.as_mut().expect("sources belong to an ingester");
                source.handle_tags(own, ingester, &mut self.reactor, self.clock.steady_ms);
                self.put_source(source);
            }
            assert!(tags.is_empty(), "each tag belongs to a connection that waits");
            batch.sockets = sockets;
            let ingester = self.ingester.as_mut().expect("the batch came from it");
            ingester.give_unverified(batch);
        }
    }

    /// Verifies at once when nobody else may wait.
    pub(super) fn verify_full(&mut self) {
        if self.ingester.as_ref().is_some_and(Ingester::is_full_of_unverified) {
            self.verify();
        }
    }

    /// Verifies what a connection that ends has sent whole.
    pub(super) fn verify_closed(&mut self, socket: SocketId) {
        if self.source(socket).is_some_and(Source::is_unverified) {
            self.verify();
        }
    }

    fn source(&self, socket: SocketId) -> Option<&Source> {
        let (owner, source) = self.sources.get(socket.index())?.as_ref()?;
        (*owner == socket).then_some(source)
    }
}
