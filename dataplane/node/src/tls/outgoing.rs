//! Where a connection encrypts to: ciphertext that waits for its send.

use rustls::unbuffered::{EncodeError, EncodeTlsData, EncryptError, WriteTraffic};

/// Plaintext of one record, bytes (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
/// Header, content type and tag of a record, bytes.
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 16;
/// An alert, bytes (RFC 8446 section 6).
const ALERT_BYTES: usize = 2;
/// Room for a message of the handshake, at first; bytes.
const FLIGHT_BYTES: usize = 128;
/// Buffers above this grow to what is needed, not to the double of it.
const DOUBLED_BYTES_MAX: usize = 64 * 1024;

/// Ciphertext, and room behind it that was used before: what is written over is not wiped first.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// All that waits, in its own buffer.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(std::mem::take(&mut self.filled));
        bytes
    }

    /// Gives a buffer whose content is done with, if there is none.
    pub fn give_room(&mut self, buffer: Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = buffer;
        }
    }

    /// Whether `plaintext` was encrypted; not after 2^64 records under one key.
    pub fn encrypt<Data>(&mut self, mut traffic: WriteTraffic<'_, Data>, plaintext: &[u8]) -> bool {
        let records = plaintext.len() / RECORD_BYTES_MAX + 1;
        let room = plaintext.len() + records * RECORD_OVERHEAD_BYTES;
        self.fill(room, |room| traffic.encrypt(plaintext, room))
    }

    /// Whether a goodbye was encrypted.
    pub fn say_goodbye<Data>(&mut self, mut traffic: WriteTraffic<'_, Data>) -> bool {
        self.fill(RECORD_OVERHEAD_BYTES + ALERT_BYTES, |room| traffic.queue_close_notify(room))
    }

    /// A message of the handshake, or an alert.
    pub fn encode<Data>(&mut self, data: &mut EncodeTlsData<'_, Data>) {
        let mut room = FLIGHT_BYTES;
        loop {
            match data.encode(self.room(room)) {
                Ok(written) => {
                    self.filled += written;
                    return;
                }
                Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
                Err(EncodeError::AlreadyEncoded) => unreachable!("each is encoded once"),
            }
        }
    }

    /// Lets `write` fill what it needs.
    fn fill(
        &mut self,
        mut room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    ) -> bool {
        loop {
            match write(self.room(room)) {
                Ok(written) => {
                    self.filled += written;
                    return true;
                }
                Err(EncryptError::InsufficientSize(needed)) if needed.required_size > room => {
                    room = needed.required_size;
                }
                Err(_) => return false,
            }
        }
    }

    /// At least `room` bytes behind what is filled.
    fn room(&mut self, room: usize) -> &mut [u8] {
        let end = self.filled + room;
        if self.bytes.len() < end {
            if room > DOUBLED_BYTES_MAX {
                self.bytes.reserve_exact(end - self.bytes.len());
            }
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.filled..]
    }
}
