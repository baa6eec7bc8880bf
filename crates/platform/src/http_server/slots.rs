//! The connections that a port serves at a time.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::client_network::ClientNetwork;
use crate::fair_shares::{FairShares, Share};

/// One client gets at most this part of the connections: one quarter.
const CLIENT_DIVISOR: usize = 4;

/// The port counts as crowded when at most one slot in this many is free.
const FREE_DIVISOR: usize = 10;

/// The slots of a port. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionSlots {
    shares: FairShares<ClientNetwork>,
    /// Networks whose addresses stand for many clients.
    proxies: Arc<[IpNet]>,
    crowded_since: Arc<Mutex<Option<Instant>>>,
}

/// The slot of a connection. Dropping it returns it.
#[derive(Debug)]
pub(super) struct Slot {
    /// `None` for a proxy, which stands for many clients.
    pub(super) client: Option<ClientNetwork>,
    _share: Share<ClientNetwork>,
}

impl ConnectionSlots {
    /// A client gets at most a quarter of `count`; addresses in `proxies` are bounded by `count` alone.
    pub fn new(count: usize, proxies: Arc<[IpNet]>) -> Self {
        Self { shares: FairShares::new(count, CLIENT_DIVISOR), proxies, crowded_since: Arc::default() }
    }

    /// Returns how long nearly all slots have been in use, or `None` if there are free ones.
    pub fn crowded_for(&self) -> Option<Duration> {
        self.note_use().map(|since| since.elapsed())
    }

    /// Takes a slot for a client, unless it has its part.
    pub(super) fn take(&self, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let is_proxy = self.proxies.iter().any(|network| network.contains(&address));
        let client = (!is_proxy).then(|| ClientNetwork::of(address));
        let share = self.shares.take(client, 1);
        self.note_use();
        share.map(|share| Slot { client, _share: share })
    }

    /// Returns since when nearly all slots have been in use.
    fn note_use(&self) -> Option<Instant> {
        let free = self.shares.capacity() - self.shares.total();
        let is_crowded = free * FREE_DIVISOR <= self.shares.capacity();
        let mut since = self.crowded_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if is_crowded { since.or_else(|| Some(Instant::now())) } else { None };
        *since
    }
}
