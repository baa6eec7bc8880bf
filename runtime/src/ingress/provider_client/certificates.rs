//! The certificates that signatures refer to: each is fetched once, and kept.
//!
//! Anybody can make an integration look for a certificate, so no lock is held while one is fetched, requests that wait for
//! one are bounded for each integration, and failures are kept apart: they displace no certificate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use grapnel_core::ids::IntegrationId;
use grapnel_core::verification::Certificate;
use grapnel_platform::fair_shares::FairShares;
use tokio::time::{Instant, timeout};
use url::Url;

use super::DEADLINE;

/// Kept certificates: more than all providers have at a time. Beyond that the least recently used one is removed.
const MAX_CERTIFICATES: usize = 256;
const MAX_FAILURES: usize = 256;

/// How long a certificate is used, and how long it is not requested again after a failure.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
const FAILURE_LIFETIME: Duration = Duration::from_secs(30);

/// Requests that wait for a certificate, with their bodies. One integration has at most an eighth of them.
const MAX_WAITING: usize = 512;
const WAITING_DIVISOR: usize = 8;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct CertificateCache {
    certificates: Arc<Mutex<Certificates>>,
    waiting: FairShares<IntegrationId>,
}

struct Certificates {
    fetched: Kept<Certificate>,
    failed: Kept<()>,
    /// The fetches in progress.
    fetching: HashMap<Url, Fetch>,
}

/// Completes for everybody who waits for it, with `None` after a failure.
type Fetch = Shared<BoxFuture<'static, Option<Certificate>>>;

impl Default for CertificateCache {
    fn default() -> Self {
        let certificates = Certificates {
            fetched: Kept::new(MAX_CERTIFICATES, CERTIFICATE_LIFETIME),
            failed: Kept::new(MAX_FAILURES, FAILURE_LIFETIME),
            fetching: HashMap::new(),
        };
        Self {
            certificates: Arc::new(Mutex::new(certificates)),
            waiting: FairShares::new(MAX_WAITING, WAITING_DIVISOR),
        }
    }
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl CertificateCache {
    /// Returns the certificate at the URL. `fetch` returns a future that fetches it, or `None` if too many are in progress.
    pub(super) async fn get<F>(
        &self,
        integration_id: IntegrationId,
        url: &Url,
        fetch: impl FnOnce() -> Option<F>,
    ) -> Option<Certificate>
    where
        F: Future<Output = Option<Certificate>> + Send + 'static,
    {
        let fetching = {
            let now = Instant::now();
            let mut certificates = self.lock();
            if let Some(certificate) = certificates.fetched.get(url, now) {
                return Some(certificate.clone());
            }
            if certificates.failed.get(url, now).is_some() {
                return None;
            }
            match certificates.fetching.get(url) {
                Some(fetching) => fetching.clone(),
                None => {
                    let fetching = self.start(url.clone(), fetch()?);
                    certificates.fetching.insert(url.clone(), fetching.clone());
                    fetching
                }
            }
        };
        let _waiting = self.waiting.take(Some(integration_id), 1)?;
        timeout(DEADLINE, fetching).await.ok().flatten()
    }

    /// Fetches in a task of its own, which ends by the deadline of the call even if nobody waits for it any more.
    fn start(&self, url: Url, fetch: impl Future<Output = Option<Certificate>> + Send + 'static) -> Fetch {
        let end = FetchEnd { cache: self.clone(), url };
        let task = tokio::spawn(async move {
            let fetched = fetch.await;
            end.keep(fetched.clone());
            fetched
        });
        async move { task.await.ok().flatten() }.boxed().shared()
    }

    fn lock(&self) -> MutexGuard<'_, Certificates> {
        // Nothing panics while this is held.
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped when a fetch ends in any way, so that none counts as in progress indefinitely.
struct FetchEnd {
    cache: CertificateCache,
    url: Url,
}

impl FetchEnd {
    fn keep(&self, fetched: Option<Certificate>) {
        let mut certificates = self.cache.lock();
        match fetched {
            Some(certificate) => certificates.fetched.insert(self.url.clone(), certificate, Instant::now()),
            None => certificates.failed.insert(self.url.clone(), (), Instant::now()),
        }
    }
}

impl Drop for FetchEnd {
    fn drop(&mut self) {
        self.cache.lock().fetching.remove(&self.url);
    }
}

/// A bounded number of values, each for a while.
struct Kept<T> {
    max: usize,
    lifetime: Duration,
    by_url: HashMap<Url, KeptValue<T>>,
}

struct KeptValue<T> {
    value: T,
    since: Instant,
    used_at: Instant,
}

impl<T> Kept<T> {
    fn new(max: usize, lifetime: Duration) -> Self {
        Self { max, lifetime, by_url: HashMap::new() }
    }

    fn get(&mut self, url: &Url, now: Instant) -> Option<&T> {
        let kept = self.by_url.get_mut(url).filter(|kept| now - kept.since < self.lifetime)?;
        kept.used_at = now;
        Some(&kept.value)
    }

    fn insert(&mut self, url: Url, value: T, now: Instant) {
        if self.by_url.len() >= self.max && !self.by_url.contains_key(&url) {
            self.by_url.retain(|_, kept| now - kept.since < self.lifetime);
        }
        if self.by_url.len() >= self.max && !self.by_url.contains_key(&url) {
            let oldest = self.by_url.iter().min_by_key(|(_, kept)| kept.used_at).map(|(url, _)| url.clone());
            oldest.and_then(|url| self.by_url.remove(&url));
        }
        self.by_url.insert(url, KeptValue { value, since: now, used_at: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(number: u32) -> Url {
        Url::parse(&format!("https://api.paypal.com/{number}")).expect("a URL")
    }

    #[test]
    fn least_recently_used_value_makes_room() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut kept = Kept::new(2, Duration::from_secs(100));
        kept.insert(url(1), (), at(0));
        kept.insert(url(2), (), at(1));
        assert!(kept.get(&url(1), at(2)).is_some());
        kept.insert(url(3), (), at(3));
        let found = [1, 2, 3].map(|number| kept.get(&url(number), at(4)).is_some());
        assert_eq!(found, [true, false, true]);
        assert!(kept.get(&url(1), at(100)).is_none(), "its time is over");
    }
}
