//! The previous secrets that are no longer needed: a function of when they last verified a webhook, and of the time.
//!
//! A secret that is listed as a previous one is unused if it has not verified any webhook for long enough, and the
//! current one has since. The time before it was listed does not count.

use grapnel_core::ids::IntegrationId;
use grapnel_core::secret_uses::recorded_name;
use grapnel_crds::{Integration, SecretRef, UnusedSecret, VerificationStatus};
use grapnel_store::secret_uses::{ListedSecret, PreviousSecret};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::object::whole_seconds;

/// The time without a verified webhook after which a previous secret is unused. A sender that posts at least daily
/// shows up within it, and so do the retries of most providers.
pub const UNUSED_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// Returns the previous secrets that an Integration lists.
pub fn listed(id: IntegrationId, integration: &Integration) -> impl Iterator<Item = ListedSecret> {
    let verification = &integration.spec.verification;
    verification.previous_secret_refs.iter().map(move |secret_ref| ListedSecret {
        integration_id: id,
        secret: recorded_name(secret_ref),
        current: recorded_name(&verification.secret_ref),
    })
}

/// Returns the previous secrets of an Integration that are unused, in the order in which it lists them.
pub fn unused(
    id: IntegrationId,
    integration: &Integration,
    known: &[PreviousSecret],
    now: Timestamp,
) -> Vec<UnusedSecret> {
    let find = |secret_ref: &SecretRef| {
        let secret = recorded_name(secret_ref);
        let previous = known.iter().find(|known| known.integration_id == id && known.secret == secret)?;
        Some(UnusedSecret {
            name: secret_ref.name.clone(),
            key: secret_ref.key.clone(),
            unused_since: Time(whole_seconds(unused_since(previous, now)?)),
            last_used_time: previous.last_used_at.map(|time| Time(whole_seconds(time))),
        })
    };
    integration.spec.verification.previous_secret_refs.iter().filter_map(find).collect()
}

fn unused_since(previous: &PreviousSecret, now: Timestamp) -> Option<Timestamp> {
    let since = previous.last_used_at.map_or(previous.listed_at, |used| used.max(previous.listed_at));
    let replaced = previous.current_used_at.is_some_and(|used| used > since);
    (replaced && now.duration_since(since) >= UNUSED_AFTER).then_some(since)
}

/// Builds the status list; keeps the previous one until usage is known, without secrets that are no longer listed.
pub fn verification_status(
    integration: &Integration,
    unused: Option<Vec<UnusedSecret>>,
    before: Option<VerificationStatus>,
) -> Option<VerificationStatus> {
    let listed = &integration.spec.verification.previous_secret_refs;
    let is_listed = |secret: &UnusedSecret| {
        listed.iter().any(|listed| (&listed.name, &listed.key) == (&secret.name, &secret.key))
    };
    let mut unused = unused.unwrap_or_else(|| before.unwrap_or_default().unused_previous_secrets);
    unused.retain(is_listed);
    let message = message(&unused)?;
    Some(VerificationStatus { unused_previous_secrets: unused, message: Some(message) })
}

/// The message that says what to do about them.
fn message(unused: &[UnusedSecret]) -> Option<String> {
    let each = unused.iter().map(|secret| {
        let (name, key, since) = (&secret.name, &secret.key, secret.unused_since.0);
        format!("{name} (key {key}) has not verified any webhook since {since}, but the current secret has")
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty())
        .then(|| format!("{}: remove it from spec.verification.previousSecretRefs", each.join("; ")))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    /// Hours of: listed, used last, current used last, now.
    fn check(listed: i64, used: Option<i64>, current: Option<i64>, now: i64, expected: Option<i64>) {
        let previous = PreviousSecret {
            integration_id: IntegrationId::new(Uuid::nil()),
            secret: "old/secret".to_owned(),
            listed_at: at(listed),
            last_used_at: used.map(at),
            current_used_at: current.map(at),
        };
        assert_eq!(unused_since(&previous, at(now)), expected.map(at), "{previous:?}");
    }

    #[test]
    fn a_secret_is_unused_a_day_after_its_last_webhook_if_the_current_one_has_verified_some() {
        check(0, Some(10), Some(20), 34, Some(10));
        check(0, Some(10), Some(20), 33, None);
        check(0, Some(10), Some(10), 99, None);
        check(0, Some(10), Some(5), 99, None);
        check(0, Some(10), None, 99, None);
    }

    #[test]
    fn the_time_before_it_was_listed_does_not_count() {
        check(50, Some(10), Some(60), 73, None);
        check(50, Some(10), Some(60), 74, Some(50));
        check(50, None, Some(60), 73, None);
        check(50, None, Some(60), 74, Some(50));
        // The current secret has the name of the one before, and verified webhooks under it.
        check(50, None, Some(40), 99, None);
    }
}
