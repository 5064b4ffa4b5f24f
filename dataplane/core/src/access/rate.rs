//! Token buckets, as many as a table holds: a key and the time in, a token or the time to wait out.
//!
//! A bucket is one number, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371),
//! so one that is full needs no entry. The table is sets of [`WAYS`] places under a keyed hash; in a set
//! without room the bucket that is full the soonest leaves, which forgets the least.

use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::dedupe::siphash::siphash128;
use crate::id::EndpointId;

/// Places of a set.
pub const WAYS: usize = 8;
/// Most tokens a minute.
pub const PER_MINUTE_MAX: u32 = 6_000_000;
/// Most tokens of a full bucket.
pub const BURST_MAX: u32 = 1_000_000;
/// A place in the table, bytes.
pub const BUCKET_BYTES: usize = size_of::<Bucket>();

const MINUTE_US: u64 = 60_000_000;
/// Bits of an IPv4 source that share a bucket with others: a /24.
const V4_HOST_BITS: u32 = 8;
/// The same for IPv6: a /56, which one customer has for itself.
const V6_HOST_BITS: u32 = 72;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval_us: u64,
    burst_us: u64,
}

/// A rate that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is 1 to {PER_MINUTE_MAX} a minute, with a burst of 1 to {BURST_MAX}")]
pub struct RateError;

impl Rate {
    /// `per_minute` tokens a minute, at most `burst` at once.
    pub fn new(per_minute: u32, burst: u32) -> Result<Self, RateError> {
        if !(1..=PER_MINUTE_MAX).contains(&per_minute) || !(1..=BURST_MAX).contains(&burst) {
            return Err(RateError);
        }
        let interval_us = MINUTE_US.div_ceil(per_minute.into());
        Ok(Self { interval_us, burst_us: interval_us * u64::from(burst) })
    }
}

/// The network that a source shares its buckets with: a /24, for IPv6 a /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePrefix(u64);

impl From<IpAddr> for SourcePrefix {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self((address.to_bits() >> V4_HOST_BITS).into()),
            IpAddr::V6(address) => Self((address.to_bits() >> V6_HOST_BITS) as u64 | 1 << 63),
        }
    }
}

/// Turns names of buckets into keys; nobody who does not know its secret can make keys meet.
#[derive(Clone)]
pub struct RateHasher([u8; 16]);

impl RateHasher {
    /// With 16 random bytes.
    pub fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// The bucket of an endpoint, or of a source at it.
    pub fn key(&self, endpoint: EndpointId, source: Option<SourcePrefix>) -> RateKey {
        let source = source.map_or(u64::MAX, |prefix| prefix.0);
        RateKey(siphash128(&self.0, &[&endpoint.0, &source.to_le_bytes()]))
    }
}

/// Names a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateKey([u8; 16]);

impl RateKey {
    /// One of `count` tables, so that several threads meet rarely.
    pub fn shard(self, count: usize) -> usize {
        usize::from(self.0[15]) % count
    }

    fn set(self, sets: usize) -> usize {
        let low = u64::from_le_bytes(*self.0.first_chunk().expect("8 of 16 bytes"));
        (low % sets as u64) as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    key: RateKey,
    /// Up to this time the place is taken.
    full_at_us: u64,
}

/// A bounded number of buckets.
#[derive(Debug)]
pub struct RateTable {
    places: Vec<Bucket>,
    evicted: u64,
}

impl RateTable {
    /// Room for `buckets` at least, rounded up to whole sets; allocated here.
    pub fn new(buckets: usize) -> Self {
        let places = buckets.max(1).next_multiple_of(WAYS);
        Self { places: vec![Bucket { key: RateKey([0; 16]), full_at_us: 0 }; places], evicted: 0 }
    }

    /// Takes a token, or says after how many µs there will be one.
    pub fn handle_request(&mut self, key: RateKey, rate: Rate, now_us: u64) -> Result<(), u64> {
        self.poll_token(key, rate, now_us)?;
        self.handle_debt(key, rate, now_us);
        Ok(())
    }

