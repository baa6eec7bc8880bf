//! One pass over one Integration: put a captured secret into its Secret → find the addresses of its Services → validate → register
//! (resolve Secrets, claim the route, write the row) → declare queues → apply the worker Deployment → report.
//!
//! Invariants: a pass may end anywhere and be repeated from the beginning; it writes only what differs; a step
//! that fails leaves the results of earlier passes in place, so webhooks continue under the last good settings.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::resolved_provider;
use grapnel_crds::conditions::reason;
use grapnel_crds::{FieldError, Integration, IntegrationSpec};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use tokio::time::{Instant, timeout};

use crate::api::ensure_finalizer;
use crate::context::Context;
use crate::error::CallError;
use crate::namespace_limits::is_within;
use crate::object::{WatchedObject, id_of, integration_id, object_ref};
use crate::replicas::{expected_condition, initial_condition, least_replicas};
use crate::report::observation::{CaptureStatus, Observation, ObservedScaling, StepProblem, StepStatus};
use crate::report::{note_reported, report, with_newest_status};
use crate::worker_policy::restriction_message;
use crate::{backoff, metrics, queues};

pub mod captured_secrets;
pub mod services;
pub mod register;
pub mod secrets;
pub mod workers;
pub mod worker_deployment;
pub mod undecodable;
pub mod cleanup;

/// A pass takes milliseconds; this ends one that every backend delays as long as it can.
const PASS_DEADLINE: Duration = Duration::from_secs(60);

/// How often an object is reconciled without a trigger, so that a lost notification only causes a delay.
pub const RESYNC: Duration = Duration::from_secs(600);

/// How often a captured secret is retried if its Secret could not be written.
const CAPTURE_RETRY: Duration = Duration::from_secs(30);

/// How often an object asks for a place in its namespace. The deletion of another one triggers it earlier, unless the cache
/// still has that one.
const PLACE_RETRY: Duration = Duration::from_secs(60);

/// Whether the steps after this one may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    Continue,
    /// The condition of this step says why not.
    Blocked,
}

/// Reconciles an object and returns when to do so again.
pub async fn reconcile(object: Arc<WatchedObject>, ctx: Arc<Context>) -> Result<Action, CallError> {
    let started = Instant::now();
    let outcome = match timeout(PASS_DEADLINE, pass(&object, &ctx)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(CallError::TimedOut("a pass")),
    };
    metrics::reconciled(started.elapsed(), outcome.as_ref().err());
    outcome
}

/// Returns when a failed object is retried.
pub fn after_error(object: Arc<WatchedObject>, error: &CallError, ctx: Arc<Context>) -> Action {
    if matches!(error, CallError::NotLeading) {
        return Action::await_change();
    }
    tracing::warn!(integration = %object_ref(&object), error = %chain(error), "reconciling failed");
    let failures = ctx.memory.with(id_of(&object), |memory| memory.pass.fail());
    // A deletion that waits for a backend continues soon after the backend is back.
    let is_deleted = object.meta().deletion_timestamp.is_some();
    let longest = if is_deleted { backoff::LONGEST_OF_DELETIONS } else { backoff::LONGEST };
    Action::requeue(backoff::delay(failures, rand::random()).min(longest))
}

async fn pass(object: &WatchedObject, ctx: &Context) -> Result<Action, CallError> {
    ctx.ensure_leading()?;
    let id = id_of(object);
    ctx.memory.with(id, |memory| memory.pass.begin(object.resource_version()));
    if object.meta().deletion_timestamp.is_some() {
        return cleanup::clean_up(ctx, object).await;
    }
    let integration = match &object.0 {
        Ok(integration) => with_newest_status(ctx, integration),
        Err(invalid) => {
            let conditions = &undecodable::OF_INTEGRATION;
            let status =
                undecodable::report_undecodable::<Integration>(ctx, object, invalid, conditions).await?;
            if let Some(status) = status.and_then(|status| serde_json::from_value(status).ok()) {
                note_reported(ctx, id, &status);
            }
            return Ok(undecodable::next_look());
        }
    };
    let integration = ensure_finalizer(ctx, integration).await?;
    let mut observed = observe(ctx, &integration);
    let outcome = run_steps(ctx, &integration, &mut observed).await;
    report(ctx, &integration, &observed).await?;
    outcome?;
    ctx.memory.with(id, |memory| memory.pass.succeed());
    Ok(Action::requeue(backoff::jittered(next_pass(&observed), rand::random())))
}

/// Runs the steps in order. Their outcomes are in `observed`, even after an error, which causes a retry of the pass.
async fn run_steps(
    ctx: &Context,
    integration: &Integration,
    observed: &mut Observation,
) -> Result<(), CallError> {
    let captured = captured_secrets::settle(ctx, integration, observed).await;
    let built = build(ctx, integration, observed).await;
    built.and(captured)
}

/// Runs the steps that build on each other. Workers do not need the queues to be declared.
async fn build(
    ctx: &Context,
    integration: &Integration,
    observed: &mut Observation,
) -> Result<(), CallError> {
    // A Service without addresses concerns its own destinations, and blocks nothing.
    let endpoints = services::resolve_services(ctx, integration, observed).await;
    if validate(ctx, integration, observed) == StepOutcome::Blocked {
        return Ok(());
    }
    if register::register(ctx, integration, endpoints.as_ref(), observed).await? == StepOutcome::Blocked {
        return Ok(());
    }
    let declared = declare_queues(ctx, integration, observed).await;
    workers::apply_workers(ctx, integration, observed).await?;
    declared
}

