//! One pass over one Replay: make or follow its job → report it → once it has ended, release the object and delete it in its time.
//!
//! A pass may end anywhere and be repeated from the beginning, and writes only what differs.

use std::sync::Arc;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_crds::conditions::FALSE;
use grapnel_crds::conditions::replay::ACCEPTED;
use grapnel_crds::{Replay, ReplayPhase, ReplayStatus};
use jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::memory::ReportedJob;
use super::status::{Standing, at_generation, has_counted, status, with_counts_of};
use super::{ReplayContext, WatchedReplay, cleanup, events, job, uid_of};
use crate::api::{apply_status, ensure_finalizer, has_finalizer, remove_finalizer};
use crate::error::CallError;
use crate::reconcile::RESYNC;
use crate::reconcile::undecodable::{next_look, report_undecodable};
use crate::report::events::publish_about;
use crate::{backoff, metrics};

/// A pass takes milliseconds, and counting what matches some seconds; this ends one that every backend delays as long as it can.
const PASS_DEADLINE: Duration = Duration::from_secs(60);

/// How often an object without a job looks for what it lacks.
const WAIT_RETRY: Duration = Duration::from_secs(10);

/// How often counts are written at most.
pub(super) const COUNTS_PERIOD: Duration = Duration::from_secs(10);

/// Reconciles an object and returns when to do so again.
pub(super) async fn reconcile(
    object: Arc<WatchedReplay>,
    ctx: Arc<ReplayContext>,
) -> Result<Action, CallError> {
    let started = Instant::now();
    let outcome = match timeout(PASS_DEADLINE, Box::pin(pass(&object, &ctx))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::TimedOut("a pass")),
    };
    metrics::replay_reconciled(started.elapsed(), outcome.as_ref().err());
    outcome
}

