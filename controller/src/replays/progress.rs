//! Watches the jobs of all Replays: one statement every two seconds, and none while no job goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::ReplayJobId;
use grapnel_store::replay_jobs::{ReplayJob, load_many};
use tokio_util::sync::CancellationToken;

use super::memory::ReportedJob;
use super::pass::COUNTS_PERIOD;
use super::{ReplayContext, uid_of};
use crate::error::CallError;

const PERIOD: Duration = Duration::from_secs(2);

/// Runs until stopped.
pub(super) async fn run(ctx: Arc<ReplayContext>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        if !ctx.shared.leadership.is_held() {
            continue;
        }
        let Some(outcome) = stop.run_until_cancelled(trigger_changed(&ctx)).await else { return };
        if let Err(error) = outcome {
            tracing::warn!(error = %chain(&error), "cannot read the progress of replays");
        }
    }
}

/// Triggers the objects whose jobs have something to report.
async fn trigger_changed(ctx: &ReplayContext) -> Result<(), CallError> {
    let reported: HashMap<_, _> = ctx.memory.reported().into_iter().collect();
    if reported.is_empty() {
        return Ok(());
    }
    let ids: Vec<ReplayJobId> = reported.values().map(|reported| reported.id).collect();
    let jobs = ctx.shared.database(load_many(&ctx.shared.db, &ids)).await?;
    let jobs: HashMap<ReplayJobId, ReplayJob> = jobs.into_iter().map(|job| (job.id, job)).collect();
    let now = ctx.shared.now();
    for object in ctx.objects.state() {
        let Some(reported) = uid_of(&object).and_then(|uid| reported.get(&uid)) else { continue };
        if jobs.get(&reported.id).is_none_or(|job| is_due(reported, job, now)) {
            ctx.trigger(&object);
        }
    }
    Ok(())
}

fn is_due(reported: &ReportedJob, job: &ReplayJob, now: Duration) -> bool {
    let is_old = now.saturating_sub(reported.at) >= COUNTS_PERIOD;
    reported.has_turned(job) || (is_old && reported.has_progressed(job))
}
