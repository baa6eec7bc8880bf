//! Applies the worker Deployment, without ever starting a worker that is not needed.
//!
//! Two field managers share it: this step owns everything except `spec.replicas`, which the scaler owns through the
//! scale subresource. A Deployment that is created without a number gets one pod from the API server, so a new one is
//! applied with zero, the scaler takes ownership of the number, and later applies omit it. `managedFields` shows how
//! far this went, so it is completed after a crash at any point.

use std::hash::{DefaultHasher, Hash, Hasher};

use grapnel_core::ids::IntegrationId;
use grapnel_crds::conditions::reason;
use grapnel_crds::{Integration, names, same_quantity};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::worker_deployment::worker_deployment;
use crate::context::{Context, MANAGER};
use crate::error::CallError;
use crate::namespace_limits::room;
use crate::object::integration_id;
use crate::replicas::least_replicas;
use crate::report::observation::{Observation, ObservedWorkers, StepProblem, StepStatus};
use crate::scale_subresource::{scaler_owns_replicas, set_replicas};

/// Annotation with a hash of the applied Deployment: it shows that a field was removed, which differs in nothing else.
const SHAPE: &str = "grapnel.dev/shape";

/// Kubernetes' own count of the pod templates of a Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Applies the Deployment if it differs, and observes it.
pub async fn apply_workers(
    ctx: &Context,
    integration: &Integration,
    observed: &mut Observation,
) -> Result<(), CallError> {
    let name = names::worker_deployment(integration_id(integration));
    let live = match ctx.cached_deployment(&name) {
        Some(cached) => Some(cached.as_ref().clone()),
        // The cache may not have a Deployment yet that was just created.
        None => ctx.api(ctx.deployments_api().get_opt(&name)).await?,
    };
    observed.workers = match reconcile_deployment(ctx, integration, &name, live).await {
        Ok(live) => observe(ctx, integration, &live),
        Err(error) => {
            let Some(message) = rejection(&error) else { return Err(error) };
            let problem = StepProblem::stalled(reason::DEPLOYMENT_REJECTED, message);
            ObservedWorkers { deployment: StepStatus::Failed(problem), ..ObservedWorkers::default() }
        }
    };
    Ok(())
}

/// Observes the Deployment in the cache, without applying it.
pub fn observe_cached(ctx: &Context, integration: &Integration) -> ObservedWorkers {
    match ctx.cached_deployment(&names::worker_deployment(integration_id(integration))) {
        Some(live) => {
            ObservedWorkers { deployment: StepStatus::NotTried, ..observe(ctx, integration, &live) }
        }
        None => ObservedWorkers::default(),
    }
}

