//! The tick: reads all queues once, decides for every Integration, and applies what changed.
//!
//! A tick never waits for an object: what cannot be applied now is decided again at the next. It also keeps the queues
//! in order, because it sees all of them: one that is gone is declared again, one whose destination was removed is
//! deleted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use grapnel_crds::names::{queue_name, worker_deployment};
use grapnel_crds::{Integration, ScalingDecision, conditions};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::apply::apply;
use super::consider::{consider, reason_of_change};
use super::readings::{Management, Readings, total};
use crate::apply_workers::scaler_owns_replicas;
use crate::context::{Context, Watched};
use crate::metrics;
use crate::reconcile::object_ref;
use crate::status::whole_seconds;

const TICK: Duration = Duration::from_secs(5);

/// Writes that a tick has under way at the same time.
const CONCURRENCY: usize = 16;

/// Runs until told to stop.
pub async fn run(ctx: Arc<Context>, management: Management, stop: CancellationToken) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_readable = true;
    loop {
        let due = tokio::select! {
            () = stop.cancelled() => return,
            due = ticks.tick() => due,
        };
        let started = Instant::now();
        let readings = management.read(&ctx.settings.queue_prefix).await;
        if let Err(error) = &readings {
            metrics::backlog_unreadable();
            if was_readable {
                tracing::warn!(error = %grapnel::telemetry::chain(&**error), "the backlog cannot be read");
            }
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

/// One tick with a reading, or without one.
async fn tick(ctx: &Arc<Context>, readings: Option<&Readings>) {
    if !ctx.lead.is_held() {
        return;
    }
    let objects = ctx.integrations.state();
    let mut ready = 0;
    let mut work = Vec::new();
    for object in &objects {
        let Ok(integration) = &object.0 else { continue };
        ready += usize::from(is_ready(integration));
        if let Some(readings) = readings {
            mind_queues(ctx, object, integration, readings);
        }
        let Some(deployment) = ctx.cached_deployment(&worker_deployment(integration.id())) else { continue };
        if scaler_owns_replicas(&deployment) {
            work.extend(change(ctx, object, integration, &deployment, readings));
        }
    }
    metrics::objects(objects.len(), ready, ctx.in_backoff());
    let leftover = readings.map(|readings| leftover_queues(ctx, &objects, readings)).unwrap_or_default();
    let applied = futures::stream::iter(work).for_each_concurrent(CONCURRENCY, |change| {
        let ctx = Arc::clone(ctx);
        async move { change.apply(&ctx).await }
    });
    futures::future::join(applied, delete_queues(ctx, leftover)).await;
}

fn is_ready(integration: &Integration) -> bool {
    let status = integration.status.as_ref();
    let ready = status.and_then(|status| conditions::find(&status.conditions, conditions::condition::READY));
    ready.is_some_and(|ready| ready.status == conditions::TRUE)
}

struct Change {
    object: Arc<Watched>,
    deployment: String,
    id: uuid::Uuid,
    from: i32,
    to: i32,
    reason: &'static str,
    message: String,
}

/// What is to be changed for an Integration, if anything.
fn change(
    ctx: &Context,
    object: &Arc<Watched>,
    integration: &Integration,
    deployment: &Deployment,
    readings: Option<&Readings>,
) -> Option<Change> {
    let id = integration.id();
    let destinations = integration.spec.destinations.iter().map(|destination| destination.name.as_str());
    let backlog = readings.and_then(|readings| total(readings.get(&id), destinations));
    let from = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let (decision, told) = ctx.with_memory(id, |memory| {
        consider(integration, from, backlog, ctx.settings.max_workers, &mut memory.scale, ctx.now())
    });
    let label = id.to_string();
    if let Some(backlog) = backlog {
        metrics::backlog(&label, backlog.ready, backlog.unacknowledged);
    }
    metrics::replicas(&label, decision.replicas, from);
    if told {
        ctx.trigger(object_ref(object));
    }
    (decision.replicas != from).then(|| Change {
        object: Arc::clone(object),
        deployment: worker_deployment(id),
        id,
        from,
        to: decision.replicas,
        reason: reason_of_change(integration, from, decision.replicas),
        message: decision.message,
    })
}

impl Change {
    async fn apply(self, ctx: &Context) {
        if let Err(error) = apply(ctx, &self.deployment, self.to).await {
            tracing::warn!(
                integration.id = %self.id, error = %grapnel::telemetry::chain(&error), "workers cannot be scaled"
            );
            return;
        }
        tracing::info!(
            integration.id = %self.id, from = self.from, to = self.to, reason = self.reason, "scaled: {}", self.message
        );
        metrics::scaled(self.reason);
        let now = ctx.now();
        ctx.with_memory(self.id, |memory| {
            memory.scale.history.scaled(now, self.from, self.to);
            memory.scale.last_change = Some(ScalingDecision {
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

/// Has a queue declared again that was there and is gone.
fn mind_queues(ctx: &Context, object: &Watched, integration: &Integration, readings: &Readings) {
    let (id, prefix) = (integration.id(), &ctx.settings.queue_prefix);
    let seen = readings.get(&id);
    let gone = ctx.with_memory(id, |memory| {
        let before = memory.declared.len();
        let is_seen = |name: &String| {
            seen.is_some_and(|seen| {
                seen.keys().any(|destination| queue_name(prefix, id, destination) == *name)
            })
        };
        memory.declared.retain(is_seen);
        memory.declared.len() < before
    });
    if gone {
        ctx.trigger(object_ref(object));
    }
}

/// The queues of destinations that an Integration no longer has. The row says so first: until it does, the api goes on
/// publishing to them.
fn leftover_queues(ctx: &Context, objects: &[Arc<Watched>], readings: &Readings) -> Vec<String> {
    let mut leftover = Vec::new();
    for integration in objects.iter().filter_map(|object| object.0.as_ref().ok()) {
        let id = integration.id();
        let Some(queues) = readings.get(&id) else { continue };
        let registered = ctx.with_memory(id, |memory| memory.registered.and_then(|row| row.generation));
        if registered.is_none() || registered != integration.metadata.generation {
            continue;
        }
        let removed = queues.keys().filter(|name| integration.spec.destination(name).is_none());
        leftover.extend(removed.map(|name| queue_name(&ctx.settings.queue_prefix, id, name)));
    }
    leftover
}

async fn delete_queues(ctx: &Context, queues: Vec<String>) {
    for queue in queues {
        if !ctx.lead.is_held() {
            return;
        }
        match ctx.link.delete_queue(&queue).await {
            Ok(()) => tracing::info!(queue, "deleted the queue of a removed destination"),
            Err(error) => {
                tracing::warn!(queue, error = %grapnel::telemetry::chain(&error), "a queue cannot be deleted");
                return;
            }
        }
    }
}
