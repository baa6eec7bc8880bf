//! Sets the number of workers through the scale subresource of their Deployment, as a field manager of its own, so that
//! neither the step that applies the Deployment nor a tool that does interferes.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::Context;
use crate::error::CallError;

/// The field manager of `spec.replicas`.
pub const SCALER: &str = "grapnel-scaler";

/// Sets `spec.replicas` of a worker Deployment.
pub async fn set_replicas(ctx: &Context, deployment: &str, replicas: i32) -> Result<Scale, CallError> {
    ctx.ensure_leading()?;
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": deployment, "namespace": ctx.settings.namespace},
        "spec": {"replicas": replicas},
    });
    let parameters = PatchParams::apply(SCALER).force();
    ctx.api(ctx.deployments_api().patch_scale(deployment, &parameters, &Patch::Apply(&scale))).await
}

/// Returns whether the scaler owns the number of workers.
pub fn scaler_owns_replicas(deployment: &Deployment) -> bool {
    deployment.managed_fields().iter().any(|entry| {
        entry.manager.as_deref() == Some(SCALER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.fields_v1.as_ref().is_some_and(|fields| !fields.0["f:spec"]["f:replicas"].is_null())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_scaler_owns_the_number_once_it_has_applied_it() {
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
