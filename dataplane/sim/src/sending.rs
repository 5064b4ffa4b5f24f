//! An ingester on its links: what each egress lacks, sent as far as credit goes.
//!
//! Routed events and acknowledgements enter; sealed batches leave, and what each egress still holds in the journal.

use zen_core::crypto::Mac;
use zen_core::event::Event;
use zen_core::journal::Sequence;
use zen_core::link::{Frame, Hello, LinkError, Outbox, Outgoing, Sender, SenderConfig, SenderEvent};

use crate::checker::number;
use crate::context::{Clock, Context, Crash, NodeId};
use crate::crypto::{Key, Portable};
use crate::journal::{Journal, Owned};
use crate::link::{Links, Progress, Role, link_secret};
use crate::network::ConnectionId;
use crate::plan::Planted;

/// See the module.
#[derive(Debug)]
pub struct Sending {
    node: NodeId,
    journal_id: [u8; 16],
    /// The first sequence behind those that the last recovery left out.
    skipped_to: Sequence,
    outboxes: Vec<Outbox>,
}

/// One end of a link to an egress.
#[derive(Debug)]
pub struct SenderEnd {
    sender: Box<Sender<Key>>,
    /// Which egress, from 0.
    egress: usize,
}

impl Sending {
    /// From a journal that was opened, and what it has for each egress.
    pub fn new(node: NodeId, journal: &Journal, outboxes: Vec<Outbox>) -> Self {
        Self { node, journal_id: journal.id(), skipped_to: journal.skipped().end, outboxes }
    }

    /// An event of a source is durable.
    pub fn route(&mut self, context: &Context, source: usize, sequence: Sequence) {
        for target in &context.plan.routes[source] {
            self.outboxes[target % context.plan.egresses].handle_routed(sequence);
        }
    }

    /// Up to where no egress needs the journal, if up to `durable` it has been sent.
    pub fn trimmable(&self, durable: Sequence) -> Sequence {
        self.outboxes.iter().filter_map(Outbox::holds).fold(durable, Sequence::min)
    }

    fn config(&self, context: &Context, egress: usize) -> SenderConfig<Key> {
        let ingester = context.plan.process(self.node);
        SenderConfig {
            node: format!("ingester-{ingester}"),
            egress: format!("egress-{egress}"),
            stream: (self.node.0 % context.plan.workers) as u16,
            streams: context.plan.workers as u16,
            journal_id: self.journal_id,
            key_id: "link-1".to_owned(),
            key: Portable.prepare(&link_secret(ingester, egress)),
        }
    }
}

impl Links<Sending> {
    /// Sends what is durable, as far as credit goes.
    pub fn pump(&mut self, context: &mut Context, journal: &Journal) -> Result<(), Crash> {
        let Sending { node, outboxes, .. } = &mut self.role;
        let now_ms = context.clock(*node).wall_ms;
        for (connection, link) in &mut self.open {
            let Some(SenderEnd { sender, egress }) = &mut link.end else { continue };
            send_events(context, journal, &mut outboxes[*egress], sender, &mut link.out, now_ms);
            link.flush(context, *connection);
            context.step(*node)?;
        }
        Ok(())
    }
}

impl Role for Sending {
    type End = SenderEnd;

    fn dial(&mut self, context: &mut Context, peer: NodeId, steady_ms: u64, out: &mut Vec<u8>) -> SenderEnd {
        let egress = context.plan.process(peer) - context.plan.ingesters;
        let sender = Box::new(Sender::dial(self.config(context, egress), steady_ms, out));
        SenderEnd { sender, egress }
    }

    fn accept(
        &mut self,
        context: &mut Context,
        hello: &Hello,
        steady_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<SenderEnd, LinkError> {
        let egress = number(&hello.node);
        let sender = Box::new(Sender::accept(self.config(context, egress), hello, steady_ms, out)?);
        Ok(SenderEnd { sender, egress })
    }

    fn handle_frame(
        &mut self,
        context: &mut Context,
        (_, end): (ConnectionId, &mut SenderEnd),
        frame: Frame<'_>,
        clock: Clock,
        out: &mut Vec<u8>,
    ) -> Result<Progress, LinkError> {
        let outbox = &mut self.outboxes[end.egress];
        match end.sender.handle_frame(frame, clock.steady_ms, out)? {
            SenderEvent::None | SenderEvent::Goodbye(_) => {}
            SenderEvent::Acked { durable } => outbox.handle_acknowledged(Sequence(durable)),
            SenderEvent::Ready { resume_after } => {
                if !outbox.can_resume(self.skipped_to, Sequence(resume_after)) {
                    return Err(LinkError::ResumeAhead);
                }
                context.note(format_args!("ingester {} resumes after {resume_after}", self.node.0));
                outbox.handle_ready(Sequence(resume_after));
                return Ok(Progress::Ready);
            }
        }
        Ok(Progress::Same)
    }

    fn handle_timeout(end: &mut SenderEnd, steady_ms: u64, out: &mut Vec<u8>) -> Result<(), LinkError> {
        end.sender.handle_timeout(steady_ms, out)
    }

    /// One link per egress.
    fn is_leftover(older: &SenderEnd, ready: &SenderEnd) -> bool {
        older.egress == ready.egress
    }
}

/// Seals batches of durable events until the journal or the credit says stop.
fn send_events(
    context: &mut Context,
    journal: &Journal,
    outbox: &mut Outbox,
    sender: &mut Sender<Key>,
    out: &mut Vec<u8>,
    now_ms: u64,
) {
    while sender.is_ready() {
        let Some(next) = outbox.poll_next(journal.oldest(), journal.skipped(), journal.durable()) else {
            return;
        };
        let (records, looked) = journal.read_from(next);
        let count = 1 + context.prng.below(16);
        let (routed, passed) = outbox.routed(records.iter().map(Owned::record), journal.durable(), count);
        if routed.is_empty() {
            // Damage may have them all.
            outbox.handle_passed(passed.max(looked));
            continue;
        }
        let targets: Vec<Vec<&str>> = routed.iter().map(|routed| routed.targets.iter().collect()).collect();
        let outgoing: Vec<Outgoing<'_>> = routed
            .iter()
            .zip(&targets)
            .map(|(routed, targets)| Outgoing {
                sequence: routed.sequence.0,
                targets,
                event: Event::decode(routed.event).expect("journaled events are in their encoding"),
                encoded: routed.event,
            })
            .collect();
        let taken = sender.seal_batch(&Portable, &outgoing, now_ms, out);
        let sent = match taken.checked_sub(1) {
            _ if taken == outgoing.len() => passed,
            Some(last) => Sequence(outgoing[last].sequence),
            None => return,
        };
        outbox.handle_passed(sent);
        if context.plan.planted == Some(Planted::TrimBeforeAck) {
            outbox.handle_acknowledged(sent);
        }
        if taken < outgoing.len() {
            return;
        }
    }
}