    /// Whether there is a token, without taking it; else after how many µs there will be one.
    pub fn poll_token(&self, key: RateKey, rate: Rate, now_us: u64) -> Result<(), u64> {
        let found = self.set(key).iter().find(|place| place.key == key);
        let full_at_us = found.map_or(now_us, |place| place.full_at_us(rate, now_us));
        match (full_at_us + rate.interval_us).saturating_sub(now_us + rate.burst_us) {
            0 => Ok(()),
            wait_us => Err(wait_us),
        }
    }

    /// Takes a token even where there is none: a debt, of a burst at most.
    pub fn handle_debt(&mut self, key: RateKey, rate: Rate, now_us: u64) {
        let at = key.set(self.places.len() / WAYS) * WAYS;
        let set = &mut self.places[at..at + WAYS];
        let known = set.iter().position(|place| place.key == key);
        let place = known.unwrap_or_else(|| {
            let (place, bucket) = (0..).zip(&*set).min_by_key(|(_, place)| place.full_at_us).expect("a set");
            self.evicted += u64::from(bucket.full_at_us > now_us);
            place
        });
        let full_at_us = known.map_or(now_us, |_| set[place].full_at_us(rate, now_us));
        let charged = Bucket { key, full_at_us: full_at_us + rate.interval_us };
        set[place] = Bucket { key, full_at_us: charged.full_at_us(rate, now_us) };
    }

    /// Buckets that left although they were not full, since start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn set(&self, key: RateKey) -> &[Bucket] {
        let at = key.set(self.places.len() / WAYS) * WAYS;
        &self.places[at..at + WAYS]
    }
}

impl Bucket {
    /// Never before now, and no more than a burst's debt ahead, whatever rate it was charged at.
    fn full_at_us(&self, rate: Rate, now_us: u64) -> u64 {
        self.full_at_us.clamp(now_us, now_us + 2 * rate.burst_us)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn key(number: u64) -> RateKey {
        let source = IpAddr::V6(core::net::Ipv6Addr::from_bits(u128::from(number) << V6_HOST_BITS));
        RateHasher::new([7; 16]).key(EndpointId([1; 16]), Some(source.into()))
    }

    #[test]
    fn rates_are_bounded() {
        for (per_minute, burst) in [(0, 1), (1, 0), (PER_MINUTE_MAX + 1, 1), (1, BURST_MAX + 1)] {
            assert_eq!(Rate::new(per_minute, burst), Err(RateError));
        }
        for (per_minute, burst) in [(1, 1), (PER_MINUTE_MAX, BURST_MAX), (1, BURST_MAX)] {
            assert!(Rate::new(per_minute, burst).is_ok());
        }
    }

    #[test]
    fn a_burst_goes_through_and_then_the_rate() {
        let (rate, mut table, key) = (Rate::new(60, 3).unwrap(), RateTable::new(100), key(1));
        let start = 5 * SECOND_US;
        for _ in 0..3 {
            assert_eq!(table.handle_request(key, rate, start), Ok(()));
        }
        assert_eq!(table.handle_request(key, rate, start), Err(SECOND_US));
        assert_eq!(table.handle_request(key, rate, start + SECOND_US / 4), Err(SECOND_US * 3 / 4));
        assert_eq!(table.poll_token(key, rate, start + SECOND_US), Ok(()));
        assert_eq!(table.handle_request(key, rate, start + SECOND_US), Ok(()), "asking takes nothing");
        assert_eq!(table.handle_request(key, rate, start + SECOND_US), Err(SECOND_US));
        for _ in 0..3 {
            assert_eq!(
                table.handle_request(key, rate, start + 60 * SECOND_US),
                Ok(()),
                "never more than a burst"
            );
        }
        assert_eq!(table.handle_request(key, rate, start + 60 * SECOND_US), Err(SECOND_US));
    }

    #[test]
    fn a_debt_is_of_a_burst_at_most() {
        let (rate, mut table, key) = (Rate::new(60, 2).unwrap(), RateTable::new(100), key(1));
        for _ in 0..100 {
            table.handle_debt(key, rate, 0);
        }
        let wait_us = table.poll_token(key, rate, 0).unwrap_err();
        assert!((2 * SECOND_US..=4 * SECOND_US).contains(&wait_us), "{wait_us}");
        assert_eq!(table.poll_token(key, rate, wait_us), Ok(()));
    }

    #[test]
    fn a_rate_that_is_raised_counts_at_once() {
        let (slow, fast) = (Rate::new(1, 10).unwrap(), Rate::new(600, 10).unwrap());
        let (mut table, key) = (RateTable::new(100), key(1));
        for _ in 0..100 {
            table.handle_debt(key, slow, 0);
        }
        let wait_us = table.poll_token(key, fast, 0).unwrap_err();
        assert!(wait_us <= 2 * SECOND_US, "{wait_us}");
    }

    #[test]
    fn sources_share_a_bucket_by_their_network() {
        let prefix = |text: &str| SourcePrefix::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.255"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.9"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("2001:db8:0:100::"), prefix("2001:db8:0:1ff:ffff:ffff:ffff:ffff"));
        assert_ne!(prefix("2001:db8:0:100::"), prefix("2001:db8:0:200::"));
        assert_ne!(prefix("0.0.0.0"), prefix("::"));
        let hasher = RateHasher::new([7; 16]);
        let (one, other) = (EndpointId([1; 16]), EndpointId([2; 16]));
        let source = Some(prefix("192.0.2.1"));
        assert_ne!(hasher.key(one, source), hasher.key(other, source));
        assert_ne!(hasher.key(one, source), hasher.key(one, None));
        assert_ne!(hasher.key(one, source), RateHasher::new([8; 16]).key(one, source));
    }

