//! A table of prefixes that is replaced as a whole.

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapError};
use zen_ebpf_abi::slot;

use crate::error::EbpfError;
use crate::objects::{Loaded, Owned, table};

/// Longer than any program runs: one that read the old generation has ended when its entries go.
const GRACE: std::time::Duration = std::time::Duration::from_millis(20);

/// Settings, and a table of prefixes whose keys begin with their generation.
pub(crate) struct Generations<S: Pod, K: Pod> {
    active: Array<Owned, u32>,
    settings: Array<Owned, S>,
    prefixes: LpmTrie<Owned, K, u32>,
    prefixes_name: &'static str,
    entries_max: u32,
    generation: u32,
    /// Keys in force.
    keys: Vec<Key<K>>,
}

impl<S: Pod, K: Pod> Generations<S, K> {
    /// Generation 0, with nothing in it.
    pub(crate) fn take(
        loaded: &mut Loaded,
        prefixes_name: &'static str,
        entries_max: u32,
    ) -> Result<Self, EbpfError> {
        Ok(Self {
            active: loaded.map("GENERATION")?,
            settings: loaded.map("SETTINGS")?,
            prefixes: loaded.map(prefixes_name)?,
            prefixes_name,
            entries_max,
            generation: 0,
            keys: Vec::new(),
        })
    }

    /// Makes settings and entries count; `key` is given the next generation. On an error the old ones stay.
    pub(crate) fn replace<E>(
        &mut self,
        settings: S,
        entries: &[E],
        key: impl Fn(&E, u32) -> (Key<K>, u32),
    ) -> Result<(), EbpfError> {
        if entries.len() > self.entries_max as usize {
            return Err(EbpfError::TooMany {
                table: self.prefixes_name,
                count: entries.len(),
                max: self.entries_max,
            });
        }
        let next = self.generation.wrapping_add(1);
        let mut written = Vec::with_capacity(entries.len());
        let outcome = self.write(next, settings, entries, key, &mut written);
        if let Err(error) = outcome {
            self.remove(&written);
            return Err(error);
        }
        self.generation = next;
        let old = std::mem::replace(&mut self.keys, written);
        if !old.is_empty() {
            std::thread::sleep(GRACE);
            self.remove(&old);
        }
        Ok(())
    }

    fn write<E>(
        &mut self,
        next: u32,
        settings: S,
        entries: &[E],
        key: impl Fn(&E, u32) -> (Key<K>, u32),
        written: &mut Vec<Key<K>>,
    ) -> Result<(), EbpfError> {
        for entry in entries {
            let (key, value) = key(entry, next);
            table(self.prefixes_name, self.prefixes.insert(&key, value, 0))?;
            written.push(key);
        }
        table("SETTINGS", self.settings.set(slot(next), settings, 0))?;
        table("GENERATION", self.active.set(0, next, 0))
    }

    /// What is not removed only takes room until it is written again.
    fn remove(&mut self, keys: &[Key<K>]) {
        for key in keys {
            match self.prefixes.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(_) => return,
            }
        }
    }
}
