//! Events of refusals, out of a program's ring.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::RingBuf;
use zen_ebpf_abi::event::DropEvent;

use crate::error::EbpfError;
use crate::objects::{Loaded, Owned};

/// The reading end of a ring; readable when there are events.
pub struct Refusals(RingBuf<Owned>);

impl Refusals {
    pub(crate) fn take(loaded: &mut Loaded) -> Result<Self, EbpfError> {
        loaded.map("EVENTS").map(Self)
    }

    /// The next event that is there.
    pub fn poll_refusal(&mut self) -> Option<DropEvent> {
        let item = self.0.next()?;
        read(&item)
    }
}

impl AsFd for Refusals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Field by field, so that no bytes are believed to be a value.
fn read(bytes: &[u8]) -> Option<DropEvent> {
    let mut address = [0; 16];
    address.copy_from_slice(bytes.get(8..24)?);
    let &[port_low, port_high, program, reason, enforced, at_interface, _, _] = bytes.get(24..32)? else {
        return None;
    };
    Some(DropEvent {
        at_ns: u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?),
        address,
        port: u16::from_ne_bytes([port_low, port_high]),
        program,
        reason,
        enforced,
        at_interface,
        reserved: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let mut bytes = Vec::from(7_u64.to_ne_bytes());
        bytes.extend_from_slice(&[3; 16]);
        bytes.extend_from_slice(&443_u16.to_ne_bytes());
        bytes.extend_from_slice(&[1, 2, 1, 0, 0, 0]);
        let event = DropEvent {
            at_ns: 7,
            address: [3; 16],
            port: 443,
            program: 1,
            reason: 2,
            enforced: 1,
            at_interface: 0,
            reserved: 0,
        };
        assert_eq!(bytes.len(), size_of::<DropEvent>());
        assert_eq!(read(&bytes), Some(event));
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length} bytes");
        }
    }
}
