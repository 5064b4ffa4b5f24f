//! The receiving end of a link: from batches into the egress, what a stream resumes after, and acknowledgements and
//! credit that go back.

use zen_core::event::Event;
use zen_core::link::{Hello, Incoming as Checked, LinkError, ReceiverConfig};
use zen_core::record::HeldEvent;
use zen_uring::SocketId;

use super::session::{Link, Machine};
use super::{CREDIT_BYTES, CREDIT_EVENTS, Links, Parts};
use crate::config::IngesterPeer;
use crate::egress::{Acknowledge, Egress, Incoming};
use crate::mesh::{EventBytes, Message};

impl Links {
    /// The sender's hello is there: ask for what is not durable here yet.
    pub(super) fn begin_receiving(
        &mut self,
        socket: SocketId,
        link: &mut Link,
        hello: &Hello,
        parts: &mut Parts<'_>,
    ) -> Result<(), LinkError> {
        let Machine::Receiving { receiver, stream, durable, .. } = &mut link.machine else { return Ok(()) };
        let Some(egress) = parts.egress.as_deref_mut() else { return Ok(()) };
        let resume_after = egress.resume_after(hello.journal_id).ok_or(LinkError::TooManyStreams)?;
        *stream = Some(hello.journal_id);
        *durable = resume_after;
        receiver.start(resume_after, &mut link.out);
        self.metrics.link_connects.add(1);
        tracing::info!(ingester = hello.node, stream = hello.stream, resume_after, "link ready");
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is(socket)) {
            slot.handle_ready(self.clock.steady_ms);
            if self.streams.get(&hello.node) != Some(&hello.streams) {
                for worker in 0..self.mesh.workers() {
                    let message = Message::Streams { ingester: hello.node.clone(), streams: hello.streams };
                    self.mesh.send(worker, message);
                }
            }
        }
        Ok(())
    }

    pub(super) fn take_events(socket: SocketId, link: &Link, checked: &[Checked<'_>], parts: &mut Parts<'_>) {
        let Machine::Receiving { stream: Some(stream), .. } = &link.machine else { return };
        let Some(egress) = parts.egress.as_deref_mut() else { return };
        for incoming in checked {
            let mut head = egress.take_head();
            HeldEvent::encode_head(&mut head, stream, incoming.sequence, 0, 0, incoming.targets.iter());
            egress.take(Incoming {
                link: socket,
                stream: *stream,
                link_sequence: incoming.sequence,
                id: Event::id_of(incoming.encoded).expect("the link has checked the event"),
                head,
                event: EventBytes::from(incoming.encoded),
            });
        }
    }

    /// Tells senders what is durable, and gives credit back while there is room.
    pub(super) fn acknowledge(&mut self, egress: &mut Egress) {
        while let Some(Acknowledge { link, durable, events, bytes }) = egress.poll_acknowledge() {
            if let Some(Machine::Receiving { durable: known, owed, .. }) =
                self.open.get_mut(link).map(|link| &mut link.machine)
            {
                *known = (*known).max(durable);
                owed.0 += bytes;
                owed.1 += u64::from(events);
            }
        }
        let has_room = egress.has_room();
        for link in self.open.values_mut() {
            let Machine::Receiving { receiver, durable, owed, .. } = &mut link.machine else { continue };
            if !receiver.is_open() {
                continue;
            }
            if has_room && owed.1 > 0 {
                receiver.grant(owed.0, owed.1);
                *owed = (0, 0);
            }
            receiver.ack(*durable, &mut link.out);
        }
    }

    pub(super) fn receiver_config(
        &mut self,
        peer: &IngesterPeer,
        stream: u16,
    ) -> ReceiverConfig<zen_hmac::PreparedKey> {
        ReceiverConfig {
            node: self.snapshot.node.name.clone(),
            ingester: peer.name.clone(),
            stream,
            keys: peer.keys.clone(),
            session: self.entropy.bytes(),
            credit_bytes: CREDIT_BYTES,
            credit_events: CREDIT_EVENTS,
        }
    }
}
