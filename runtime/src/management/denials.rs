//! What was refused: all of it is counted, and of what a user was denied a sample is audited.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_store::Database;
use grapnel_store::audit::{Requester, access_denied};
use grapnel_store::views::Owner;

use super::routes::RouteAccess;

/// The same denial is audited at most once in this time.
const SAMPLED_EVERY: Duration = Duration::from_secs(60);

/// Denials that are audited in that time, of everybody.
const MAX_SAMPLES: usize = 100;

/// A user, an Integration, and what was denied.
type Denial = (String, IntegrationId, String);

/// Counts refusals. Cheap to clone.
#[derive(Clone, Default)]
pub struct Denials(Arc<Mutex<HashMap<Denial, Instant>>>);

impl Denials {
    /// Counts that nobody was let in.
    pub(crate) fn count_unauthenticated(&self) {
        self.count("unauthenticated");
    }

    pub(super) fn count(&self, reason: &'static str) {
        metrics::counter!("grapnel_management_denied_total", "reason" => reason).increment(1);
    }

    /// Counts that a user was denied something of an Integration, and writes an audit entry unless there was one just now.
    pub(super) async fn record(
        &self,
        db: &Database,
        requester: &Requester,
        owner: &Owner,
        access: RouteAccess,
    ) {
        self.count("forbidden");
        let (resource, verb) = (access.resource.name(), access.verb.name());
        let denial = (requester.actor.clone(), owner.id, format!("{verb} {resource}"));
        if self.is_sampled(denial, Instant::now())
            && let Err(error) = access_denied(db, owner.id, requester, &resource, verb).await
        {
            tracing::warn!(error = %chain(&error), "a denial was not audited");
        }
    }

    fn is_sampled(&self, denial: Denial, now: Instant) -> bool {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.retain(|_, at| now.saturating_duration_since(*at) < SAMPLED_EVERY);
        if samples.len() >= MAX_SAMPLES || samples.contains_key(&denial) {
            return false;
        }
        samples.insert(denial, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_denial_is_sampled_once_a_minute_and_all_of_them_are_bounded() {
        let (denials, start) = (Denials::default(), Instant::now());
        let id = IntegrationId::generate();
        let denial = |number: usize| (format!("user:{number}"), id, "get integrations/events".to_owned());
        assert!(denials.is_sampled(denial(0), start));
        assert!(!denials.is_sampled(denial(0), start + Duration::from_secs(59)));
        assert!(denials.is_sampled(denial(0), start + SAMPLED_EVERY));
        let now = start + SAMPLED_EVERY * 3;
        assert_eq!((0..1000).filter(|number| denials.is_sampled(denial(*number), now)).count(), MAX_SAMPLES);
    }
}
