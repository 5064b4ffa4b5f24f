//! How often somebody may fail: for each account and for each address, within bounds, forgotten by themselves.
//!
//! Nobody is locked for good: tries come back with time, and a one-time link is asked for none of this.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Failures of one account at once.
pub(crate) const ACCOUNT_FAILURES_MAX: u64 = 10;
/// Failures from one address at once.
pub(crate) const ADDRESS_FAILURES_MAX: u64 = 30;
/// After how long one of them is forgotten, ms.
pub(crate) const FAILURE_FORGOTTEN_MS: u64 = 90_000;
/// Most accounts, and most addresses, that are remembered; then those that are nearest to forgotten go.
pub(crate) const REMEMBERED_MAX: usize = 4096;

/// Failures that are remembered.
#[derive(Default)]
pub(super) struct Rates {
    accounts: Mutex<Failures<String>>,
    addresses: Mutex<Failures<IpAddr>>,
}

/// By whom, the time at which all are forgotten, ms.
struct Failures<K>(HashMap<K, u64>);

impl Rates {
    /// Counts an attempt as a failure until it is known to be none; false if there were too many.
    pub(super) fn begin(&self, account: &str, address: IpAddr, now_ms: u64) -> bool {
        let address = prefix(address);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.add(address, ADDRESS_FAILURES_MAX, now_ms)
            && accounts.add(account.to_owned(), ACCOUNT_FAILURES_MAX, now_ms)
    }

    /// The same for an attempt that names no account.
    pub(super) fn begin_address(&self, address: IpAddr, now_ms: u64) -> bool {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.add(prefix(address), ADDRESS_FAILURES_MAX, now_ms)
    }

    /// It was none.
    pub(super) fn succeed_address(&self, address: IpAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.0.get_mut(&prefix(address)).into_iter().for_each(forget_one);
    }

    /// It was none.
    pub(super) fn succeed(&self, account: &str, address: IpAddr) {
        self.succeed_address(address);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.0.get_mut(account).into_iter().for_each(forget_one);
    }
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Failures<K> {
    fn add(&mut self, key: K, failures_max: u64, now_ms: u64) -> bool {
        let until = self.0.get(&key).copied().unwrap_or(0).max(now_ms) + FAILURE_FORGOTTEN_MS;
        if until > now_ms + failures_max * FAILURE_FORGOTTEN_MS {
            return false;
        }
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, until| *until > now_ms);
            let first = self.0.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
            if let Some(first) = first.filter(|_| self.0.len() >= REMEMBERED_MAX) {
                self.0.remove(&first);
            }
        }
        self.0.insert(key, until);
        true
    }
}

fn forget_one(until: &mut u64) {
    *until = until.saturating_sub(FAILURE_FORGOTTEN_MS);
}

/// Whoever has one address of IPv6 has 2^64 of them.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_account_and_address_and_forgotten() {
        let rates = Rates::default();
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        for at in 0..ACCOUNT_FAILURES_MAX {
            assert!(rates.begin("ann", address(at as u8), 1000));
        }
        assert!(!rates.begin("ann", address(99), 1000), "from nowhere");
        assert!(rates.begin("bob", address(99), 1000), "others may");
        assert!(rates.begin("ann", address(99), 1001 + FAILURE_FORGOTTEN_MS), "not for good");
        let rates = Rates::default();
        for at in 0..ADDRESS_FAILURES_MAX {
            let address: IpAddr = format!("2001:db8::{at:x}").parse().unwrap();
            assert!(rates.begin(&format!("p{at}"), address, 1000));
        }
        assert!(!rates.begin("new", "2001:db8::ffff:0:0:1".parse().unwrap(), 1000), "the same network");
        rates.succeed("p0", "2001:db8::1".parse().unwrap());
        assert!(rates.begin("new", "2001:db8::1".parse().unwrap(), 1000), "a success is no failure");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rates = Rates::default();
        for at in 0..2 * REMEMBERED_MAX as u32 {
            assert!(rates.begin(&at.to_string(), IpAddr::from(at.to_be_bytes()), 1000 + u64::from(at)));
        }
        assert_eq!(rates.accounts.lock().unwrap().0.len(), REMEMBERED_MAX);
        assert_eq!(rates.addresses.lock().unwrap().0.len(), REMEMBERED_MAX);
    }
}
