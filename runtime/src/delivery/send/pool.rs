//! Connections that wait for their next request.
//!
//! Invariants: a connection is used only for the destination identity for which it was opened, as [`Key`] tells; it waits at
//! most as long as the receiver announced, and less than common servers keep one; at most [`IDLE_PER_KEY`] wait for one key
//! and [`IDLE`] in all. One that the receiver has closed is found when it is taken, and within [`SWEEP_INTERVAL`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, sleep};

use super::exchange::Connection;
use grapnel_core::delivery::target::DeliveryTarget;

/// Connections that wait for one key. Further ones serve a burst and are closed after it.
const IDLE_PER_KEY: usize = 128;
/// Connections that wait in all; each costs a file and a few KiB.
const IDLE: usize = 2048;
/// Shorter than the shortest keep-alive of common servers (5 s), so that we close first.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// The longest wait, whatever a receiver announces: a network on the way forgets a connection that is silent.
const LONGEST_IDLE_TIME: Duration = Duration::from_secs(30);
/// By how much we close before the time that a receiver announces.
const IDLE_MARGIN: Duration = Duration::from_secs(1);
/// How often connections that cannot be used any more are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What requests must have in common to share a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Scheme, host and port.
    origin: Arc<str>,
    /// Whether the endpoints of a Service were dialed. A connection to one serves no URL with the same name, since the
    /// policy for URLs may not permit its address.
    is_service: bool,
    /// The digest of the destination's own TLS material.
    tls: Option<[u8; 32]>,
}

impl Key {
    pub(super) fn of(target: &DeliveryTarget) -> Self {
        Self {
            origin: Arc::clone(&target.origin),
            is_service: target.endpoints.is_some(),
            tls: target.tls.as_ref().map(|material| material.digest()),
        }
    }
}

/// The idle connections of a client.
#[derive(Default)]
pub(super) struct Pool(Mutex<Idle>);

#[derive(Default)]
struct Idle {
    by_key: HashMap<Key, Vec<IdleConnection>>,
    count: usize,
    is_swept: bool,
}

struct IdleConnection {
    /// Boxed: it is moved often, and large.
    connection: Box<Connection>,
    until: Instant,
}

impl IdleConnection {
    fn is_usable(&mut self, now: Instant) -> bool {
        now < self.until && self.connection.is_idle()
    }
}

impl Pool {
    /// Takes the connection that was used last. With `endpoints`, those to other addresses are closed: a Service has moved.
    pub(super) fn take(&self, key: &Key, endpoints: Option<&[SocketAddr]>) -> Option<Box<Connection>> {
        loop {
            // Released before the connection is looked at.
            let mut taken = self.idle().pop(key)?;
            let is_current = endpoints
                .is_none_or(|endpoints| taken.connection.peer.is_some_and(|peer| endpoints.contains(&peer)));
            if is_current && taken.is_usable(Instant::now()) {
                return Some(taken.connection);
            }
        }
    }

    /// Keeps a connection whose answer was read, if it can be used again. `headers` are those of the answer.
    pub(super) fn put(self: &Arc<Self>, key: Key, mut connection: Box<Connection>, headers: &HeaderMap) {
        let idle_time = idle_time(headers);
        if idle_time.is_zero() || !connection.is_idle() {
            return;
        }
        let kept = IdleConnection { connection, until: Instant::now() + idle_time };
        let mut idle = self.idle();
        // One that is not kept is closed after the lock is released.
        let _too_many = idle.push(key, kept);
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        drop(idle);
    }

    /// Closes connections that cannot be used any more, and returns whether any are left.
    fn sweep(&self) -> bool {
        let mut idle = self.idle();
        let unusable = idle.remove_unusable(Instant::now());
        idle.is_swept = idle.count > 0;
        let are_any_left = idle.is_swept;
        drop(idle);
        // Closed after the lock is released.
        drop(unusable);
        are_any_left
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing panics while this is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn pop(&mut self, key: &Key) -> Option<IdleConnection> {
        let taken = self.by_key.get_mut(key)?.pop()?;
        self.count -= 1;
        Some(taken)
    }

    /// Returns the connection if there are too many.
    fn push(&mut self, key: Key, connection: IdleConnection) -> Option<IdleConnection> {
        let of_key = self.by_key.entry(key).or_default();
        if self.count >= IDLE || of_key.len() >= IDLE_PER_KEY {
            return Some(connection);
        }
        of_key.push(connection);
        self.count += 1;
        None
    }

    /// Removes and returns what cannot be used any more.
    fn remove_unusable(&mut self, now: Instant) -> Vec<IdleConnection> {
        let mut removed = Vec::new();
        self.by_key.retain(|_, of_key| {
            removed.extend(of_key.extract_if(.., |connection| !connection.is_usable(now)));
            !of_key.is_empty()
        });
        self.count -= removed.len();
        removed
    }
}

/// Sweeps a pool until no connection is left in it.
async fn sweep(pool: Weak<Pool>) {
    let mut are_any_left = true;
    while are_any_left {
        sleep(SWEEP_INTERVAL).await;
        are_any_left = pool.upgrade().is_some_and(|pool| pool.sweep());
    }
}

/// Returns how long a connection may wait after an answer with these headers. Pure.
fn idle_time(headers: &HeaderMap) -> Duration {
    let announced = headers.get_all("keep-alive").iter().filter_map(|value| value.to_str().ok());
    let timeout = announced.flat_map(|value| value.split(',')).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| value.trim().trim_matches('"').parse().ok())?
    });
    match timeout {
        None => IDLE_TIME,
        Some(seconds) => Duration::from_secs(seconds).saturating_sub(IDLE_MARGIN).min(LONGEST_IDLE_TIME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_connection_waits_for_less_than_the_receiver_announces() {
        let of = |value: &'static str| {
            idle_time(&HeaderMap::from_iter([(
                "keep-alive".parse().unwrap(),
                HeaderValue::from_static(value),
            )]))
        };
        let seconds = Duration::from_secs;
        assert_eq!(idle_time(&HeaderMap::new()), seconds(4));
        for (value, expected) in [
            ("timeout=5", 4),
            ("timeout=2, max=100", 1),
            ("max=100, Timeout = \"3\"", 2),
            ("timeout=1", 0),
            ("timeout=0", 0),
            ("timeout=60", 30),
            ("timeout=99999999999999999999999", 4),
            ("timeout=soon", 4),
            ("timeout", 4),
            ("max=5", 4),
            ("", 4),
        ] {
            assert_eq!(of(value), seconds(expected), "{value}");
        }
    }
}
