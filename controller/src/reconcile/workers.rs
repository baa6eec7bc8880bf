//! Makes the worker Deployment what it should be, without ever starting a worker that nobody asked for.
//!
//! Two field managers share it: this step owns everything but `spec.replicas`, the scaler owns that alone, through the
//! scale subresource. A Deployment that is created without a number gets one pod from the API server, so a new one is
//! applied with zero, the scaler takes the number over, and from then on it is left out. `managedFields` tells how far
//! that went, so it is finished after a crash at any point.

use std::hash::{DefaultHasher, Hash, Hasher};

use grapnel_crds::conditions::reason;
use grapnel_crds::{Integration, IntegrationState, ScalingMode, names};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::context::{CallError, Context, MANAGER};
use crate::scale::apply::{self as scale, SCALER};
use crate::status::{Problem, Step, Workers};
use crate::worker_deployment::worker_deployment;

/// Applies what differs, and tells what the Deployment reports.
pub async fn apply_workers(ctx: &Context, integration: &Integration) -> Result<Workers, CallError> {
    let name = names::worker_deployment(integration.id());
    let live = match ctx.cached_deployment(&name) {
        Some(cached) => Some(cached.as_ref().clone()),
        // The cache may be behind a Deployment that was just made.
        None => ctx.api(ctx.deployments_api().get_opt(&name)).await?,
    };
    match bring_about(ctx, integration, &name, live).await {
        Ok(live) => Ok(observe(ctx, integration, &live)),
        Err(error) => match refusal(&error) {
            Some(message) => Ok(Workers {
                deployment: Step::Failed(Problem::stalled(reason::DEPLOYMENT_REJECTED, message)),
                ..Workers::default()
            }),
            None => Err(error),
        },
    }
}

async fn bring_about(
    ctx: &Context,
    integration: &Integration,
    name: &str,
    live: Option<Deployment>,
) -> Result<Deployment, CallError> {
    let mut wanted =
        json_of(&worker_deployment(integration, &ctx.settings.namespace, &ctx.settings.worker_pod));
    wanted["metadata"]["annotations"][SHAPE] = json!(shape(&wanted));
    let scaled = live.as_ref().is_some_and(scaler_owns_replicas);
    if let Some(live) = live.as_ref().filter(|live| scaled && contains(&json_of(live), &wanted)) {
        return Ok(live.clone());
    }
    if live.is_none() {
        return create(ctx, integration, name, wanted).await;
    }
    if !scaled {
        scale::apply(ctx, name, initial_replicas(ctx, integration, live.as_ref())).await?;
    }
    apply(ctx, name, &wanted).await
}

/// The next time that something is applied, it is applied without a number, and the number is the scaler's alone.
async fn create(
    ctx: &Context,
    integration: &Integration,
    name: &str,
    mut wanted: Value,
) -> Result<Deployment, CallError> {
    wanted["spec"]["replicas"] = json!(0);
    let mut created = apply(ctx, name, &wanted).await?;
    let replicas = initial_replicas(ctx, integration, None);
    scale::apply(ctx, name, replicas).await?;
    if let Some(spec) = &mut created.spec {
        spec.replicas = Some(replicas);
    }
    Ok(created)
}

/// Annotation of what was applied: something that is not wanted any more differs by nothing else.
const SHAPE: &str = "grapnel.dev/shape";

fn shape(wanted: &Value) -> String {
    hex::encode(&Sha256::digest(wanted.to_string())[..8])
}

async fn apply(ctx: &Context, name: &str, deployment: &Value) -> Result<Deployment, CallError> {
    ctx.leading()?;
    let parameters = PatchParams::apply(MANAGER).force();
    ctx.api(ctx.deployments_api().patch(name, &parameters, &Patch::Apply(deployment))).await
}

fn json_of(deployment: &Deployment) -> Value {
    serde_json::to_value(deployment).expect("a Deployment has only string keys")
}

/// The number that a Deployment starts with: what the scaler decided before, or what is there, or the least.
fn initial_replicas(ctx: &Context, integration: &Integration, live: Option<&Deployment>) -> i32 {
    if let Some(decision) = ctx.with_memory(integration.id(), |memory| memory.scale.decision.clone()) {
        return decision.replicas;
    }
    let there = live.and_then(|live| live.spec.as_ref()?.replicas);
    there.unwrap_or_else(|| least_replicas(integration, ctx.settings.max_workers))
}

