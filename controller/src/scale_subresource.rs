//! Sets the number of workers, through the scale subresource and as a field manager of its own, so that neither the step
//! that shapes the Deployment nor a tool that applies it interferes.

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::{CallError, Context};

/// The field manager of `spec.replicas`.
pub const SCALER: &str = "grapnel-scaler";

pub async fn apply(ctx: &Context, deployment: &str, replicas: i32) -> Result<Scale, CallError> {
    ctx.leading()?;
    let scale = json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": {"name": deployment, "namespace": ctx.settings.namespace},
        "spec": {"replicas": replicas},
    });
    let parameters = PatchParams::apply(SCALER).force();
    ctx.api(ctx.deployments_api().patch_scale(deployment, &parameters, &Patch::Apply(&scale))).await
}
