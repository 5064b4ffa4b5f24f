//! The sending end of a link: from the journal into batches, and what a resumed stream may ask for.

use std::sync::Arc;

use zen_core::event::Event;
use zen_core::journal::Sequence;
use zen_core::link::{
    BATCH_EVENTS_MAX, Hello, LinkError, Outgoing, Routed, Sender, SenderConfig, SenderEvent,
};
use zen_identity::SpiffeId;
use zen_uring::{Reactor, SocketId};

use super::admission::{admits, egress_peer};
use super::session::{Link, Machine};
use super::{Links, PUMP_BYTES_MAX, Parts};
use crate::config::EgressPeer;
use crate::crypto::Counted;
use crate::ingester::Ingester;
use crate::journal::read_token;
use crate::mesh::JournalRole;

impl Links {
    pub(super) fn begin_sending(
        &mut self,
        link: &mut Link,
        hello: &Hello,
        peer: Option<&SpiffeId>,
        parts: &mut Parts<'_>,
    ) -> Result<(), LinkError> {
        let snapshot = Arc::clone(&self.snapshot);
        let known = egress_peer(&snapshot, &hello.node).filter(|known| admits(&known.policy, peer));
        let known = known.ok_or(LinkError::NodeName)?;
        let ingester = parts.ingester.as_deref().ok_or(LinkError::Role)?;
        let config = self.sender_config(known, ingester);
        self.take_place(link)?;
        let sender = Sender::accept(config, hello, self.clock.steady_ms, &mut link.out)?;
        link.machine = Machine::Sending { sender: Box::new(sender), egress: known.name.clone() };
        Ok(())
    }

    pub(super) fn handle_sender_event(
        &mut self,
        socket: SocketId,
        egress: &str,
        event: SenderEvent,
        parts: &mut Parts<'_>,
    ) -> Result<(), LinkError> {
        let Some(ingester) = parts.ingester.as_deref_mut() else { return Ok(()) };
        match event {
            SenderEvent::None | SenderEvent::Goodbye(_) => {}
            SenderEvent::Ready { resume_after } => {
                check_resume(egress, Sequence(resume_after), ingester)?;
                tracing::info!(egress, stream = self.worker, resume_after, "link ready");
                self.metrics.link_connects.add(1);
                if let Some(slot) = self.slots.iter_mut().find(|slot| slot.is(socket)) {
                    slot.handle_ready(self.clock.steady_ms);
                }
                ingester.handle_link_ready(egress, Sequence(resume_after));
                // One link per egress: an older one is a leftover of a connection that broke.
                let older: Vec<SocketId> = self
                    .open
                    .iter()
                    .filter(|(_, link)| link.sends_to(egress))
                    .map(|(socket, _)| socket)
                    .collect();
                for socket in older {
                    self.close(socket, "replaced", parts.reactor);
                }
            }
            SenderEvent::Acked { durable } => ingester.handle_acknowledged(egress, Sequence(durable)),
        }
        Ok(())
    }

    pub(super) fn sender_config(
        &self,
        peer: &EgressPeer,
        ingester: &Ingester,
    ) -> SenderConfig<zen_hmac::PreparedKey> {
        SenderConfig {
            node: self.snapshot.node.name.clone(),
            egress: peer.name.clone(),
            stream: self.worker,
            streams: self.mesh.workers(),
            journal_id: ingester.journal().id(),
            key_id: peer.key_id.clone(),
            key: peer.key.clone(),
        }
    }
}

/// Seals batches until the journal, the credit or the send buffer says stop; returns how many events left.
pub fn send_events(
    link: &mut Link,
    mac: Counted<'_>,
    ingester: &mut Ingester,
    reactor: &mut Reactor,
    wall_ms: u64,
) -> u64 {
    let Machine::Sending { sender, egress } = &mut link.machine else { return 0 };
    let mut sent = 0;
    while sender.is_ready() && link.out.len() < PUMP_BYTES_MAX {
        let Some((index, outbox, journal)) = ingester.outbox_mut(egress) else { return sent };
        let token = read_token(JournalRole::Ingester, index as u64);
        let Some(piece) = outbox.poll_piece(journal, reactor, token) else { return sent };
        let (routed, passed) = outbox.routed(&piece, journal, BATCH_EVENTS_MAX);
        if routed.is_empty() {
            outbox.handle_passed(passed);
            continue;
        }
        let mut names = Vec::with_capacity(routed.iter().map(|routed| routed.targets.len()).sum());
        names.extend(routed.iter().flat_map(|routed| routed.targets.iter()));
        let mut names = &names[..];
        let mut outgoing = Vec::with_capacity(routed.len());
        for Routed { sequence, targets, event: encoded } in &routed {
            let targets = names.split_off(..targets.len()).expect("the names of all events");
            let Ok(event) = Event::decode(encoded) else { continue };
            outgoing.push(Outgoing { sequence: sequence.0, targets, event, encoded });
        }
        let taken = sender.seal_batch(&mac, &outgoing, wall_ms, &mut link.out);
        sent += taken as u64;
        if taken < outgoing.len() {
            if let Some(last) = taken.checked_sub(1) {
                outbox.handle_passed(Sequence(outgoing[last].sequence));
            }
            return sent;
        }
        outbox.handle_passed(passed);
    }
    sent
}

/// What the egress has must be of this journal: else it would take new events for old ones.
fn check_resume(egress: &str, resume_after: Sequence, ingester: &mut Ingester) -> Result<(), LinkError> {
    let Some((_, outbox, journal)) = ingester.outbox_mut(egress) else { return Ok(()) };
    if !outbox.can_resume(journal.first_of_run(), resume_after) {
        return Err(LinkError::ResumeAhead);
    }
    if journal.has_lost(resume_after) {
        let resume_after = resume_after.0;
        tracing::error!(
            egress,
            resume_after,
            "this journal has lost its newest records after the egress acknowledged them: look at the disk; later events are not affected"
        );
    }
    Ok(())
}
