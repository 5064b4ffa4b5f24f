//! Group commit for one thread: whatever arrived while the last write was in flight is the next write.
//!
//! In: events. Out: one aligned batch at a time for whoever writes, and a [`Ticket`] for each event that is ready
//! when its batch is on disk. An event that a batch has no room for is refused.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::journal::{BATCH_HEAD_BYTES, BLOCK_BYTES, batch_head, record_bytes, write_record};

const BATCH_BYTES_MAX: usize = 4 << 20;

/// Events that wait for their write.
#[derive(Debug)]
pub(crate) struct Group {
    pending: RefCell<Pending>,
    writer: RefCell<Option<Waker>>,
}

#[derive(Debug)]
struct Pending {
    buffer: Vec<u8>,
    /// Where aligned memory begins.
    start: usize,
    outcome: Rc<Outcome>,
    /// The buffer of the last write.
    spare: Option<Vec<u8>>,
}

/// What becomes of a batch, and who waits for it.
#[derive(Debug, Default)]
struct Outcome {
    durable: Cell<Option<bool>>,
    waiting: RefCell<Vec<Waker>>,
}

/// A batch to be written: `buffer[start..]`, whole blocks at an aligned address.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Give it back to [`Group::done`].
    pub(crate) buffer: Vec<u8>,
    /// Where the batch begins.
    pub(crate) start: usize,
    outcome: SealedOutcome,
}

/// Who waits for a batch that is being written.
#[derive(Debug)]
pub(crate) struct SealedOutcome(Rc<Outcome>);

/// Ready with whether the event is on disk.
#[derive(Debug)]
pub(crate) struct Ticket(Rc<Outcome>);

impl Group {
    /// Without an event.
    pub(crate) fn new() -> Self {
        let mut pending =
            Pending { buffer: Vec::new(), start: 0, outcome: Rc::default(), spare: Some(new_buffer()) };
        pending.begin();
        Self { pending: RefCell::new(pending), writer: RefCell::new(None) }
    }

    /// Adds an event to the next batch; `None` if that is full.
    pub(crate) fn append(&self, id: &str, body: &[u8]) -> Option<Ticket> {
        let mut pending = self.pending.borrow_mut();
        if pending.buffer.len() - pending.start + record_bytes(id, body) > BATCH_BYTES_MAX {
            return None;
        }
        write_record(&mut pending.buffer, id, body);
        if let Some(writer) = self.writer.borrow_mut().take() {
            writer.wake();
        }
        Some(Ticket(Rc::clone(&pending.outcome)))
    }

    /// Waits until there is an event to write.
    pub(crate) async fn filled(&self) {
        std::future::poll_fn(|context| {
            if self.pending.borrow().is_empty() {
                *self.writer.borrow_mut() = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Takes the batch.
    pub(crate) fn seal(&self) -> Sealed {
        let mut pending = self.pending.borrow_mut();
        let (start, mut buffer) = (pending.start, std::mem::take(&mut pending.buffer));
        let head = batch_head(&buffer[start + BATCH_HEAD_BYTES..]);
        buffer[start..start + BATCH_HEAD_BYTES].copy_from_slice(&head);
        let bytes = (buffer.len() - start).next_multiple_of(BLOCK_BYTES);
        buffer.resize(start + bytes, 0);
        let outcome = SealedOutcome(std::mem::take(&mut pending.outcome));
        pending.begin();
        Sealed { buffer, start, outcome }
    }

    /// Tells the events of a batch what became of it.
    pub(crate) fn done(&self, buffer: Vec<u8>, outcome: &SealedOutcome, durable: bool) {
        self.pending.borrow_mut().spare = Some(buffer);
        outcome.0.durable.set(Some(durable));
        for waiting in outcome.0.waiting.borrow_mut().drain(..) {
            waiting.wake();
        }
    }
}

impl Sealed {
    /// The buffer, where the batch begins in it, and who waits.
    pub(crate) fn into_parts(self) -> (Vec<u8>, usize, SealedOutcome) {
        (self.buffer, self.start, self.outcome)
    }
}

impl Pending {
    /// Begins a batch in the buffer that is not being written.
    fn begin(&mut self) {
        let mut buffer = self.spare.take().unwrap_or_else(new_buffer);
        buffer.clear();
        self.start = buffer.as_ptr().align_offset(BLOCK_BYTES);
        buffer.resize(self.start + BATCH_HEAD_BYTES, 0);
        self.buffer = buffer;
    }

    fn is_empty(&self) -> bool {
        self.buffer.len() == self.start + BATCH_HEAD_BYTES
    }
}

impl Future for Ticket {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(durable) = self.0.durable.get() {
            return Poll::Ready(durable);
        }
        self.0.waiting.borrow_mut().push(context.waker().clone());
        Poll::Pending
    }
}

/// It never grows: that would move it to another alignment.
fn new_buffer() -> Vec<u8> {
    Vec::with_capacity(BATCH_BYTES_MAX + 2 * BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ready(ticket: &mut Ticket) -> Option<bool> {
        match Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(durable) => Some(durable),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_ticket_is_ready_with_its_own_batch_only() {
        let group = Group::new();
        let mut first = group.append("a", b"1").unwrap();
        let (buffer, start, outcome) = group.seal().into_parts();
        assert_eq!(
            (buffer.len() - start, buffer[start..].as_ptr().align_offset(BLOCK_BYTES)),
            (BLOCK_BYTES, 0)
        );
        let mut second = group.append("b", b"2").unwrap();
        assert_eq!((is_ready(&mut first), is_ready(&mut second)), (None, None));
        group.done(buffer, &outcome, true);
        assert_eq!((is_ready(&mut first), is_ready(&mut second)), (Some(true), None));
        let (buffer, _, outcome) = group.seal().into_parts();
        group.done(buffer, &outcome, false);
        assert_eq!(is_ready(&mut second), Some(false));
    }

    #[test]
    fn a_full_batch_refuses_and_the_next_has_room() {
        let group = Group::new();
        let body = vec![0; 64 * 1024];
        let taken = (0..100).filter(|_| group.append("a", &body).is_some()).count();
        assert_eq!(taken, BATCH_BYTES_MAX / (body.len() + record_bytes("a", b"")));
        let sealed = group.seal();
        assert_eq!(sealed.buffer[sealed.start..].as_ptr().align_offset(BLOCK_BYTES), 0);
        assert!(group.append("a", &body).is_some());
    }
}
