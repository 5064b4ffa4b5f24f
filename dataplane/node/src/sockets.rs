//! What a worker keeps for each of its sockets, found by the reactor's small index instead of a hash.
//!
//! An entry is found by the exact [`SocketId`] only: an index that was used again for a later socket
//! does not find the earlier one's. Memory is that of the most sockets that were open at once.

use zen_uring::SocketId;

/// Values by socket.
#[derive(Debug)]
pub struct BySocket<T> {
    slots: Vec<Option<(SocketId, T)>>,
    count: usize,
}

impl<T> BySocket<T> {
    /// None.
    pub fn new() -> Self {
        Self { slots: Vec::new(), count: 0 }
    }

    /// Keeps `value`. What an earlier socket of the same index left is dropped.
    pub fn insert(&mut self, socket: SocketId, value: T) {
        let index = socket.index();
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        self.count += usize::from(self.slots[index].is_none());
        self.slots[index] = Some((socket, value));
    }

    /// Takes out what is kept for `socket`.
    pub fn remove(&mut self, socket: SocketId) -> Option<T> {
        let slot = self.slots.get_mut(socket.index())?;
        let (_, value) = slot.take_if(|(held, _)| *held == socket)?;
        self.count -= 1;
        Some(value)
    }

    /// What is kept for `socket`.
    pub fn get_mut(&mut self, socket: SocketId) -> Option<&mut T> {
        let (held, value) = self.slots.get_mut(socket.index())?.as_mut()?;
        (*held == socket).then_some(value)
    }

    /// Whether anything is kept for `socket`.
    pub fn contains(&self, socket: SocketId) -> bool {
        let slot = self.slots.get(socket.index());
        slot.is_some_and(|slot| slot.as_ref().is_some_and(|(held, _)| *held == socket))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// All of them, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (SocketId, &T)> {
        self.slots.iter().flatten().map(|(socket, value)| (*socket, value))
    }

    /// All of them, to change.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten().map(|(_, value)| value)
    }

    /// The sockets, to go on with while entries change.
    pub fn sockets(&self) -> Vec<SocketId> {
        self.iter().map(|(socket, _)| socket).collect()
    }

    /// Drops what `keep` does not want.
    pub fn retain(&mut self, mut keep: impl FnMut(SocketId, &mut T) -> bool) {
        for slot in &mut self.slots {
            if slot.take_if(|(socket, value)| !keep(*socket, value)).is_some() {
                self.count -= 1;
            }
        }
    }
}

impl<T> Default for BySocket<T> {
    fn default() -> Self {
        Self::new()
    }
}
