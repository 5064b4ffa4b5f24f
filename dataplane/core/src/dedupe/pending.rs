//! Keys whose write is under way, each with its owner and with those who wait for the outcome.

use alloc::vec::Vec;

use super::index::Index;
use super::{EventKey, Limits, Waiter};

const NONE: u32 = u32::MAX;

/// Bytes for so many pending keys and waiters, without the index.
pub(super) const fn memory_bytes(pending_max: u32, waiters_max: u32) -> usize {
    pending_max as usize * size_of::<Slot>() + waiters_max as usize * size_of::<Link>()
}

/// A pending key, or a free place.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: EventKey,
    owner: Waiter,
    /// Queue of waiters.
    oldest: u32,
    newest: u32,
    waiters: u32,
    next_free: u32,
}

/// A waiter in its key's queue, or a free place.
#[derive(Clone, Copy, Debug)]
struct Link {
    waiter: Waiter,
    next: u32,
}

/// Why somebody cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

/// At most `pending_max` keys and `waiters_max` waiters.
#[derive(Debug)]
pub(super) struct Pending {
    slots: Vec<Slot>,
    links: Vec<Link>,
    index: Index,
    limits: Limits,
    free_slot: u32,
    free_link: u32,
    waiting: u32,
}

impl Pending {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            slots: Vec::with_capacity(limits.pending_max as usize),
            links: Vec::with_capacity(limits.waiters_max as usize),
            index: Index::new(limits.pending_max),
            limits: *limits,
            free_slot: NONE,
            free_link: NONE,
            waiting: 0,
        }
    }

    /// Pending keys.
    pub(super) fn held(&self) -> u32 {
        self.index.held()
    }

    /// Waiters of all keys.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Who brought the pending `key`.
    pub(super) fn owner(&self, key: &EventKey) -> Option<Waiter> {
        self.position(key).map(|at| self.slots[at as usize].owner)
    }

    /// Adds a key that is not pending.
    pub(super) fn insert(&mut self, key: EventKey, owner: Waiter) -> Result<(), NoRoom> {
        if self.held() == self.limits.pending_max {
            return Err(NoRoom);
        }
        let slot = Slot { key, owner, oldest: NONE, newest: NONE, waiters: 0, next_free: NONE };
        let at = match self.free_slot {
            NONE => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
            at => {
                self.free_slot = self.slots[at as usize].next_free;
                self.slots[at as usize] = slot;
                at
            }
        };
        self.index.insert(&key, at);
        Ok(())
    }

    /// Lets `waiter` wait for a pending key.
    pub(super) fn wait(&mut self, key: &EventKey, waiter: Waiter) -> Result<(), NoRoom> {
        let at = self.position(key).expect("the caller has found the key") as usize;
        let no_room = self.slots[at].waiters == self.limits.waiters_per_key_max
            || self.waiting == self.limits.waiters_max;
        if no_room {
            return Err(NoRoom);
        }
        let link = self.new_link(Link { waiter, next: NONE });
        let slot = &mut self.slots[at];
        match slot.newest {
            NONE => slot.oldest = link,
            newest => self.links[newest as usize].next = link,
        }
        slot.newest = link;
        slot.waiters += 1;
        self.waiting += 1;
        Ok(())
    }

    /// Appends those who wait for a key, in order of arrival; it stays pending.
    pub(super) fn release(&mut self, key: &EventKey, waiters: &mut Vec<Waiter>) {
        let Some(at) = self.position(key) else { return };
        let slot = &mut self.slots[at as usize];
        let mut link = core::mem::replace(&mut slot.oldest, NONE);
        slot.newest = NONE;
        self.waiting -= core::mem::take(&mut slot.waiters);
        while link != NONE {
            let Link { waiter, next } = self.links[link as usize];
            waiters.push(waiter);
            self.links[link as usize].next = self.free_link;
            self.free_link = link;
            link = next;
        }
    }

    /// Removes a pending key and appends its waiters, in order of arrival; false if it is not pending.
    pub(super) fn remove(&mut self, key: &EventKey, waiters: &mut Vec<Waiter>) -> bool {
        let Some(at) = self.position(key) else { return false };
        self.release(key, waiters);
        self.slots[at as usize].next_free = self.free_slot;
        self.free_slot = at;
        let removed = self.index.remove(key, at);
        assert!(removed, "every pending key is in the index");
        true
    }

    /// Bytes in use.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.links.capacity() * size_of::<Link>()
            + self.index.memory_bytes()
    }

    fn position(&self, key: &EventKey) -> Option<u32> {
        self.index.find(key, |at| self.slots[at as usize].key == *key)
    }

    fn new_link(&mut self, link: Link) -> u32 {
        match self.free_link {
            NONE => {
                self.links.push(link);
                (self.links.len() - 1) as u32
            }
            at => {
                self.free_link = self.links[at as usize].next;
                self.links[at as usize] = link;
                at
            }
        }
    }
}
