//! The scaler: every few seconds it reads all queues once, decides for every Integration, and applies what changed.
//!
//! A tick never waits for an object: a change that cannot be applied now is decided again at the next tick. The same
//! reading serves the upkeep of the queues.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{OptionFuture, join};
use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::names::worker_deployment;
use grapnel_crds::{Destination, Integration, ScalingDecision, conditions};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::metrics;
use crate::namespace_limits::{WorkerBudget, age};
use crate::object::{WatchedObject, integration_id, object_ref, whole_seconds};
use crate::queues;
use crate::queues::readings::{ManagementApi, QueueReadings, count_deliveries, total_backlog};
use crate::replicas::{evaluate, reason_of_change};
use crate::scale_subresource::{scaler_owns_replicas, set_replicas};
use crate::services::{ServiceCaches, services_of};

const TICK: Duration = Duration::from_secs(5);

/// Concurrent writes of a tick.
const CONCURRENCY: usize = 16;

/// Runs until stopped.
pub async fn run(ctx: Arc<Context>, management: ManagementApi, stop: CancellationToken) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_readable = true;
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => return,
            due = ticks.tick() => due,
        };
        let started = Instant::now();
        let mut readings = management.read(&ctx.settings.queue_prefix).await;
        if let Err(error) = &readings {
            metrics::backlog_unreadable();
            if was_readable {
                tracing::warn!(error = %chain(&**error), "cannot read the backlog");
            }
        }
        if let Ok(readings) = &mut readings
            && ctx.leadership.is_held()
        {
            count_deliveries(&ctx.db, readings).await;
        }
        was_readable = readings.is_ok();
        ctx.backlog_is_readable.store(was_readable, Ordering::Relaxed);
        let stopped = stop.run_until_cancelled(tick(&ctx, readings.as_ref().ok())).await.is_none();
        metrics::tick(started.elapsed(), started.saturating_duration_since(due));
        if stopped {
            return;
        }
    }
}

/// Runs one tick, with a reading or without one.
async fn tick(ctx: &Arc<Context>, readings: Option<&QueueReadings>) {
    if !ctx.leadership.is_held() {
        return;
    }
    let mut objects = ctx.integrations.state();
    // The workers of a namespace go to its oldest Integrations first.
    objects.sort_unstable_by(|one, other| age(one.meta()).cmp(&age(other.meta())));
    let mut budget = WorkerBudget::new(ctx.settings.namespace_limits.workers);
    let mut ready = 0;
    let mut changes = Vec::new();
    for object in &objects {
        let Ok(integration) = &object.0 else { continue };
        ready += usize::from(is_ready(integration));
        let Some(deployment) = ctx.cached_deployment(&worker_deployment(integration_id(integration))) else {
            continue;
        };
        if scaler_owns_replicas(&deployment) {
            changes.extend(decide(ctx, object, integration, &deployment, readings, &mut budget));
        }
    }
    metrics::objects(objects.len(), ready, ctx.memory.in_backoff());
    let maintained = OptionFuture::from(readings.map(|readings| queues::maintain(ctx, &objects, readings)));
    let applied = futures::stream::iter(changes).for_each_concurrent(CONCURRENCY, |change| {
        let ctx = Arc::clone(ctx);
        async move { change.apply(&ctx).await }
    });
    join(maintained, applied).await;
}

fn is_ready(integration: &Integration) -> bool {
    let status = integration.status.as_ref();
    let ready = status.and_then(|status| conditions::find(&status.conditions, conditions::condition::READY));
    ready.is_some_and(|ready| ready.status == conditions::TRUE)
}

/// A change of the number of workers of one Integration.
struct ReplicaChange {
    object: Arc<WatchedObject>,
    deployment: String,
    id: IntegrationId,
    from: i32,
    to: i32,
    reason: &'static str,
    message: String,
}