/// Returns when a failed object is retried.
pub(super) fn after_error(object: Arc<WatchedReplay>, error: &CallError, ctx: Arc<ReplayContext>) -> Action {
    let Some(uid) = uid_of(&object).filter(|_| !matches!(error, CallError::NotLeading)) else {
        return Action::await_change();
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    tracing::warn!(namespace, name, error = %chain(error), "reconciling a Replay failed");
    let failures = ctx.memory.with(uid, |memory| memory.pass.fail());
    // Someone waits for the end of a deletion, and for the beginning of a replay after an outage.
    Action::requeue(backoff::delay(failures, rand::random()).min(backoff::LONGEST_OF_DELETIONS))
}

async fn pass(object: &WatchedReplay, ctx: &ReplayContext) -> Result<Action, CallError> {
    ctx.shared.ensure_leading()?;
    let Some(uid) = uid_of(object) else { return Ok(Action::await_change()) };
    ctx.memory.with(uid, |memory| memory.pass.begin(object.resource_version()));
    if object.meta().deletion_timestamp.is_some() {
        return cleanup::clean_up(ctx, object, uid).await;
    }
    let action = match &object.0 {
        Ok(replay) => Box::pin(drive(ctx, uid, with_newest_status(ctx, uid, replay))).await?,
        Err(invalid) => {
            report_undecodable::<Replay>(&ctx.shared, object, invalid, &[(ACCEPTED, FALSE)]).await?;
            next_look()
        }
    };
    ctx.memory.with(uid, |memory| memory.pass.succeed());
    Ok(action)
}

/// Returns the object with the status that this process wrote last, if the cache is behind it.
fn with_newest_status(ctx: &ReplayContext, uid: Uuid, replay: &Replay) -> Replay {
    let mut replay = replay.clone();
    let version = replay.metadata.resource_version.clone().unwrap_or_default();
    let newer = ctx.memory.with(uid, |memory| memory.status.newer_than(&version).cloned());
    if newer.is_some() {
        replay.status = newer;
    }
    replay
}

async fn drive(ctx: &ReplayContext, uid: Uuid, replay: Replay) -> Result<Action, CallError> {
    if let Some(ended) = replay.status.as_ref().filter(|status| has_ended(status)) {
        let next = at_generation(ended, replay.metadata.generation);
        return finish(ctx, uid, &replay, next).await;
    }
    if has_counted(&replay) {
        return Ok(Action::await_change());
    }
    let replay = ensure_finalizer(&ctx.shared, replay).await?;
    let standing = match job::settle(ctx, uid, &replay).await {
        Ok(standing) => standing,
        Err(error) => {
            let is_new = replay.status.as_ref().is_none_or(|status| status.replay_id.is_none());
            if is_new && error.is_of_database() {
                let next = status(&replay, &Standing::unknown(), Timestamp::now());
                write(ctx, uid, &replay, next).await?;
            }
            return Err(error);
        }
    };
    let next = status(&replay, &standing, Timestamp::now());
    if has_ended(&next) {
        return finish(ctx, uid, &replay, next).await;
    }
    let Standing::Job(job) = &standing else {
        write(ctx, uid, &replay, next).await?;
        return Ok(Action::requeue(backoff::jittered(WAIT_RETRY, rand::random())));
    };
    let now = ctx.shared.now();
    let waits = ctx.memory.with(uid, |memory| {
        let since = memory.reported.as_ref().map(|reported| now.saturating_sub(reported.at));
        COUNTS_PERIOD.saturating_sub(since.unwrap_or(COUNTS_PERIOD))
    });
    let differs_by_counts =
        replay.status.as_ref().is_some_and(|before| with_counts_of(before, &next) == next);
    if differs_by_counts && replay.status.as_ref() != Some(&next) && !waits.is_zero() {
        return Ok(Action::requeue(waits));
    }
    write(ctx, uid, &replay, next).await?;
    ctx.memory.with(uid, |memory| memory.reported = Some(ReportedJob::new(job, now)));
    Ok(Action::requeue(backoff::jittered(RESYNC, rand::random())))
}

fn has_ended(status: &ReplayStatus) -> bool {
    status.phase.is_some_and(ReplayPhase::is_final)
}

/// Writes the status, if it differs, and publishes the Event of the change.
async fn write(ctx: &ReplayContext, uid: Uuid, replay: &Replay, next: ReplayStatus) -> Result<(), CallError> {
    if replay.status.as_ref() == Some(&next) {
        return Ok(());
    }
    apply_status::<Replay>(&ctx.shared, replay, &next).await?;
    ctx.memory.with(uid, |memory| {
        // The version of the cache, and the one that adding the finalizer made of it.
        let versions = [replay.metadata.resource_version.clone(), memory.pass.version().cloned()];
        memory.status.record(next.clone(), versions.into_iter().flatten());
    });
    if let Some(event) = events::transition(replay.status.as_ref(), &next) {
        publish_about(&ctx.shared.recorder, &replay.object_ref(&()), &[event]).await;
    }
    Ok(())
}

/// Reports the end, releases the object, and deletes it when its time has come. Returns when that is.
async fn finish(
    ctx: &ReplayContext,
    uid: Uuid,
    replay: &Replay,
    next: ReplayStatus,
) -> Result<Action, CallError> {
    let ended = next.completion_time.as_ref().map(|time| time.0);
    write(ctx, uid, replay, next).await?;
    ctx.memory.with(uid, |memory| memory.reported = None);
    if has_finalizer(replay) {
        remove_finalizer::<Replay>(&ctx.shared, replay).await?;
    }
    let Some((ended, seconds)) = ended.zip(replay.spec.ttl_seconds_after_finished) else {
        return Ok(Action::await_change());
    };
    let lived = Duration::try_from(Timestamp::now().duration_since(ended)).unwrap_or_default();
    let rest = Duration::from_secs(seconds.max(0).unsigned_abs().into()).saturating_sub(lived);
    if !rest.is_zero() {
        // At most, so that a clock that is set is noticed.
        return Ok(Action::requeue(rest.min(RESYNC)));
    }
    delete(ctx, replay).await?;
    Ok(Action::await_change())
}

async fn delete(ctx: &ReplayContext, replay: &Replay) -> Result<(), CallError> {
    ctx.shared.ensure_leading()?;
    let (namespace, name) = (replay.namespace().unwrap_or_default(), replay.name_any());
    let preconditions = Preconditions { uid: replay.uid(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let api: kube::Api<Replay> = ctx.shared.objects_api(&namespace);
    match ctx.shared.api(api.delete(&name, &parameters)).await {
        // Another object of the name has taken its place.
        Err(CallError::Api(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => {
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => {
            tracing::info!(namespace, name, "deleted a Replay whose time to live is over");
            Ok(())
        }
    }
}
