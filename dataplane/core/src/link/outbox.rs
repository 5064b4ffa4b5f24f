//! What one egress has and lacks of an ingester's journal: which events go over its link next, and how far
//! the journal may be trimmed.
//!
//! Routed sequences, acknowledgements and links that resume enter; the next sequence to read and the events
//! for this egress among records leave. What is not durable is never given out.

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::journal::{Kind, Record, SEQUENCES_SKIPPED, Sequence};
use crate::record::{Names, decode_routes};

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

/// One egress's place in the journal.
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
        }
    }

    /// Whose it is.
    pub fn egress(&self) -> &str {
        &self.egress
    }

    /// From where it reads on.
    pub fn next(&self) -> Sequence {
        self.next
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

    /// Whether the egress can have everything up to `resume_after` from this journal, of which this process
    /// writes from `first_of_run` on.
    pub fn can_resume(&self, first_of_run: Sequence, resume_after: Sequence) -> bool {
        resume_after <= self.sent || resume_after < first_of_run
    }

    /// From where to read on in a journal with records `oldest` to `durable`, without those that recovery
    /// `skipped`, if this egress lacks any of them.
    pub fn poll_next(
        &mut self,
        oldest: Option<Sequence>,
        skipped: &Range<Sequence>,
        durable: Sequence,
    ) -> Option<Sequence> {
        self.next = self.next.max(oldest.unwrap_or(Sequence(0)));
        if skipped.contains(&self.next) {
            self.next = skipped.end;
        }
        (self.next <= self.last && self.next <= durable).then_some(self.next)
    }

    /// The next events for this egress in `records`, at most `count`, and the last sequence that was looked at.
    pub fn routed<'a>(
        &self,
        records: impl IntoIterator<Item = Record<'a>>,
        durable: Sequence,
        count: usize,
    ) -> (Vec<Routed<'a>>, Sequence) {
        let mut routed = Vec::with_capacity(count.min(64));
        let mut passed = Sequence(self.next.0 - 1);
        for record in records {
            if routed.len() == count || record.sequence > durable {
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
    use crate::journal::SegmentId;
    use crate::record::encode_routes;

    const NONE: Range<Sequence> = Sequence(0)..Sequence(0);

    fn payload(egress: &str) -> Vec<u8> {
        let mut payload = Vec::new();
        encode_routes(&mut payload, None, [(egress, &["billing"][..])].into_iter());
        payload.extend_from_slice(b"event");
        payload
    }

    fn record(sequence: u64, kind: Kind, payload: &[u8]) -> Record<'_> {
        Record { sequence: Sequence(sequence), kind, time_ms: 0, payload, segment: SegmentId(1), offset: 0 }
    }

    /// Sequences of the events, and what was passed.
    fn taken(outbox: &Outbox, records: &[Record<'_>], durable: u64, count: usize) -> (Vec<u64>, u64) {
        let (routed, passed) = outbox.routed(records.iter().copied(), Sequence(durable), count);
        assert!(routed.iter().all(|event| event.event == b"event" && event.targets.len() == 1));
        (routed.iter().map(|event| event.sequence.0).collect(), passed.0)
    }

    #[test]
    fn only_durable_events_for_this_egress_are_given_out() {
        let (ours, theirs) = (payload("inside"), payload("other"));
        let kinds = [(Kind::Event, &ours), (Kind::Event, &theirs), (Kind::Checkpoint, &ours)];
        let mut records: Vec<Record<'_>> =
            (1..).zip(kinds).map(|(sequence, (kind, payload))| record(sequence, kind, payload)).collect();
        records.extend((4..=6).map(|sequence| record(sequence, Kind::Event, &ours)));
        let mut outbox = Outbox::new("inside");
        assert_eq!(outbox.poll_next(None, &NONE, Sequence(6)), None, "nothing was routed");
        outbox.handle_routed(Sequence(6));
        assert_eq!(outbox.poll_next(None, &NONE, Sequence(0)), None, "nothing is durable");
        assert_eq!(outbox.poll_next(None, &NONE, Sequence(5)), Some(Sequence(1)));
        assert_eq!(taken(&outbox, &records, 5, 9), (Vec::from([1, 4, 5]), 5));
        assert_eq!(taken(&outbox, &records, 5, 1), (Vec::from([1]), 1));
        assert_eq!(taken(&outbox, &records[1..3], 5, 9), (Vec::new(), 3));
        outbox.handle_passed(Sequence(4));
        assert_eq!(taken(&outbox, &records, 6, 9), (Vec::from([5, 6]), 6));
    }

    #[test]
    fn the_journal_is_held_until_the_egress_has_everything() {
        let mut outbox = Outbox::new("inside");
        assert_eq!((outbox.holds(), outbox.lag()), (None, 0));
        outbox.handle_routed(Sequence(9));
        outbox.handle_passed(Sequence(9));
        assert_eq!((outbox.holds(), outbox.lag()), (Some(Sequence(0)), 9), "sent is not acknowledged");
        outbox.handle_acknowledged(Sequence(5));
        outbox.handle_acknowledged(Sequence(4));
        assert_eq!((outbox.holds(), outbox.lag()), (Some(Sequence(5)), 4));
        outbox.handle_acknowledged(Sequence(9));
        assert_eq!((outbox.holds(), outbox.is_behind()), (None, false));
    }

    #[test]
    fn a_link_resumes_where_the_egress_says_and_never_before_the_oldest_record() {
        let mut outbox = Outbox::new("inside");
        outbox.handle_routed(Sequence(9));
        outbox.handle_passed(Sequence(8));
        outbox.handle_ready(Sequence(3));
        assert_eq!(outbox.poll_next(Some(Sequence(2)), &NONE, Sequence(9)), Some(Sequence(4)), "sent again");
        assert_eq!(outbox.poll_next(Some(Sequence(7)), &NONE, Sequence(9)), Some(Sequence(7)));
        outbox.handle_ready(Sequence(9));
        assert_eq!(outbox.poll_next(Some(Sequence(7)), &NONE, Sequence(9)), None);
    }

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

    #[test]
    fn reading_goes_on_behind_what_a_recovery_left_out_and_only_what_was_sent_can_be_resumed() {
        let mut outbox = Outbox::new("inside");
        outbox.handle_routed(Sequence(100));
        outbox.handle_ready(Sequence(8));
        let skipped = Sequence(8)..Sequence(90);
        assert_eq!(outbox.poll_next(Some(Sequence(1)), &skipped, Sequence(100)), Some(Sequence(90)));
        let can_resume = |outbox: &Outbox, after| outbox.can_resume(skipped.end, Sequence(after));
        assert_eq!((can_resume(&outbox, 89), can_resume(&outbox, 90)), (true, false));
        outbox.handle_passed(Sequence(91));
        assert_eq!((can_resume(&outbox, 91), can_resume(&outbox, 92)), (true, false));
    }
}
