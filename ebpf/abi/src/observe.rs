//! The observer's tables: what connections at a listener, or to a destination, are like.

use crate::address::Address;

/// Listeners and destinations that are told apart; what is beyond is counted at [`OTHER`].
pub const PLACES_MAX: u32 = 1024;
/// Connections that are followed at a time.
pub const CONNECTIONS_MAX: u32 = 65_536;
/// The place of connections that are in no place of the table.
pub const OTHER: u32 = 0;
/// Buckets of a histogram: bucket n holds values of n bits, so its upper bound is 2^n - 1.
pub const BUCKETS: usize = 32;

/// Key of the table of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PlaceKey {
    /// Of a destination; all zero for a listener.
    pub address: Address,
    /// The destination's port, or the listener's, in the host's order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<PlaceKey>() == 20);

/// Values on a logarithmic scale.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Histogram {
    /// How many, by the number of their bits.
    pub buckets: [u64; BUCKETS],
    /// Their sum.
    pub sum: u64,
}

/// The bucket of a value.
#[inline(always)]
pub const fn bucket_of(value: u32) -> u32 {
    let bits = u32::BITS - value.leading_zeros();
    if bits < BUCKETS as u32 { bits } else { BUCKETS as u32 - 1 }
}

/// Connections of one place, of one processor.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counts {
    /// Established.
    pub opened: u64,
    /// Ended by both sides.
    pub closed: u64,
    /// Ended by one side at once.
    pub reset: u64,
    /// Attempts of ours that came to nothing.
    pub failed: u64,
    /// Acknowledged by the peer.
    pub bytes_sent: u64,
    /// Received.
    pub bytes_received: u64,
    /// From SYN to established, µs.
    pub handshake_us: Histogram,
    /// Smoothed round trip when a connection ends, µs.
    pub rtt_us: Histogram,
    /// Segments sent again, of a connection.
    pub retransmits: Histogram,
}

/// What is kept of a connection while it is followed.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Connection {
    /// When its SYN went out, ns; 0 if that is not known.
    pub begun_ns: u64,
    /// Bytes of it that are counted already.
    pub bytes_sent: u64,
    /// Bytes of it that are counted already.
    pub bytes_received: u64,
    /// Its place.
    pub place: u32,
    /// 1 once it was established.
    pub established: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_values_of_its_bits() {
        for (value, bucket) in
            [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (u32::MAX, 31)]
        {
            assert_eq!(bucket_of(value), bucket, "{value}");
        }
    }
}
