//! The deletion of a Replay: cancel its job → release the object.

use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_crds::Replay;
use grapnel_store::audit::{self, Requester};
use grapnel_store::replay_jobs::forget_object;
use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use uuid::Uuid;

use super::{ReplayContext, WatchedReplay};
use crate::api::{has_finalizer, remove_finalizer};
use crate::error::CallError;

/// How long a deletion waits for PostgreSQL. After that the sweep cancels the job, once PostgreSQL is back.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Runs one pass, from wherever the last one ended.
pub(super) async fn clean_up(
    ctx: &ReplayContext,
    object: &WatchedReplay,
    uid: Uuid,
) -> Result<Action, CallError> {
    if !has_finalizer(object) {
        return Ok(Action::await_change());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let requester = Requester::unseen(audit::CONTROLLER);
    match ctx.shared.database(forget_object(&ctx.shared.db, uid, &requester)).await {
        Ok(()) => tracing::info!(namespace, name, "a Replay was deleted"),
        Err(error) if error.is_of_database() && time_since_deletion(object) >= LONGEST_WAIT => {
            tracing::warn!(namespace, name, error = %chain(&error), "a Replay was deleted, and its job is cancelled later");
        }
        Err(error) => return Err(error),
    }
    remove_finalizer::<Replay>(&ctx.shared, object).await?;
    ctx.memory.forget(uid);
    Ok(Action::await_change())
}

/// Times in objects are from the API server's clock; a difference makes the wait longer or shorter by that much.
fn time_since_deletion(object: &WatchedReplay) -> Duration {
    let Some(deleted) = &object.meta().deletion_timestamp else { return Duration::ZERO };
    Duration::try_from(Timestamp::now().duration_since(deleted.0)).unwrap_or(Duration::ZERO)
}
