//! One message at a time, by the `hmac` and `sha2` crates: every machine, and the oracle for lanes.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::block_api::compress256;
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

/// The chaining value after one block, from the initial one (FIPS 180-4 section 5.3.3).
pub(crate) fn chain_after(block: &[u8; 64]) -> [u32; 8] {
    let mut chain = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    compress256(&mut chain, std::slice::from_ref(block));
    chain
}

pub(crate) fn sign(state: &State, parts: [&[u8]; 2]) -> Tag {
    let mut running = state.clone();
    running.update(parts[0]);
    running.update(parts[1]);
    finish(running)
}

pub(crate) fn update(state: &mut State, bytes: &[u8]) {
    state.update(bytes);
}

pub(crate) fn finish(state: State) -> Tag {
    state.finalize().into_bytes().into()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