/// The number of workers without any reading of the backlog.
pub fn least_replicas(integration: &Integration, platform_max: i32) -> i32 {
    let workers = &integration.spec.workers;
    match (integration.spec.state, workers.scaling.mode) {
        (IntegrationState::DeliveryPaused | IntegrationState::Disabled, _) => 0,
        (_, ScalingMode::Auto) => workers.scaling.min_replicas.min(platform_max),
        (_, ScalingMode::Manual | ScalingMode::External) => workers.replicas.min(platform_max),
    }
}

/// Whether the number of workers belongs to the scaler.
pub fn scaler_owns_replicas(deployment: &Deployment) -> bool {
    deployment.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(SCALER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:replicas"].is_null())
    })
}

/// Whether everything that is wanted is there. What the API server or others have added does not count, and quantities
/// are compared by what they mean to the API server, which writes them in its own form.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| match live.get(name) {
                Some(_) if name == "requests" || name == "limits" => same_names(live.get(name), value),
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

fn same_names(live: Option<&Value>, wanted: &Value) -> bool {
    let (Some(live), Some(wanted)) = (live.and_then(Value::as_object), wanted.as_object()) else {
        return false;
    };
    live.len() == wanted.len()
        && wanted
            .iter()
            .all(|(name, quantity)| live.get(name).is_some_and(|live| same_quantity(live, quantity)))
}

/// Two spellings of one quantity: "1000m" and "1", "1024Mi" and "1Gi".
fn same_quantity(one: &Value, other: &Value) -> bool {
    match (one.as_str(), other.as_str()) {
        (Some(one), Some(other)) => grapnel_crds::resources::same_quantity(one, other),
        _ => one == other,
    }
}

/// The API server's answer, when trying again would not change it.
fn refusal(error: &CallError) -> Option<String> {
    match error {
        CallError::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 404 | 422) => {
            Some(status.message.clone())
        }
        _ => None,
    }
}

/// What the Deployment of the cache reports, without having looked after it.
pub fn observe_cached(ctx: &Context, integration: &Integration) -> Workers {
    match ctx.cached_deployment(&names::worker_deployment(integration.id())) {
        Some(live) => Workers { deployment: Step::Untried, ..observe(ctx, integration, &live) },
        None => Workers::default(),
    }
}

fn observe(ctx: &Context, integration: &Integration, live: &Deployment) -> Workers {
    let wanted = live.spec.as_ref().and_then(|spec| spec.replicas);
    let status = live.status.clone().unwrap_or_default();
    Workers {
        deployment: Step::Done,
        wanted: wanted.unwrap_or_else(|| least_replicas(integration, ctx.settings.max_workers)),
        replicas: status.replicas.unwrap_or_default(),
        ready: status.ready_replicas.unwrap_or_default(),
        failing: failing(live),
    }
}

/// What Kubernetes says about workers that do not become ready.
fn failing(live: &Deployment) -> Option<String> {
    let conditions = live.status.as_ref()?.conditions.as_ref()?;
    let failing = conditions.iter().find(|condition| {
        (condition.type_ == "ReplicaFailure" && condition.status == "True")
            || (condition.type_ == "Progressing" && condition.status == "False")
    })?;
    Some(failing.message.clone().unwrap_or_default())
}

/// A number that changes with everything of a Deployment that a pass looks at.
pub fn looked_at(deployment: &Deployment) -> u64 {
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

/// Kubernetes' own count of the pod templates of a Deployment.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The label selector of the worker Deployments of all Integrations.
pub fn selector() -> String {
    format!(
        "app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/component=worker,{}",
        names::INTEGRATION_ID_LABEL
    )
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
    fn what_kubernetes_notes_in_a_deployment_is_no_news() {
        let deployment =
            |spec_generation: i64, replicas: i32, annotations: Value, conditions: Value| -> u64 {
                let deployment = json!({
                    "metadata": {"name": "w", "generation": spec_generation, "annotations": annotations},
                    "status": {"observedGeneration": 1, "replicas": replicas, "conditions": conditions},
                });
                looked_at(&serde_json::from_value(deployment).unwrap())
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

    #[test]
    fn the_number_is_the_scalers_once_it_applied_it() {
        let managed_by = |manager: &str, operation: &str, fields: Value| -> Deployment {
            serde_json::from_value(json!({"metadata": {"managedFields": [
                {"manager": manager, "operation": operation, "subresource": "scale", "fieldsV1": fields},
            ]}}))
            .unwrap()
        };
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        assert!(scaler_owns_replicas(&managed_by(SCALER, "Apply", replicas.clone())));
        assert!(!scaler_owns_replicas(&managed_by("kubectl", "Update", replicas)));
        assert!(!scaler_owns_replicas(&managed_by(SCALER, "Apply", json!({"f:spec": {}}))));
    }
}