/// Deletes the worker Deployment, if there is one.
pub async fn delete_workers(ctx: &Context, id: IntegrationId) -> Result<(), CallError> {
    ctx.ensure_leading()?;
    let name = names::worker_deployment(id);
    match ctx.api(ctx.deployments_api().delete(&name, &DeleteParams::background())).await {
        Ok(_) => Ok(()),
        Err(CallError::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns the label selector of the worker Deployments of all Integrations.
pub fn selector() -> String {
    format!(
        "app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/component=worker,{}",
        names::INTEGRATION_ID_LABEL
    )
}

/// Returns a number that changes with every part of a Deployment that a pass reads.
pub fn fingerprint(deployment: &Deployment) -> u64 {
    let mut hasher = DefaultHasher::new();
    let meta = &deployment.metadata;
    // The generation changes with the spec.
    (&meta.uid, meta.generation, &meta.labels, meta.deletion_timestamp.is_some()).hash(&mut hasher);
    let annotations = meta.annotations.iter().flatten().filter(|(name, _)| *name != REVISION);
    annotations.for_each(|annotation| annotation.hash(&mut hasher));
    let status = deployment.status.as_ref();
    (status.and_then(|status| status.replicas), status.and_then(|status| status.ready_replicas))
        .hash(&mut hasher);
    (failing(deployment), scaler_owns_replicas(deployment)).hash(&mut hasher);
    hasher.finish()
}

async fn reconcile_deployment(
    ctx: &Context,
    integration: &Integration,
    name: &str,
    live: Option<Deployment>,
) -> Result<Deployment, CallError> {
    let mut wanted =
        to_json(&worker_deployment(integration, &ctx.settings.namespace, &ctx.settings.worker_pod));
    wanted["metadata"]["annotations"][SHAPE] = json!(shape(&wanted));
    let is_owned = live.as_ref().is_some_and(scaler_owns_replicas);
    if let Some(live) = live.as_ref().filter(|live| is_owned && contains(&to_json(live), &wanted)) {
        return Ok(live.clone());
    }
    if live.is_none() {
        return create(ctx, integration, name, wanted).await;
    }
    if !is_owned {
        set_replicas(ctx, name, initial_replicas(ctx, integration, live.as_ref())).await?;
    }
    apply(ctx, name, &wanted).await
}

/// Creates the Deployment with zero workers. The next apply omits the number, which then belongs to the scaler alone.
async fn create(
    ctx: &Context,
    integration: &Integration,
    name: &str,
    mut wanted: Value,
) -> Result<Deployment, CallError> {
    wanted["spec"]["replicas"] = json!(0);
    let mut created = apply(ctx, name, &wanted).await?;
    let replicas = initial_replicas(ctx, integration, None);
    set_replicas(ctx, name, replicas).await?;
    if let Some(spec) = &mut created.spec {
        spec.replicas = Some(replicas);
    }
    Ok(created)
}

fn shape(wanted: &Value) -> String {
    hex::encode(&Sha256::digest(wanted.to_string())[..8])
}

async fn apply(ctx: &Context, name: &str, deployment: &Value) -> Result<Deployment, CallError> {
    ctx.ensure_leading()?;
    let parameters = PatchParams::apply(MANAGER).force();
    ctx.api(ctx.deployments_api().patch(name, &parameters, &Patch::Apply(deployment))).await
}

fn to_json(deployment: &Deployment) -> Value {
    serde_json::to_value(deployment).expect("a Deployment has only string keys")
}

/// Returns the number that a Deployment starts with: the scaler's last decision, or the current number, or the least.
fn initial_replicas(ctx: &Context, integration: &Integration, live: Option<&Deployment>) -> i32 {
    if let Some(decision) =
        ctx.memory.with(integration_id(integration), |memory| memory.scaling.decision.clone())
    {
        return decision.replicas;
    }
    let current = live.and_then(|live| live.spec.as_ref()?.replicas);
    current.unwrap_or_else(|| {
        let least = least_replicas(integration, ctx.settings.max_workers);
        if least == 0 {
            return 0;
        }
        let deployments = ctx.deployments.state();
        let deployments = deployments.iter().map(AsRef::as_ref);
        // Several objects may take the same room at once. The scaler puts that right at its next tick.
        least.min(room(
            &integration.namespace_or_default(),
            deployments,
            ctx.settings.namespace_limits.workers,
        ))
    })
}

/// Returns whether everything that is wanted is present. Additions by the API server or others do not count, and
/// quantities are compared by value, because the API server writes them in its own form.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| match live.get(name) {
                Some(_) if name == "requests" || name == "limits" => same_quantities(live.get(name), value),
                Some(live) => contains(live, value),
                None => value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

fn same_quantities(live: Option<&Value>, wanted: &Value) -> bool {
    let (Some(live), Some(wanted)) = (live.and_then(Value::as_object), wanted.as_object()) else {
        return false;
    };
    live.len() == wanted.len()
        && wanted
            .iter()
            .all(|(name, quantity)| live.get(name).is_some_and(|live| is_same_quantity(live, quantity)))
}

/// Returns whether two strings are the same quantity, such as "1000m" and "1", or "1024Mi" and "1Gi".
fn is_same_quantity(one: &Value, other: &Value) -> bool {
    match (one.as_str(), other.as_str()) {
        (Some(one), Some(other)) => same_quantity(one, other),
        _ => one == other,
    }
}

/// Returns the API server's message, if a retry would not change it.
fn rejection(error: &CallError) -> Option<String> {
    match error {
        CallError::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 404 | 422) => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

fn observe(ctx: &Context, integration: &Integration, live: &Deployment) -> ObservedWorkers {
    let wanted = live.spec.as_ref().and_then(|spec| spec.replicas);
    let status = live.status.clone().unwrap_or_default();
    ObservedWorkers {
        deployment: StepStatus::Done,
        wanted: wanted.unwrap_or_else(|| least_replicas(integration, ctx.settings.max_workers)),
        replicas: status.replicas.unwrap_or_default(),
        ready: status.ready_replicas.unwrap_or_default(),
        failing: failing(live),
    }
}

/// Returns the message of Kubernetes about workers that do not become ready.
fn failing(live: &Deployment) -> Option<String> {
    let conditions = live.status.as_ref()?.conditions.as_ref()?;
    let failing = conditions.iter().find(|condition| {
        (condition.type_ == "ReplicaFailure" && condition.status == "True")
            || (condition.type_ == "Progressing" && condition.status == "False")
    })?;
    Some(failing.message.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_add_makes_no_difference() {
        let wanted = json!({"spec": {"a": 1, "list": [{"x": 1}], "resources": {"limits": {"cpu": "1000m"}}}});
        let live = json!({
            "spec": {"a": 1, "b": 2, "list": [{"x": 1, "y": 2}], "resources": {"limits": {"cpu": "1"}}}, "status": {},
        });
        assert!(contains(&live, &wanted));
        for changed in [
            json!({"spec": {"a": 2}}),
            json!({"spec": {"list": [{"x": 1}, {"x": 2}]}}),
            json!({"spec": {"resources": {"limits": {"cpu": "2"}}}}),
            json!({"spec": {"new": true}}),
        ] {
            assert!(!contains(&live, &changed), "{changed}");
        }
    }

    #[test]
    fn kubernetes_own_changes_to_a_deployment_leave_the_fingerprint() {
        let deployment =
            |spec_generation: i64, replicas: i32, annotations: Value, conditions: Value| -> u64 {
                let deployment = json!({
                    "metadata": {"name": "w", "generation": spec_generation, "annotations": annotations},
                    "status": {"observedGeneration": 1, "replicas": replicas, "conditions": conditions},
                });
                fingerprint(&serde_json::from_value(deployment).unwrap())
            };
        let progressing = |status: &str| json!([{"type": "Progressing", "status": status}]);
        let before = deployment(1, 0, json!({}), json!([]));
        assert_eq!(before, deployment(1, 0, json!({REVISION: "1"}), progressing("True")));
        for other in [
            deployment(2, 0, json!({}), json!([])),
            deployment(1, 1, json!({}), json!([])),
            deployment(1, 0, json!({"a": "b"}), json!([])),
            deployment(1, 0, json!({}), progressing("False")),
        ] {
            assert_ne!(before, other);
        }
    }
}
