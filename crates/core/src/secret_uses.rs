//! Counts the uses of verification secrets: which of them verify webhooks, and when they last did.
//!
//! A use costs two atomic operations.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use grapnel_crds::{SecretRef, Verification};
use jiff::Timestamp;

/// The uses of one integration's secrets, the current one first.
#[derive(Debug)]
pub struct SecretUses(Vec<SecretUseCounter>);

#[derive(Debug)]
struct SecretUseCounter {
    /// The [`recorded_name`].
    secret: String,
    /// Since the last [`SecretUses::take`].
    count: AtomicU64,
    last_second: AtomicI64,
}

/// Returns the name under which the uses of a secret are recorded.
pub fn recorded_name(secret_ref: &SecretRef) -> String {
    format!("{}/{}", secret_ref.name, secret_ref.key)
}

impl SecretUses {
    pub fn new(verification: &Verification) -> Self {
        let counter = |secret_ref: &SecretRef| SecretUseCounter {
            secret: recorded_name(secret_ref),
            count: AtomicU64::new(0),
            last_second: AtomicI64::new(0),
        };
        Self(verification.secret_refs().map(counter).collect())
    }

    /// Counts a webhook that the secret at this index verified.
    pub fn count(&self, secret: usize, now: Timestamp) {
        if let Some(counter) = self.0.get(secret) {
            counter.last_second.store(now.as_second(), Ordering::Relaxed);
            counter.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the secrets that were used since the last call, each with the time of its last use.
    pub fn take(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.0.iter().filter_map(|counter| {
            let last = counter.last_second.load(Ordering::Relaxed);
            if counter.count.swap(0, Ordering::Relaxed) == 0 {
                return None;
            }
            Timestamp::from_second(last).ok().map(|last_used_at| (counter.secret.as_str(), last_used_at))
        })
    }
}
