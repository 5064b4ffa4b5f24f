//! Deliveries of one ordering key start one at a time, in the order of their arrival.
//!
//! Arrivals and ends enter; whether a delivery is the first of its key, and which follows an ended one, leave. Only the first of a key is
//! in the queue's other places, and stays the first whatever it meets until it ends, so one that waits for a retry holds back
//! its own key alone. What is behind it is a list through the slots. Deliveries without a key never enter.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::slots::SlotId;

/// Room that an ordered map takes for an entry, entries: its nodes are five elevenths full at least, and point at each other.
const MAP_ROOM: usize = 3;
/// What a place takes beside the queue's, bytes, where deliveries have ordering keys.
pub const ORDERED_PLACE_BYTES: usize = size_of::<SlotId>() + MAP_ROOM * size_of::<(u64, Line)>();

/// The ordering key of deliveries that have none.
pub(super) const UNORDERED: u64 = 0;

/// Where a delivery is among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    First,
    Behind,
}

#[derive(Debug)]
pub(super) struct Order {
    entries_max: usize,
    lines: BTreeMap<u64, Line>,
    /// By slot: who is next in its line. Taken when the first key comes.
    behind: Vec<SlotId>,
}

/// Deliveries of one key, linked from the first to the last.
#[derive(Clone, Copy, Debug)]
struct Line {
    first: SlotId,
    last: SlotId,
}

impl Order {
    pub(super) fn new(entries_max: u32) -> Self {
        Self { entries_max: entries_max as usize, lines: BTreeMap::new(), behind: Vec::new() }
    }

    /// A delivery took a slot.
    pub(super) fn handle_arrival(&mut self, order_key: u64, slot: SlotId) -> Position {
        if order_key == UNORDERED {
            return Position::First;
        }
        if self.behind.is_empty() {
            self.behind.resize(self.entries_max, slot);
        }
        let Some(line) = self.lines.get_mut(&order_key) else {
            self.lines.insert(order_key, Line { first: slot, last: slot });
            return Position::First;
        };
        self.behind[line.last as usize] = slot;
        line.last = slot;
        Position::Behind
    }

    /// The first of its key ended; returns the one that is it now.
    ///
    /// # Panics
    /// If it was not the first.
    pub(super) fn handle_end(&mut self, order_key: u64, slot: SlotId) -> Option<SlotId> {
        if order_key == UNORDERED {
            return None;
        }
        let line = self.lines.get_mut(&order_key).expect("a key that has deliveries has a line");
        assert_eq!(line.first, slot, "only the first of a key starts");
        if line.first == line.last {
            self.lines.remove(&order_key);
            return None;
        }
        line.first = self.behind[slot as usize];
        Some(line.first)
    }

    /// For a target that was removed: takes one that is behind another. Looks at one line for each first that is left.
    pub(super) fn poll_behind(&mut self) -> Option<SlotId> {
        let line = self.lines.values_mut().find(|line| line.first != line.last)?;
        let taken = self.behind[line.first as usize];
        if taken == line.last {
            line.last = line.first;
        } else {
            self.behind[line.first as usize] = self.behind[taken as usize];
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_moves_up_as_its_first_ends() {
        let mut order = Order::new(8);
        let arrivals = [(5, 0), (6, 1), (5, 2), (5, 3), (0, 4), (0, 5), (6, 6)];
        let positions = arrivals.map(|(order_key, slot)| order.handle_arrival(order_key, slot));
        let (first, behind) = (Position::First, Position::Behind);
        assert_eq!(positions, [first, first, behind, behind, first, first, behind]);
        assert_eq!(order.handle_end(5, 0), Some(2));
        assert_eq!(order.handle_arrival(5, 0), Position::Behind, "a slot comes back in the same line");
        assert_eq!(
            [(0, 4), (5, 2), (5, 3), (5, 0)].map(|(key, slot)| order.handle_end(key, slot)),
            [None, Some(3), Some(0), None]
        );
        assert_eq!(order.handle_end(6, 1), Some(6));
        assert_eq!((order.handle_end(6, 6), order.lines.len()), (None, 0));
        assert_eq!(order.handle_arrival(5, 7), Position::First);
    }

    #[test]
    fn what_is_behind_is_given_back() {
        let mut order = Order::new(8);
        for (order_key, slot) in [(5, 0), (6, 1), (5, 2), (5, 3)] {
            order.handle_arrival(order_key, slot);
        }
        assert_eq!([(); 3].map(|()| order.poll_behind()), [Some(2), Some(3), None]);
        assert_eq!(order.handle_arrival(5, 2), Position::Behind);
        assert_eq!((order.handle_end(5, 0), order.handle_end(5, 2)), (Some(2), None));
    }

    #[test]
    #[should_panic(expected = "only the first of a key starts")]
    fn an_end_out_of_turn_is_a_bug() {
        let mut order = Order::new(8);
        order.handle_arrival(5, 0);
        order.handle_arrival(5, 1);
        order.handle_end(5, 1);
    }
}