    #[test]
    fn in_a_full_table_the_heaviest_stay_and_losses_are_counted() {
        let (rate, mut table) = (Rate::new(60, 100).unwrap(), RateTable::new(64));
        let heavy: Vec<RateKey> = (0..8).map(key).collect();
        for key in &heavy {
            (0..100).for_each(|_| table.handle_debt(*key, rate, 0));
        }
        for number in 8..10_000 {
            assert_eq!(table.handle_request(key(number), rate, 0), Ok(()));
        }
        for key in &heavy {
            assert!(table.poll_token(*key, rate, 0).is_err(), "a heavy source gains by a spray of others");
        }
        assert_eq!(table.evicted(), 10_000 - 64);
        assert_eq!(table.places.len(), 64);
        let later = 10_000 * SECOND_US;
        assert_eq!(table.handle_request(key(20_000), rate, later), Ok(()));
        assert_eq!(table.evicted(), 10_000 - 64, "one that is full again is no loss");
    }

    proptest! {
        /// Tokens counted the plain way are the oracle; times are multiples of the interval, so that it is exact.
        #[test]
        fn a_bucket_is_a_bucket(steps in prop::collection::vec((0_u64..4, 0_u64..3, any::<bool>()), 1..200)) {
            let (rate, mut table) = (Rate::new(60, 5).unwrap(), RateTable::new(1000));
            let mut model: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
            let mut now_us = 0;
            for (source, seconds, forced) in steps {
                now_us += seconds * SECOND_US;
                let (tokens, at_us) = model.entry(source).or_insert((5, now_us));
                let refilled = i64::try_from((now_us - *at_us) / SECOND_US).unwrap();
                *tokens = 5.min(*tokens + refilled);
                *at_us = now_us;
                if forced {
                    table.handle_debt(key(source), rate, now_us);
                    *tokens = (*tokens - 1).max(-5);
                } else {
                    let taken = table.handle_request(key(source), rate, now_us);
                    prop_assert_eq!(taken.is_ok(), *tokens > 0);
                    *tokens -= i64::from(*tokens > 0);
                }
            }
        }
    }
}
