//! Which verification secrets prove webhooks, and when they last did: what tells that a previous one can be removed.
//!
//! A use costs two atomic operations; what was used is written every half minute, so that a crash forgets at most that.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use grapnel_crds::{SecretRef, Verification};
use jiff::Timestamp;
use sqlx::postgres::PgPool;
use tokio_util::sync::CancellationToken;

use crate::integrations::Table;
use crate::store;
use crate::store::secret_uses::{self as rows, SecretUse};

/// How often uses are written.
const PERIOD: Duration = Duration::from_secs(30);

/// The uses of one integration's secrets, the current one first.
#[derive(Debug)]
pub struct Uses(Vec<Used>);

#[derive(Debug)]
struct Used {
    /// The [`reference`].
    secret: String,
    /// Since the last write.
    count: AtomicU64,
    last_second: AtomicI64,
}

/// How uses name a secret.
pub fn reference(secret_ref: &SecretRef) -> String {
    format!("{}/{}", secret_ref.name, secret_ref.key)
}

impl Uses {
    pub fn new(verification: &Verification) -> Self {
        let used = |secret_ref: &SecretRef| Used {
            secret: reference(secret_ref),
            count: AtomicU64::new(0),
            last_second: AtomicI64::new(0),
        };
        Self(verification.secret_refs().map(used).collect())
    }

    /// The secret proved a webhook.
    pub fn note(&self, secret: usize) {
        // With literals the key is static, and nothing is allocated.
        if secret == 0 {
            metrics::counter!("grapnel_webhook_secrets_total", "secret" => "current").increment(1);
        } else {
            metrics::counter!("grapnel_webhook_secrets_total", "secret" => "previous").increment(1);
        }
        if let Some(used) = self.0.get(secret) {
            used.last_second.store(Timestamp::now().as_second(), Ordering::Relaxed);
            used.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes what was used until the token is cancelled, and once more.
pub async fn run(pool: PgPool, integrations: Table, stop: CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        let uses = take(&integrations);
        if !uses.is_empty()
            && let Err(error) = store::bounded(&pool, rows::note(&pool, &uses)).await
        {
            tracing::warn!(%error, "the uses of verification secrets were not noted");
        }
        if stopped {
            return;
        }
    }
}

fn take(integrations: &Table) -> Vec<SecretUse> {
    let mut uses = Vec::new();
    for integration in integrations.load().iter() {
        for used in &integration.uses.0 {
            let last = used.last_second.load(Ordering::Relaxed);
            if used.count.swap(0, Ordering::Relaxed) == 0 {
                continue;
            }
            uses.extend(Timestamp::from_second(last).ok().map(|last_used_at| SecretUse {
                integration_id: integration.row.id,
                secret: used.secret.clone(),
                last_used_at,
            }));
        }
    }
    uses
}
