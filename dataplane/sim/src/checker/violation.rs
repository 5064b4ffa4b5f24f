//! What can be broken.

use zen_core::id::EventId;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A 2xx for what a power cut would lose.
    #[error("a source got 2xx for event {0}, which is not on disk")]
    AnsweredNotDurable(EventId),
    /// A request that is not what it claims to be got a 2xx, or its body is in a journal.
    #[error("an event that no source signed was taken")]
    Unverified,
    /// Two events with one id.
    #[error("id {0} stands for two events")]
    IdTwice(EventId),
    /// A journal gave up an event that the next hop does not have, and that is not done.
    #[error("journal {journal} gave up event {event} too early")]
    TrimmedTooEarly {
        /// Whose journal.
        journal: usize,
        /// The event.
        event: EventId,
    },
    /// What was on disk is not there after a restart, or is something else.
    #[error("journal {journal} lost record {sequence}, which was on disk")]
    RecordLost {
        /// Whose journal.
        journal: usize,
        /// Which.
        sequence: u64,
    },
    /// Recovery sees damage where no bit rotted, or cannot read the journal.
    #[error("journal {journal} was refused or found damaged although no bit rotted: {why}")]
    DamageInvented {
        /// Whose journal.
        journal: usize,
        /// What recovery said.
        why: String,
    },
    /// Recovery left out rotted records and did not say so.
    #[error("journal {0} left out records whose bits rotted, without a word")]
    DamageHidden(usize),
    /// A target took what no source made, or another body or endpoint under the same id.
    #[error("target {target} took event {event}, which is not what was accepted")]
    DeliveredWrong {
        /// The target.
        target: usize,
        /// The id that it saw.
        event: EventId,
    },
    /// A target refused an honest delivery for a reason that is none.
    #[error("target {target} refused an honest delivery: {why}")]
    RefusedHonest {
        /// The target.
        target: usize,
        /// What its check said.
        why: String,
    },
    /// A target took the same delivery twice.
    #[error("target {0} took a replayed delivery")]
    ReplayTaken(usize),
    /// One event of a source is two events in the journals of one ingester, within its window.
    #[error("ingester {ingester} accepted one event of a source as {first} and as {second}")]
    KeyTwice {
        /// The ingester.
        ingester: usize,
        /// The first id.
        first: EventId,
        /// The second.
        second: EventId,
    },
    /// A source was told that an event came before, long after its window was over.
    #[error("event {0} counts as seen long after its window")]
    KeyKept(EventId),
    /// Two honest nodes did not understand each other.
    #[error("node {node} closed a link of honest nodes: {why}")]
    LinkRefused {
        /// Who.
        node: usize,
        /// What it said.
        why: String,
    },
    /// An egress journaled an event twice.
    #[error("journal {journal} holds event {event} twice, as two deliveries")]
    HeldTwice {
        /// Whose journal.
        journal: usize,
        /// The event.
        event: EventId,
    },
    /// An event was given up as damaged whose record no bit rotted in.
    #[error("journal {journal} gave up event {event} as damaged, which it is not")]
    GivenUp {
        /// Whose journal.
        journal: usize,
        /// The event.
        event: EventId,
    },
    /// A delivery was given up although its schedule was not over.
    #[error("event {event} became a dead letter for target {target} too early")]
    DeadLetter {
        /// The handle at its egress.
        event: u64,
        /// The target.
        target: usize,
    },
    /// An attempt for what an operator has thrown away, durably.
    #[error("event {event} was sent to target {target} although it was thrown away")]
    DiscardUndone {
        /// The handle at its egress.
        event: u64,
        /// The target.
        target: usize,
    },
    /// An ordered target got an attempt at an event while one before it was open.
    #[error("event {event} was overtaken on its way to target {target}")]
    Overtaken {
        /// The target.
        target: usize,
        /// The one that should have been first.
        event: EventId,
    },
    /// A queue, table or buffer is over its bound.
    #[error("{name}: {value}, bound {bound}")]
    Bound {
        /// What.
        name: &'static str,
        /// How much.
        value: usize,
        /// How much may be.
        bound: usize,
    },
    /// Without faults, not everything was delivered in time.
    #[error(
        "no progress: {sources} events not accepted, {deliveries} deliveries missing long after the last fault"
    )]
    NoProgress {
        /// Genuine events without a 2xx.
        sources: usize,
        /// Accepted events that a target does not have.
        deliveries: usize,
    },
}
