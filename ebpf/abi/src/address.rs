//! Addresses as tables have them.

/// An address, most significant byte first; IPv4 in its mapped form.
pub type Address = [u8; 16];

/// Bits in front of an IPv4 address in its mapped form.
pub const MAPPED_BITS: u32 = 96;

/// The mapped form of an IPv4 address, given in network order.
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// Whether this is an IPv4 address in its mapped form.
#[inline(always)]
pub const fn is_mapped(address: &Address) -> bool {
    let [high, low] = halves(address);
    high == 0 && low >> 32 == 0xffff
}

/// The address with all bits behind the first `bits` cleared.
#[inline(always)]
pub const fn prefix(address: &Address, bits: u32) -> Address {
    let [high, low] = halves(address);
    let high = (high & mask(bits)).to_be_bytes();
    let low = (low & mask(bits.saturating_sub(64))).to_be_bytes();
    [
        high[0], high[1], high[2], high[3], high[4], high[5], high[6], high[7], low[0], low[1], low[2],
        low[3], low[4], low[5], low[6], low[7],
    ]
}

/// The first `bits` of 64, all of them if there are more.
#[inline(always)]
const fn mask(bits: u32) -> u64 {
    if bits == 0 {
        0
    } else if bits >= 64 {
        u64::MAX
    } else {
        u64::MAX << (64 - bits)
    }
}

#[inline(always)]
const fn halves(a: &Address) -> [u64; 2] {
    [
        u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    ]
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_prefix_keeps_its_bits_and_no_others(bits in any::<u128>(), length in 0_u32..=128) {
            let kept = if length == 0 { 0 } else { bits & (u128::MAX << (128 - length)) };
            prop_assert_eq!(prefix(&bits.to_be_bytes(), length), kept.to_be_bytes());
        }

        #[test]
        fn mapped_addresses_are_known(bits in any::<u32>(), other in any::<u128>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(mapped(v4.octets()), v4.to_ipv6_mapped().octets());
            prop_assert!(is_mapped(&mapped(v4.octets())));
            let v6 = Ipv6Addr::from_bits(other);
            prop_assert_eq!(is_mapped(&v6.octets()), v6.to_ipv4_mapped().is_some());
        }
    }
}
