//! The sources that have sent a verified request lately.
//!
//! What such a source sends is verified even when it has sent many requests that were not: then only a few at a time, which
//! bounds their cost, while those of the provider among them still pass. This is known to one process and not shared: a
//! source that another process knows is counted here once as one that is not known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Source;

/// How long a source is known after a verified request.
const KNOWN_FOR: Duration = Duration::from_secs(10 * 60);

/// Sources that are known at a time. Beyond that further ones are not remembered, and limited like strangers.
const MAX_KNOWN: usize = 50_000;

/// How often sources that are no longer known are removed while there is no room.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Requests of a source that are verified at the same time, once it has sent as many that were not verified as the limit.
const CHECKS_OVER_LIMIT: u32 = 4;

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownSources(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    sources: HashMap<Source, KnownSource>,
    swept_at: Option<Instant>,
}

#[derive(Debug)]
struct KnownSource {
    verified_at: Instant,
    /// Requests that are being read and verified.
    in_progress: u32,
    /// The minute to which the next two belong.
    minute: i64,
    not_verified: u32,
    /// Whether it has sent too many verified requests.
    is_limited: bool,
}

/// The decision about a request before it is read.
#[derive(Debug)]
pub(super) enum Begun {
    Unknown,
    Known(KnownRequest),
    OverLimit,
}

/// A request of a known source. Dropping it means that it was not verified.
#[derive(Debug)]
pub(super) struct KnownRequest {
    sources: KnownSources,
    source: Source,
    is_verified: bool,
}

impl KnownSources {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while this is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides whether a request may be read and verified.
    pub(super) fn begin(&self, source: &Source, per_minute: u32, minute: i64) -> Begun {
        let mut known = self.lock();
        let Some(found) = known.sources.get_mut(source) else { return Begun::Unknown };
        if found.verified_at.elapsed() >= KNOWN_FOR && found.in_progress == 0 {
            known.sources.remove(source);
            return Begun::Unknown;
        }
        if found.minute != minute {
            (found.minute, found.not_verified, found.is_limited) = (minute, 0, false);
        }
        let has_failed_often = found.not_verified >= per_minute;
        if found.is_limited || (has_failed_often && found.in_progress >= CHECKS_OVER_LIMIT) {
            return Begun::OverLimit;
        }
        found.in_progress += 1;
        Begun::Known(KnownRequest { sources: self.clone(), source: source.clone(), is_verified: false })
    }

    /// Remembers the source of a verified request.
    pub(super) fn remember(&self, source: Source) {
        let mut known = self.lock();
        let now = Instant::now();
        if known.sources.len() >= MAX_KNOWN {
            if known.swept_at.is_some_and(|at| now - at < SWEEP_INTERVAL) {
                return;
            }
            known.swept_at = Some(now);
            known.sources.retain(|_, source| {
                source.in_progress > 0 || now.saturating_duration_since(source.verified_at) < KNOWN_FOR
            });
            if known.sources.len() >= MAX_KNOWN {
                return;
            }
        }
        let new =
            KnownSource { verified_at: now, in_progress: 0, minute: 0, not_verified: 0, is_limited: false };
        known.sources.entry(source).or_insert(new).verified_at = now;
    }

    /// Refuses the source until the end of the minute.
    pub(super) fn limit(&self, source: &Source, minute: i64) {
        if let Some(found) = self.lock().sources.get_mut(source).filter(|found| found.minute == minute) {
            found.is_limited = true;
        }
    }
}

impl KnownRequest {
    pub(super) fn verified(mut self) {
        self.is_verified = true;
    }
}

impl Drop for KnownRequest {
    fn drop(&mut self) {
        // A source is not removed while a request of it is in progress.
        let mut known = self.sources.lock();
        let Some(found) = known.sources.get_mut(&self.source) else { return };
        found.in_progress = found.in_progress.saturating_sub(1);
        if self.is_verified {
            found.verified_at = Instant::now();
        } else {
            found.not_verified = found.not_verified.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use grapnel_platform::client_network::ClientNetwork;

    fn source() -> Source {
        let integration_id = "0190b5a1-0000-7000-8000-000000000001".parse().expect("an id");
        Source { integration_id, client: ClientNetwork::of([192, 0, 2, 1].into()) }
    }

    #[test]
    fn source_is_known_after_a_verified_request() {
        let known = KnownSources::default();
        assert!(matches!(known.begin(&source(), 3, 1), Begun::Unknown));
        known.remember(source());
        assert!(matches!(known.begin(&source(), 3, 1), Begun::Known(_)));
    }

    #[test]
    fn many_that_are_not_verified_leave_a_few_at_a_time() {
        let known = KnownSources::default();
        known.remember(source());
        let begin = |minute| match known.begin(&source(), 10, minute) {
            Begun::Known(request) => Some(request),
            Begun::Unknown | Begun::OverLimit => None,
        };
        for _ in 0..100 {
            drop(begin(1).expect("one at a time is always verified"));
        }
        let mut held: Vec<_> = std::iter::from_fn(|| begin(1)).collect();
        assert_eq!(held.len(), CHECKS_OVER_LIMIT as usize);
        held.pop().expect("one").verified();
        assert!(begin(1).is_some());
        drop(held);
        let next_minute: Vec<_> = (0..9).map_while(|_| begin(2)).collect();
        assert_eq!(next_minute.len(), 9, "counted anew");
    }

    #[test]
    fn too_many_verified_ones_refuse_the_source_until_the_next_minute() {
        let known = KnownSources::default();
        known.remember(source());
        let Begun::Known(request) = known.begin(&source(), 10, 1) else { panic!("known") };
        request.verified();
        known.limit(&source(), 1);
        assert!(matches!(known.begin(&source(), 10, 1), Begun::OverLimit));
        assert!(matches!(known.begin(&source(), 10, 2), Begun::Known(_)));
    }
}