/// Decides for one Integration, and returns the change to apply, if any.
fn decide(
    ctx: &Context,
    object: &Arc<WatchedObject>,
    integration: &Integration,
    deployment: &Deployment,
    readings: Option<&QueueReadings>,
    budget: &mut WorkerBudget,
) -> Option<ReplicaChange> {
    let id = integration_id(integration);
    let backlog_of = |destinations: &[&str]| {
        readings.and_then(|readings| total_backlog(readings.get(&id), destinations.iter().copied()))
    };
    let all: Vec<&str> =
        integration.spec.destinations.iter().map(|destination| destination.name.as_str()).collect();
    let (backlog, of_all) = (backlog_of(&served(ctx, id, integration)), backlog_of(&all));
    let from = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let namespace = integration.namespace_or_default();
    let platform_max = ctx.settings.max_workers.min(budget.left(&namespace));
    let (decision, condition_changed) = ctx.memory.with(id, |memory| {
        let state = std::mem::take(&mut memory.scaling);
        let evaluation = evaluate(integration, from, backlog, platform_max, state, ctx.now());
        memory.scaling = evaluation.state;
        memory.copy.backlog = of_all.map(|backlog| i64::try_from(backlog.load()).unwrap_or(i64::MAX));
        (evaluation.decision, evaluation.condition_changed)
    });
    budget.take(&namespace, decision.replicas);
    let label = id.to_string();
    if let Some(backlog) = of_all {
        metrics::backlog(&label, backlog);
    }
    metrics::replicas(&label, decision.replicas, from);
    if condition_changed {
        ctx.trigger(object_ref(object));
    }
    (decision.replicas != from).then(|| ReplicaChange {
        object: Arc::clone(object),
        deployment: worker_deployment(id),
        id,
        from,
        to: decision.replicas,
        reason: reason_of_change(integration, from, decision.replicas),
        message: decision.message,
    })
}

/// Returns the destinations that workers deliver to. Messages for the others wait for something else, whatever workers there are: those for a
/// Service until it has a ready pod, those for a destination that is gone until the spec changes.
fn served<'a>(ctx: &Context, id: IntegrationId, integration: &'a Integration) -> Vec<&'a str> {
    let gone = ctx.memory.with(id, |memory| memory.secrets.as_ref().map(|found| found.gone.clone()));
    let gone = gone.unwrap_or_default();
    let services = services_of(integration);
    let namespace = integration.namespace_or_default();
    // What is not known yet is counted.
    let resolved = (!services.is_empty())
        .then(|| ctx.services.get(&namespace).filter(ServiceCaches::are_filled))
        .flatten()
        .map(|caches| ctx.services.resolve(&caches, &namespace, &services).endpoints);
    let has_receiver = |destination: &Destination| match (&destination.service, &resolved) {
        (Some(service), Some(endpoints)) => !endpoints.to_dial(&service.into()).is_empty(),
        _ => true,
    };
    let destinations = integration.spec.destinations.iter();
    let is_served =
        |destination: &&Destination| has_receiver(destination) && !gone.contains(&destination.name);
    destinations.filter(is_served).map(|destination| destination.name.as_str()).collect()
}

impl ReplicaChange {
    async fn apply(self, ctx: &Context) {
        if let Err(error) = set_replicas(ctx, &self.deployment, self.to).await {
            tracing::warn!(integration.id = %self.id, error = %chain(&error), "cannot scale workers");
            return;
        }
        tracing::info!(
            integration.id = %self.id, from = self.from, to = self.to, reason = self.reason, "scaled: {}", self.message
        );
        metrics::scaled(self.reason);
        let now = ctx.now();
        ctx.memory.with(self.id, |memory| {
            memory.scaling.history.record_change(now, self.from, self.to);
            memory.scaling.last_change = Some(ScalingDecision {
                time: Time(whole_seconds(Timestamp::now())),
                from: self.from,
                to: self.to,
                reason: self.reason.to_owned(),
                message: self.message,
            });
        });
        ctx.trigger(object_ref(&self.object));
    }
}
