//! Hashes of leaves and nodes (RFC 6962 section 2.1): a byte in front tells the two apart.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// Bytes of a hash.
pub const HASH_BYTES: usize = 32;

/// A SHA-256 hash; shown as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; HASH_BYTES]);

/// Of an entry, as its bytes are stored.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hashed(&[&[0], entry])
}

/// Of two subtrees side by side.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hashed(&[&[1], &left.0, &right.0])
}

impl Hash {
    /// Of a tree without entries.
    pub fn of_nothing() -> Self {
        Self(digest(&SHA256, &[]).as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// From base64 in its one form: padded, no spaces, no bits left over.
    pub fn from_base64(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hashed(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    Hash(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}
