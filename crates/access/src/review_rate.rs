//! How many tokens may be reviewed: the API server must not be flooded by whoever sends tokens here.
//!
//! At most 2 in a second for one address and 10 in all. Half of the 10 are kept for addresses from which a token was accepted
//! within the last hour, so that strangers who send random tokens do not keep out the people who work here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const PER_ADDRESS: f64 = 2.0;
const IN_ALL: f64 = 10.0;
const BY_STRANGERS: f64 = IN_ALL / 2.0;

/// For this long an address counts as known.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// Addresses that are counted at a time. When more send tokens within a second, those of strangers are refused.
const MAX_ADDRESSES: usize = 8192;

/// Known addresses that are remembered.
const MAX_KNOWN: usize = 8192;

/// As many as come in a second can be spent at once.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: f64, now: Instant) -> Self {
        Self { rate, left: rate, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + elapsed * self.rate).min(self.rate);
        self.at = self.at.max(now);
    }

    fn has_one(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= 1.0
    }
}

/// Decides which reviews are made.
pub(crate) struct ReviewRate {
    all: Bucket,
    strangers: Bucket,
    addresses: HashMap<IpAddr, Bucket>,
    known: HashMap<IpAddr, Instant>,
}

impl ReviewRate {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            all: Bucket::full(IN_ALL, now),
            strangers: Bucket::full(BY_STRANGERS, now),
            addresses: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// Takes one review for an address; `false`: there is none left for it.
    pub(crate) fn take(&mut self, address: IpAddr, now: Instant) -> bool {
        let is_known = self.is_known(address, now);
        if !self.all.has_one(now) || !is_known && !self.strangers.has_one(now) {
            return false;
        }
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, bucket| {
                bucket.refill(now);
                bucket.left < bucket.rate
            });
            if self.addresses.len() >= MAX_ADDRESSES {
                if !is_known {
                    return false;
                }
                self.addresses.clear();
            }
        }
        let own = self.addresses.entry(address).or_insert_with(|| Bucket::full(PER_ADDRESS, now));
        if !own.has_one(now) {
            return false;
        }
        own.left -= 1.0;
        self.all.left -= 1.0;
        if !is_known {
            self.strangers.left -= 1.0;
        }
        true
    }

    /// Notes that a token from the address was accepted.
    pub(crate) fn accepted(&mut self, address: IpAddr, now: Instant) {
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&address) {
            self.known.retain(|_, at| now.saturating_duration_since(*at) < KNOWN_FOR);
            if self.known.len() >= MAX_KNOWN
                && let Some(oldest) = self.known.iter().min_by_key(|(_, at)| **at).map(|(known, _)| *known)
            {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(address, now);
    }

    fn is_known(&self, address: IpAddr, now: Instant) -> bool {
        self.known.get(&address).is_some_and(|at| now.saturating_duration_since(*at) < KNOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn one_address_gets_two_in_a_second() {
        let start = Instant::now();
        let mut rate = ReviewRate::new(start);
        let taken = |rate: &mut ReviewRate, now| (0..100).filter(|_| rate.take(address(1), now)).count();
        assert_eq!(taken(&mut rate, start), 2);
        assert_eq!(taken(&mut rate, start + Duration::from_millis(499)), 0);
        assert_eq!(taken(&mut rate, start + Duration::from_millis(500)), 1);
        assert_eq!(taken(&mut rate, start + Duration::from_secs(60)), 2);
    }

    #[test]
    fn strangers_leave_half_to_the_known() {
        let start = Instant::now();
        let mut rate = ReviewRate::new(start);
        for known in 1..=3 {
            rate.accepted(address(known), start);
        }
        let strangers = (1000..2000).filter(|number| rate.take(address(*number), start)).count();
        assert_eq!(strangers, 5);
        let known = (0..4).filter(|number| rate.take(address(1 + number % 2), start)).count();
        assert_eq!(known, 4);
        assert!(rate.take(address(3), start));
        assert!(!rate.take(address(3), start), "ten in all");
    }

    #[test]
    fn a_known_address_is_forgotten_after_an_hour() {
        let start = Instant::now();
        let mut rate = ReviewRate::new(start);
        rate.accepted(address(1), start);
        assert!(rate.is_known(address(1), start + Duration::from_secs(3599)));
        assert!(!rate.is_known(address(1), start + Duration::from_secs(3600)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = Instant::now();
        let mut rate = ReviewRate::new(start);
        for number in 0..10_000 {
            let now = start + Duration::from_millis(100) * number;
            rate.take(address(number), now);
            rate.accepted(address(number), now);
            assert!(rate.addresses.len() <= MAX_ADDRESSES && rate.known.len() <= MAX_KNOWN);
        }
    }
}
