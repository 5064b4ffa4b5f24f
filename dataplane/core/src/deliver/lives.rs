//! Live events by handle: the map holds places, and the events lie in chunks that never move.
//!
//! An ordered map moves its entries about and keeps room for as many again; events are too large for that.
//! Places that are free are used again, so nothing is allocated while the number of live events does not reach a new height.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::table::Live;

/// Events in a chunk.
const CHUNK: usize = 256;
/// Room that an ordered map takes for an entry, entries: its nodes are five elevenths full at least, and point at each other.
pub(super) const ORDERED_ROOM: usize = 3;
/// An event: the map's entry, its place, and the list of free places, which grows by doubling.
pub(super) const EVENT_BYTES: usize =
    ORDERED_ROOM * size_of::<(u64, u32)>() + size_of::<Option<Live>>() + 3 * size_of::<u32>();

/// The map; see the module.
#[derive(Debug, Default)]
pub(super) struct Lives {
    places: BTreeMap<u64, u32>,
    chunks: Vec<Box<[Option<Live>]>>,
    free: Vec<u32>,
}

impl Lives {
    pub fn get(&self, handle: u64) -> Option<&Live> {
        let place = *self.places.get(&handle)? as usize;
        self.chunks[place / CHUNK][place % CHUNK].as_ref()
    }

    pub fn get_mut(&mut self, handle: u64) -> Option<&mut Live> {
        let place = *self.places.get(&handle)? as usize;
        self.chunks[place / CHUNK][place % CHUNK].as_mut()
    }

    /// Puts an event in whose handle is not there.
    pub fn insert(&mut self, handle: u64, live: Live) {
        let place = self.free.pop().unwrap_or_else(|| self.grow());
        let before = self.places.insert(handle, place);
        assert!(before.is_none(), "a handle names one event");
        self.chunks[place as usize / CHUNK][place as usize % CHUNK] = Some(live);
    }

    pub fn remove(&mut self, handle: u64) -> Option<Live> {
        let place = self.places.remove(&handle)?;
        self.free.push(place);
        self.chunks[place as usize / CHUNK][place as usize % CHUNK].take()
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    fn grow(&mut self) -> u32 {
        let first = (self.chunks.len() * CHUNK) as u32;
        self.chunks.push((0..CHUNK).map(|_| None).collect());
        self.free.extend((first + 1..first + CHUNK as u32).rev());
        first
    }
}
