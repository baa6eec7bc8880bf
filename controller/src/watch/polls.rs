//! Polls that the leader makes for all Integrations at once.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use grapnel_core::error_chain::chain;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::error::CallError;
use crate::object::wait_until_filled;

/// The time between two polls. A provider that waits for its secret to be used sends again within minutes; this is much less.
const PERIOD: Duration = Duration::from_secs(10);

/// Polls until stopped. `subject` is what the log names after a failure.
pub(super) async fn run(
    ctx: Arc<Context>,
    stop: CancellationToken,
    subject: &str,
    poll: impl Fn(&Context) -> BoxFuture<'_, Result<(), CallError>>,
) {
    let polls = async {
        wait_until_filled(&ctx.integrations).await;
        loop {
            if ctx.leadership.is_held()
                && let Err(error) = poll(&ctx).await
            {
                tracing::warn!(error = %chain(&error), "cannot poll {subject}");
            }
            tokio::time::sleep(PERIOD).await;
        }
    };
    stop.run_until_cancelled(polls).await;
}
