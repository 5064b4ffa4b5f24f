//! One message at a time, by the `hmac` and `sha2` crates: every machine, and the oracle for lanes.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::ZeroizeOnDrop;

use crate::Tag;

/// Inner and outer states after the padded key.
pub(crate) type State = Hmac<Sha256>;

/// `Hmac` has no marker of its own; all of its key state is in two of these.
const fn wiped_when_dropped<T: ZeroizeOnDrop>() {}
const _: () = wiped_when_dropped::<Sha256>();

pub(crate) fn prepare(secret: &[u8]) -> State {
    State::new_from_slice(secret).expect("HMAC takes keys of any length")
}

pub(crate) fn sign(state: &State, parts: [&[u8]; 2]) -> Tag {
    let mut running = state.clone();
    running.update(parts[0]);
    running.update(parts[1]);
    running.finalize().into_bytes().into()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
