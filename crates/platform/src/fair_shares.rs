//! Shares of a bounded resource that no key can use up.
//!
//! The rule is the dynamic threshold of shared-memory switches: a key may take more as long as what it then holds, `n - 1`
//! times, is at most what is then free. Alone it gets `1/n` of everything. Whatever `k` greedy keys hold, `(n - 1)/(n - 1 + k)`
//! stays free, so another key always finds something, and nothing has to be taken back.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A resource that is divided among keys, such as the connections of a port among addresses. Cheap to clone.
#[derive(Debug)]
pub struct FairShares<K>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    capacity: usize,
    /// One key gets at most this part of the capacity: one `n`th.
    divisor: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    total: usize,
    /// Keys that hold nothing are not listed.
    by_key: HashMap<K, usize>,
}

impl<K> Clone for FairShares<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What one holder has taken. Dropping it returns everything.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    of: Arc<Inner<K>>,
    /// `None` for a holder that only the capacity bounds.
    key: Option<K>,
    amount: usize,
}

impl<K: Eq + Hash + Clone> FairShares<K> {
    /// One key gets at most `capacity / divisor`.
    pub fn new(capacity: usize, divisor: usize) -> Self {
        let held = Mutex::new(Held { total: 0, by_key: HashMap::new() });
        Self(Arc::new(Inner { capacity, divisor: divisor.max(1), held }))
    }

    /// Takes an amount for a key; without a key only the capacity bounds it. `None` if it would be too much.
    pub fn take(&self, key: Option<K>, amount: usize) -> Option<Share<K>> {
        let mut share = self.empty_share(key);
        share.grow(amount).then_some(share)
    }

    /// Returns a share with nothing in it, which can grow.
    pub fn empty_share(&self, key: Option<K>) -> Share<K> {
        Share { of: Arc::clone(&self.0), key, amount: 0 }
    }

    /// Returns how much all keys hold together.
    pub fn total(&self) -> usize {
        self.0.held().total
    }

    pub fn capacity(&self) -> usize {
        self.0.capacity
    }
}

impl<K> Inner<K> {
    fn held(&self) -> MutexGuard<'_, Held<K>> {
        // Nothing panics while this is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Share<K> {
    /// Takes more; returns whether that was possible. Otherwise nothing changes.
    pub fn grow(&mut self, amount: usize) -> bool {
        if amount == 0 {
            return true;
        }
        let mut held = self.of.held();
        let Some(free) = (self.of.capacity - held.total).checked_sub(amount) else { return false };
        if let Some(key) = &self.key {
            let is_too_much = |of_key: usize| of_key.saturating_mul(self.of.divisor - 1) > free;
            match held.by_key.get_mut(key) {
                Some(of_key) if is_too_much(*of_key + amount) => return false,
                Some(of_key) => *of_key += amount,
                None if is_too_much(amount) => return false,
                None => drop(held.by_key.insert(key.clone(), amount)),
            }
        }
        held.total += amount;
        self.amount += amount;
        true
    }

    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.of.held();
        held.total -= self.amount;
        let Some(key) = &self.key else { return };
        if let Some(of_key) = held.by_key.get_mut(key) {
            *of_key -= self.amount;
            if *of_key == 0 {
                held.by_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes ones until no more is possible.
    fn take_all(shares: &FairShares<u32>, key: u32) -> Vec<Share<u32>> {
        std::iter::from_fn(|| shares.take(Some(key), 1)).collect()
    }

    #[test]
    fn one_key_gets_its_part_and_the_next_always_finds_something() {
        let shares = FairShares::new(1000, 10);
        let first = take_all(&shares, 1);
        assert_eq!(first.len(), 100);
        let mut held = vec![first];
        for key in 2..40 {
            let of_key = take_all(&shares, key);
            assert!(!of_key.is_empty(), "key {key} got nothing");
            held.push(of_key);
        }
        assert!(shares.total() < 1000);
    }

    #[test]
    fn without_a_key_only_the_capacity_is_the_bound() {
        let shares = FairShares::<u32>::new(10, 10);
        let held = shares.take(None, 10).expect("fits");
        assert!(shares.take(None, 1).is_none() && shares.take(Some(1), 1).is_none());
        drop(held);
        assert_eq!(shares.total(), 0);
    }

    #[test]
    fn what_is_returned_can_be_taken_again() {
        let shares = FairShares::new(100, 2);
        let mut share = shares.take(Some(1), 30).expect("fits");
        assert!(share.grow(20) && !share.grow(1));
        assert_eq!((share.amount(), shares.total()), (50, 50));
        drop(share);
        assert_eq!(shares.total(), 0);
        assert!(shares.0.held().by_key.is_empty());
        assert!(shares.take(Some(2), 50).is_some());
    }
}
