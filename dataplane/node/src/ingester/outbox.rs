//! An egress's cursor over the journal: what it still needs, from memory or from disk.

use std::collections::VecDeque;

use zen_core::journal::{Kind, SEQUENCES_SKIPPED, Sequence};
use zen_core::record::{Names, decode_routes};
use zen_uring::{AlignedBuffer, Reactor};

use crate::journal::{Cursor, Journal, Next, Piece};

/// One event for a link, borrowed from a commit.
#[derive(Debug)]
pub struct Routed<'a> {
    /// Its sequence in this journal.
    pub sequence: Sequence,
    /// The egress's targets.
    pub targets: Names<'a>,
    /// The event's encoding.
    pub event: &'a [u8],
}

/// One egress's cursor.
#[derive(Debug)]
pub struct Outbox {
    egress: String,
    last: Sequence,
    acknowledged: Sequence,
    next: Sequence,
    /// Highest sequence that this process may have sent.
    sent: Sequence,
    /// Behind which unacknowledged events sequences were left out, once for each recovery in between.
    skips: VecDeque<Sequence>,
    cursor: Cursor,
}

impl Outbox {
    /// An outbox without events.
    pub fn new(egress: &str) -> Self {
        Self {
            egress: egress.to_owned(),
            last: Sequence(0),
            acknowledged: Sequence(0),
            next: Sequence(1),
            sent: Sequence(0),
            skips: VecDeque::new(),
            cursor: Cursor::default(),
        }
    }

    /// Whose it is.
    pub fn egress(&self) -> &str {
        &self.egress
    }

    /// An event for this egress is in the journal.
    pub fn handle_routed(&mut self, sequence: Sequence) {
        let skipped = sequence.0.saturating_sub(self.last.0) / SEQUENCES_SKIPPED;
        self.skips.extend((0..skipped).map(|_| sequence));
        self.last = self.last.max(sequence);
    }

    /// The egress has everything up to `durable`.
    pub fn handle_acknowledged(&mut self, durable: Sequence) {
        self.acknowledged = self.acknowledged.max(durable);
        while self.skips.pop_front_if(|behind| *behind <= durable).is_some() {}
    }

    /// A link is ready and resumes after `resume_after`.
    pub fn handle_ready(&mut self, resume_after: Sequence) {
        self.handle_acknowledged(resume_after);
        self.next = Sequence(resume_after.0 + 1);
    }

    /// Everything up to `sequence` was looked at: sent, or not for this egress.
    pub fn handle_passed(&mut self, sequence: Sequence) {
        self.next = self.next.max(Sequence(sequence.0 + 1));
        self.sent = self.sent.max(sequence);
    }

    /// Whether the egress can have everything up to `resume_after` from this journal.
    pub fn can_resume(&self, journal: &Journal, resume_after: Sequence) -> bool {
        resume_after <= self.sent || resume_after < journal.first_of_run()
    }

    /// Takes a completed read of the journal.
    pub fn handle_read(&mut self, buffer: AlignedBuffer, result: Result<usize, std::io::Error>) {
        self.cursor.handle_read(buffer, result);
    }

    /// Commits with the next event for this egress, if one is durable and in memory.
    pub fn poll_piece(&mut self, journal: &Journal, reactor: &mut Reactor, token: u64) -> Option<Piece> {
        if let Some(oldest) = journal.oldest() {
            self.next = self.next.max(oldest);
        }
        self.next = journal.behind_skipped(self.next);
        if self.next > self.last || self.next > journal.durable() {
            return None;
        }
        match self.cursor.poll(journal, reactor, self.next, token) {
            Next::Piece(piece) => Some(piece),
            Next::Reading | Next::Nothing => None,
        }
    }

    /// The next events in `piece`, at most `count`, and the last sequence that was looked at.
    pub fn routed<'a>(
        &self,
        piece: &'a Piece,
        journal: &Journal,
        count: usize,
    ) -> (Vec<Routed<'a>>, Sequence) {
        let mut routed = Vec::with_capacity(count.min(64));
        let mut passed = Sequence(self.next.0 - 1);
        for record in piece.records() {
            if routed.len() == count || record.sequence > journal.durable() {
                break;
            }
            if record.sequence < self.next {
                continue;
            }
            passed = record.sequence;
            if record.kind != Kind::Event {
                continue;
            }
            if let Ok((Some(targets), event)) = decode_routes(record.payload, &self.egress) {
                routed.push(Routed { sequence: record.sequence, targets, event });
            }
        }
        (routed, passed)
    }

    /// Whether the egress lacks events.
    pub fn is_behind(&self) -> bool {
        self.last > self.acknowledged
    }

    /// Up to where this egress lets the journal be trimmed; none when it lacks nothing.
    pub fn holds(&self) -> Option<Sequence> {
        self.is_behind().then_some(self.acknowledged)
    }

    /// Records not acknowledged, those of other egresses included.
    pub fn lag(&self) -> u64 {
        if !self.is_behind() {
            return 0;
        }
        let skipped = self.skips.len() as u64 * SEQUENCES_SKIPPED;
        (self.last.0 - self.acknowledged.0).saturating_sub(skipped).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_counts_records_and_not_the_sequences_that_recoveries_left_out() {
        let mut outbox = Outbox::new("inside");
        for sequence in 1..=3 {
            outbox.handle_routed(Sequence(sequence));
        }
        outbox.handle_acknowledged(Sequence(1));
        assert_eq!(outbox.lag(), 2);
        outbox.handle_routed(Sequence(4 + SEQUENCES_SKIPPED));
        outbox.handle_routed(Sequence(5 + 3 * SEQUENCES_SKIPPED));
        assert_eq!(outbox.lag(), 4);
        outbox.handle_acknowledged(Sequence(3));
        assert_eq!(outbox.lag(), 2);
        outbox.handle_acknowledged(Sequence(4 + SEQUENCES_SKIPPED));
        assert_eq!(outbox.lag(), 1);
        outbox.handle_acknowledged(Sequence(5 + 3 * SEQUENCES_SKIPPED));
        assert_eq!((outbox.lag(), outbox.skips.len()), (0, 0));
    }

    #[test]
    fn an_egress_that_acknowledged_what_is_lost_is_behind_by_what_came_later() {
        let mut outbox = Outbox::new("inside");
        outbox.handle_routed(Sequence(8));
        outbox.handle_ready(Sequence(10));
        outbox.handle_routed(Sequence(9 + SEQUENCES_SKIPPED));
        assert_eq!((outbox.is_behind(), outbox.lag()), (true, 1));
    }
}
