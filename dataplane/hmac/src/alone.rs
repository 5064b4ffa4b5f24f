//! A message that has no company, by aws-lc-rs: on a processor without instructions for SHA it is faster than one lane.

use std::fmt;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};

use crate::Tag;

/// Its inner and outer states are computed once; aws-lc wipes them.
#[derive(Clone)]
pub(crate) struct AloneKey(Box<Key>);

impl AloneKey {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(Box::new(Key::new(HMAC_SHA256, secret)))
    }

    pub(crate) fn start(&self) -> Context {
        Context::with_key(&self.0)
    }

    pub(crate) fn sign(&self, parts: [&[u8]; 2]) -> Tag {
        let mut context = self.start();
        for part in parts {
            context.update(part);
        }
        finish(context)
    }
}

impl fmt::Debug for AloneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AloneKey(..)")
    }
}

pub(crate) fn finish(context: Context) -> Tag {
    context.sign().as_ref().try_into().expect("a tag of HMAC-SHA256 has 32 bytes")
}
