//! Finds what no notification showed: objects that were never reconciled, and jobs whose objects no longer exist.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_crds::{Replay, ReplayPhase};
use grapnel_store::audit::{self, Requester};
use grapnel_store::replay_jobs::forget_object;
use grapnel_store::replay_objects;
use kube::ResourceExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ReplayContext, uid_of};
use crate::error::CallError;
use crate::metrics;
use crate::object::wait_until_filled;
use crate::watch::sweep::is_deleted;

const INTERVAL: Duration = Duration::from_secs(30);

/// Runs until stopped.
pub(super) async fn run(ctx: Arc<ReplayContext>, stop: CancellationToken) {
    if stop.run_until_cancelled(wait_until_filled(&ctx.objects)).await.is_none() {
        return;
    }
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if !ctx.shared.leadership.is_held() {
            continue;
        }
        trigger_missed(&ctx);
        count_phases(&ctx);
        let Some(cancelled) = stop.run_until_cancelled(Box::pin(cancel_orphans(&ctx))).await else { return };
        if let Err(error) = cancelled {
            tracing::warn!(error = %chain(&error), "cannot cancel the jobs of deleted Replays yet");
        }
    }
}

/// Triggers objects whose current version was not reconciled.
fn trigger_missed(ctx: &ReplayContext) {
    let objects = ctx.objects.state();
    let uids: BTreeSet<Uuid> = objects.iter().filter_map(|object| uid_of(object)).collect();
    ctx.memory.retain(&uids);
    for object in &objects {
        let Some(uid) = uid_of(object) else { continue };
        let version = object.resource_version();
        if ctx.memory.with(uid, |memory| memory.pass.has_missed(version.as_deref())) {
            ctx.trigger(object);
        }
    }
}

fn count_phases(ctx: &ReplayContext) {
    let mut counts: BTreeMap<&'static str, usize> =
        ReplayPhase::ALL.into_iter().map(|phase| (phase.as_str(), 0)).collect();
    for object in ctx.objects.state() {
        let phase = object.0.as_ref().ok().and_then(|replay| replay.status.as_ref()?.phase);
        *counts.entry(phase.unwrap_or(ReplayPhase::Pending).as_str()).or_default() += 1;
    }
    metrics::replays(&counts);
}

/// Cancels the jobs of objects that disappeared without their cleanup. The API server is asked first: the cache alone may be behind.
async fn cancel_orphans(ctx: &ReplayContext) -> Result<(), CallError> {
    let shared = &ctx.shared;
    let known: BTreeSet<Uuid> = ctx.objects.state().iter().filter_map(|object| uid_of(object)).collect();
    for object in shared.database(replay_objects::unfinished(&shared.db)).await? {
        // Namespaces that are not watched are another controller's responsibility.
        if known.contains(&object.uid) || !shared.settings.watched.contains(&object.namespace) {
            continue;
        }
        if is_deleted::<Replay>(shared, object.uid, &object.namespace, &object.name).await? {
            tracing::warn!(
                object.namespace,
                object.name,
                "cancelling the job of a Replay that no longer exists"
            );
            let requester = Requester::unseen(audit::CONTROLLER);
            shared.database(forget_object(&shared.db, object.uid, &requester)).await?;
        }
    }
    Ok(())
}