/// Checks the spec against the rules of this version, and whether its namespace has a place for it. An object that was
/// registered before stays registered as it was.
fn validate(ctx: &Context, integration: &Integration, observed: &mut Observation) -> StepOutcome {
    let errors = integration.validate();
    if !errors.is_empty() {
        observed.accepted = StepStatus::Failed(rejection(integration, &errors));
        return StepOutcome::Blocked;
    }
    if !has_place(ctx, integration) {
        let message = format!(
            "the platform allows {} Integrations in a namespace, and this one has as many that are older",
            ctx.settings.namespace_limits.integrations
        );
        observed.accepted =
            StepStatus::Failed(StepProblem::stalled(reason::NAMESPACE_LIMIT_REACHED, message));
        return StepOutcome::Blocked;
    }
    observed.accepted = StepStatus::Done;
    observed.restricted = restriction_message(&restricted_fields(ctx, &integration.spec));
    observed.warning = resolved_provider::warning(&integration.spec);
    StepOutcome::Continue
}

/// Returns the fields that have no effect, or less than they ask for.
fn restricted_fields(ctx: &Context, spec: &IntegrationSpec) -> Vec<String> {
    let (longest, permitted) = (ctx.settings.max_retention_days, &ctx.settings.worker_pod.permitted);
    let mut restricted = permitted.permit(&spec.workers).restricted;
    if spec.retention.days > longest {
        restricted.push(format!("spec.retention.days (at most {longest})"));
    }
    restricted
}

/// Returns whether an object is among the oldest of its namespace that the platform allows.
fn has_place(ctx: &Context, integration: &Integration) -> bool {
    let limit = ctx.settings.namespace_limits.integrations;
    if ctx.integrations.len() <= limit {
        return true;
    }
    let all = ctx.integrations.state();
    is_within(&integration.metadata, all.iter().map(|object| object.meta()), limit)
}

async fn declare_queues(
    ctx: &Context,
    integration: &Integration,
    observed: &mut Observation,
) -> Result<(), CallError> {
    observed.queues = queues::declare(ctx, integration).await;
    match &observed.queues {
        StepStatus::Failed(problem) if problem.is_transient() => Err(CallError::Unavailable("RabbitMQ")),
        _ => Ok(()),
    }
}

/// Returns the problem to report. The API server rejects most of these errors itself, unless its resource definition is
/// newer.
fn rejection(integration: &Integration, errors: &[FieldError]) -> StepProblem {
    let message = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let unknown = resolved_provider::unknown_provider(&integration.spec).is_some();
    StepProblem::stalled(if unknown { reason::UNSUPPORTED_PROVIDER } else { reason::INVALID_SPEC }, message)
}

/// Collects what is known before the steps run.
fn observe(ctx: &Context, integration: &Integration) -> Observation {
    let is_new = integration.status.as_ref().is_none_or(|status| status.scaling.is_none());
    let least = is_new.then(|| least_replicas(integration, ctx.settings.max_workers));
    let is_readable = ctx.backlog_is_readable.load(Ordering::Relaxed);
    let workers = workers::observe_cached(ctx, integration);
    ctx.memory.with(integration_id(integration), |memory| {
        let decision = memory.scaling.decision.as_ref();
        let scaling = ObservedScaling {
            condition: memory.scaling.condition.clone().or_else(|| initial_condition(integration)),
            expected: is_readable.then(expected_condition),
            desired: decision.map(|decision| decision.replicas).or(least),
            limited_by: decision.and_then(|decision| decision.limited_by.map(str::to_owned)),
            last_decision: memory.scaling.last_change.clone(),
        };
        let unused_secrets = memory.secrets.as_ref().map(|secrets| secrets.unused.clone());
        let gone = memory.secrets.as_ref().map(|found| found.gone.clone());
        let filter_problems = memory.filter_problems.clone();
        Observation { workers, scaling, unused_secrets, gone, filter_problems, ..Observation::default() }
    })
}

/// Returns the time until the next pass without a trigger. There is no notification when the right to write a Secret is
/// granted.
fn next_pass(observed: &Observation) -> Duration {
    match (&observed.accepted, &observed.capture) {
        (StepStatus::Failed(problem), _) if problem.reason == reason::NAMESPACE_LIMIT_REACHED => PLACE_RETRY,
        (_, CaptureStatus::Pending(problem)) if problem.is_transient() => CAPTURE_RETRY,
        _ => RESYNC,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_preset_that_is_newer_than_the_controller_is_distinguished_from_a_mistake() {
        let reason = |provider: &str, url: &str| {
            let spec = json!({
                "provider": provider, "verification": {"secretRef": {"name": "s"}},
                "destinations": [{"name": "orders", "url": url}],
            });
            let integration = Integration::new("orders", serde_json::from_value(spec).unwrap());
            rejection(&integration, &integration.validate()).reason
        };
        assert_eq!(reason("initech", "https://orders.example"), reason::UNSUPPORTED_PROVIDER);
        assert_eq!(reason("acme", "ftp://orders.example"), reason::INVALID_SPEC);
    }
}
