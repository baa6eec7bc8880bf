//! Records when each verification secret last verified a webhook, so that operators know when an old one can be removed.
//!
//! Uses are written every half minute, so a crash loses at most that.

use std::time::Duration;

use grapnel_store::Database;
use grapnel_store::secret_uses::{self as rows, SecretUse};
use tokio_util::sync::CancellationToken;

use super::cache::IntegrationCache;

/// How often uses are written.
const PERIOD: Duration = Duration::from_secs(30);

/// Writes the uses until the token is cancelled, and once more at the end.
pub(crate) async fn run(db: Database, integrations: IntegrationCache, stop: CancellationToken) {
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
        let uses = take(&integrations);
        if !uses.is_empty()
            && let Err(error) = rows::note(&db, &uses).await
        {
            tracing::warn!(%error, "the uses of verification secrets were not recorded");
        }
        if stopped {
            return;
        }
    }
}

fn take(integrations: &IntegrationCache) -> Vec<SecretUse> {
    let mut uses = Vec::new();
    for integration in integrations.load().iter() {
        uses.extend(integration.uses.take().map(|(secret, last_used_at)| SecretUse {
            integration_id: integration.row.id,
            secret: secret.to_owned(),
            last_used_at,
        }));
    }
    uses
}
