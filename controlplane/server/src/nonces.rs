//! Nonces that were given out: in memory, few, and each good once (a restart costs an agent one more attempt).

use zen_control_api::{Base64, NONCE_BYTES};

use crate::Refusal;

/// Most nonces that are out.
pub const NONCES_MAX: usize = 1024;
/// Most of one key, a bundle's or an agent's; its oldest makes room.
const NONCES_PER_KEY_MAX: usize = 4;
/// How long one is good, ms.
pub const NONCE_LIFE_MS: u64 = 60_000;

/// The nonces that are out, oldest first.
#[derive(Default)]
pub(crate) struct Nonces(Vec<Nonce>);

struct Nonce {
    bytes: [u8; NONCE_BYTES],
    /// Who may use it: the key that made the connection.
    holder: [u8; 32],
    given_at_ms: u64,
}

impl Nonces {
    /// Gives `bytes`, which are random, out to the holder of a key.
    pub(crate) fn give(
        &mut self,
        bytes: [u8; NONCE_BYTES],
        holder: [u8; 32],
        now_ms: u64,
    ) -> Result<Base64<NONCE_BYTES>, Refusal> {
        self.forget(now_ms);
        let of_key = |nonce: &Nonce| nonce.holder == holder;
        if self.0.iter().filter(|nonce| of_key(nonce)).count() == NONCES_PER_KEY_MAX {
            let oldest = self.0.iter().position(of_key).expect("there are some");
            self.0.remove(oldest);
        }
        if self.0.len() == NONCES_MAX {
            return Err(Refusal::Busy);
        }
        self.0.push(Nonce { bytes, holder, given_at_ms: now_ms });
        Ok(Base64(bytes))
    }

    /// Uses one up, whatever comes of it.
    pub(crate) fn take(
        &mut self,
        nonce: &Base64<NONCE_BYTES>,
        holder: &[u8; 32],
        now_ms: u64,
    ) -> Result<(), Refusal> {
        self.forget(now_ms);
        let found = self.0.iter().position(|known| known.bytes == nonce.0 && known.holder == *holder);
        self.0.remove(found.ok_or(Refusal::Nonce)?);
        Ok(())
    }

    fn forget(&mut self, now_ms: u64) {
        // A clock that was set back makes none of them last longer.
        self.0.retain(|nonce| now_ms.abs_diff(nonce.given_at_ms) < NONCE_LIFE_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: [u8; 32] = [1; 32];

    #[test]
    fn a_nonce_is_good_once_for_its_key_and_a_minute() {
        let mut nonces = Nonces::default();
        let nonce = nonces.give([1; 32], HOLDER, 1000).unwrap();
        assert!(nonces.take(&Base64([2; 32]), &HOLDER, 1000).is_err());
        assert!(nonces.take(&nonce, &[2; 32], 1000).is_err());
        assert!(nonces.take(&nonce, &HOLDER, 60_999).is_ok());
        assert!(nonces.take(&nonce, &HOLDER, 60_999).is_err());
        let nonce = nonces.give([1; 32], HOLDER, 1000).unwrap();
        assert!(nonces.take(&nonce, &HOLDER, 61_000).is_err());
        let nonce = nonces.give([1; 32], HOLDER, 100_000).unwrap();
        assert!(nonces.take(&nonce, &HOLDER, 0).is_err(), "the clock was set back");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut nonces = Nonces::default();
        for at in 0..=NONCES_PER_KEY_MAX as u8 {
            nonces.give([at; 32], HOLDER, 0).unwrap();
        }
        assert!(nonces.take(&Base64([0; 32]), &HOLDER, 0).is_err(), "the oldest made room");
        let other = |at: usize| {
            let mut key = [9; 32];
            key[..8].copy_from_slice(&(at as u64).to_be_bytes());
            key
        };
        for at in NONCES_PER_KEY_MAX..NONCES_MAX {
            nonces.give([7; 32], other(at), 0).unwrap();
        }
        assert!(matches!(nonces.give([7; 32], other(NONCES_MAX), 0), Err(Refusal::Busy)));
        assert!(nonces.give([7; 32], other(NONCES_MAX), NONCE_LIFE_MS).is_ok());
    }
}
