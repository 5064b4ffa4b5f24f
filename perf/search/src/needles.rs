//! Finds many byte strings at once in anything that can be read, in one pass and bounded memory.
//!
//! In: values. Out: where each of their spellings is first. A table of bits over the first eight bytes of all
//! spellings passes over nearly every position; what is left is compared.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use zeroize::Zeroizing;

use crate::Form;

/// Shortest spelling; a shorter one would be found by chance.
const PREFIX_BYTES: usize = 8;
const CHUNK_BYTES: usize = 1 << 20;
const SLOT_BITS: u32 = 16;

/// What must not be found.
pub struct Value {
    /// Its name, which says nothing of its bytes.
    pub name: String,
    /// Its bytes.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// One spelling of one value.
struct Needle {
    bytes: Vec<u8>,
    value: usize,
    form: Form,
}

/// Where a spelling is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Index of the value.
    pub value: usize,
    /// How it is written there.
    pub form: Form,
    /// Bytes before it.
    pub offset: u64,
}

/// All spellings of all values.
pub struct Needles {
    all: Vec<Needle>,
    by_prefix: HashMap<u64, Vec<usize>>,
    slots: Vec<bool>,
    bytes_max: usize,
}

impl Needles {
    /// Spells `values` in all forms; of equal spellings the first counts.
    pub fn new(values: &[Value]) -> Self {
        let mut own = Self {
            all: Vec::new(),
            by_prefix: HashMap::new(),
            slots: vec![false; 1 << SLOT_BITS],
            bytes_max: 0,
        };
        let mut known = HashSet::new();
        for (value, named) in values.iter().enumerate() {
            for form in Form::ALL {
                for bytes in form.spellings(&named.bytes) {
                    if known.insert(bytes.clone()) {
                        own.add(Needle { bytes, value, form });
                    }
                }
            }
        }
        own
    }

    fn add(&mut self, needle: Needle) {
        let prefix = needle.bytes.first_chunk().expect("secrets are longer than eight bytes");
        let prefix = u64::from_le_bytes(*prefix);
        self.slots[slot(prefix)] = true;
        self.by_prefix.entry(prefix).or_default().push(self.all.len());
        self.bytes_max = self.bytes_max.max(needle.bytes.len());
        self.all.push(needle);
    }

    /// How many spellings there are.
    pub fn spellings(&self) -> usize {
        self.all.len()
    }

    /// How many bytes `input` has, and where each spelling is first.
    pub fn scan(&self, mut input: impl Read) -> io::Result<(u64, Vec<Hit>)> {
        let mut buffer = vec![0; CHUNK_BYTES + self.bytes_max];
        let (mut start, mut filled) = (0, 0);
        let (mut hits, mut seen) = (Vec::new(), HashSet::new());
        loop {
            let read = match input.read(&mut buffer[filled..]) {
                Ok(0) => return Ok((start + filled as u64, hits)),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            filled += read;
            self.matches(&buffer[..filled], |index, at| {
                if seen.insert(index) {
                    let Needle { value, form, .. } = self.all[index];
                    hits.push(Hit { value, form, offset: start + at as u64 });
                }
            });
            // What may be the beginning of a spelling is looked at again with what follows.
            let done = filled.saturating_sub(self.bytes_max - 1);
            buffer.copy_within(done..filled, 0);
            (start, filled) = (start + done as u64, filled - done);
        }
    }

    fn matches(&self, bytes: &[u8], mut hit: impl FnMut(usize, usize)) {
        // Files of journals are zeros for the most part.
        if bytes.iter().all(|byte| *byte == 0) {
            return;
        }
        for (at, window) in bytes.windows(PREFIX_BYTES).enumerate() {
            let prefix = u64::from_le_bytes(*window.first_chunk().expect("a window is eight bytes"));
            if !self.slots[slot(prefix)] {
                continue;
            }
            for &index in self.by_prefix.get(&prefix).into_iter().flatten() {
                if bytes[at..].starts_with(&self.all[index].bytes) {
                    hit(index, at);
                }
            }
        }
    }
}

/// Multiplication mixes all bits into the topmost ones (Knuth, volume 3, section 6.4).
fn slot(prefix: u64) -> usize {
    (prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOT_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &[u8] = b"whsec_a+b/c==0123456789";

    fn needles() -> Needles {
        Needles::new(&[Value { name: "it".to_owned(), bytes: VALUE.to_vec().into() }])
    }

    /// Gives a few bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.len().min(self.1).min(buffer.len());
            buffer[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }

    fn hits(needles: &Needles, bytes: &[u8], piece: usize) -> Vec<Hit> {
        let (length, hits) = needles.scan(Pieces(bytes, piece)).unwrap();
        assert_eq!(length, bytes.len() as u64);
        hits
    }

    #[test]
    fn each_spelling_is_found_at_every_offset_and_across_every_border() {
        let needles = needles();
        for form in Form::ALL {
            for spelling in form.spellings(VALUE) {
                for before in 0..40 {
                    let text = [&vec![b'.'; before], &spelling[..], b"...."].concat();
                    for piece in [1, 7, 32, usize::MAX] {
                        let found = hits(&needles, &text, piece);
                        let at = before as u64;
                        assert!(found.iter().any(|hit| hit.offset == at), "{form:?} {before} {piece}");
                    }
                }
            }
        }
    }

    #[test]
    fn borders_of_chunks_hide_nothing() {
        let needles = needles();
        let filled = CHUNK_BYTES + needles.bytes_max;
        let spellings = Form::ALL.into_iter().flat_map(|form| form.spellings(VALUE));
        for (turn, spelling) in spellings.enumerate() {
            // The border lies within the spelling, each time elsewhere.
            let at = filled - 1 - turn % (spelling.len() - 1);
            let mut text = vec![0; 2 * filled];
            text[at..at + spelling.len()].copy_from_slice(&spelling);
            let (_, hits) = needles.scan(&text[..]).unwrap();
            assert!(hits.iter().any(|hit| hit.offset == at as u64), "{}", String::from_utf8_lossy(&spelling));
        }
    }

    #[test]
    fn another_value_is_not_found() {
        let needles = needles();
        for at in 0..VALUE.len() {
            let mut other = VALUE.to_vec();
            // One bit of each half: base64 shares the outermost bits with the neighbours.
            other[at] ^= 0x11;
            for form in Form::ALL {
                for spelling in form.spellings(&other) {
                    assert_eq!(hits(&needles, &spelling, usize::MAX), [], "{form:?} {at}");
                }
            }
        }
        // SplitMix64: the same noise each time.
        let mixed = |step: u64| {
            let mixed = step.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
        };
        let noise: Vec<u8> = (0..CHUNK_BYTES as u64 / 4).flat_map(|step| mixed(step).to_le_bytes()).collect();
        assert_eq!(hits(&needles, &noise, usize::MAX), []);
    }

    #[test]
    fn a_spelling_is_told_once_and_where_it_is_first() {
        let text = [b"...", VALUE, b"...", VALUE].concat();
        let found = hits(&needles(), &text, usize::MAX);
        assert_eq!(found, [Hit { value: 0, form: Form::AsItIs, offset: 3 }]);
    }
}
