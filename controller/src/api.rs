//! Writes to an Integration at the API server: its status and its finalizers.
//!
//! A status is written for one object alone: an object of the same name that came later has another uid. Finalizers are
//! written on the condition that the object has not changed, so none that someone else adds is lost.

use grapnel_crds::Integration;
use grapnel_crds::names::FINALIZER;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;

use crate::context::{Context, MANAGER};
use crate::error::CallError;
use crate::metrics;
use crate::object::WatchedObject;

/// The API of Integrations as JSON, for objects that cannot be decoded.
pub fn dynamic_integrations(ctx: &Context, namespace: &str) -> (Api<DynamicObject>, ApiResource) {
    let resource = ApiResource::erase::<Integration>(&());
    (Api::namespaced_with(ctx.client.clone(), namespace, &resource), resource)
}

/// Applies the status of an object.
pub async fn apply_status(
    ctx: &Context,
    object: &impl ResourceExt,
    status: &(impl Serialize + Sync),
) -> Result<(), CallError> {
    ctx.ensure_leading()?;
    let name = object.name_any();
    let patch = json!({
        "apiVersion": grapnel_crds::API_VERSION,
        "kind": grapnel_crds::KIND,
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let (api, _) = dynamic_integrations(ctx, &object.namespace().unwrap_or_default());
    let parameters = PatchParams::apply(MANAGER).force();
    ctx.api(api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await?;
    metrics::status_written();
    Ok(())
}

/// Adds the finalizer if it is missing, before anything is created that would have to be cleaned up.
pub async fn ensure_finalizer(ctx: &Context, integration: Integration) -> Result<Integration, CallError> {
    if has_finalizer(&integration) {
        return Ok(integration);
    }
    let mut finalizers = integration.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let status = integration.status.clone();
    let mut written = write_finalizers(ctx, &integration, &finalizers).await?;
    written.status = status;
    Ok(written)
}

/// Removes the finalizer. The cache may be behind, so after a conflict the current object is read and tried once more.
pub async fn remove_finalizer(ctx: &Context, object: &WatchedObject) -> Result<(), CallError> {
    let written = match write_finalizers(ctx, object, &other_finalizers(object)).await {
        Err(CallError::Api(kube::Error::Api(status))) if status.is_conflict() => {
            let api = ctx.integrations_api(&object.namespace().unwrap_or_default());
            let current = ctx.api(api.get_metadata_opt(&object.name_any())).await?;
            match current.filter(|current| current.uid() == object.uid()) {
                Some(current) => write_finalizers(ctx, &current, &other_finalizers(&current)).await,
                None => return Ok(()),
            }
        }
        written => written,
    };
    match written {
        Ok(_) => Ok(()),
        Err(CallError::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

pub fn has_finalizer(object: &impl ResourceExt) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

fn other_finalizers(object: &impl ResourceExt) -> Vec<String> {
    object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect()
}

async fn write_finalizers(
    ctx: &Context,
    object: &impl ResourceExt,
    finalizers: &[String],
) -> Result<Integration, CallError> {
    ctx.ensure_leading()?;
    let namespace = object.namespace().unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    let api = ctx.integrations_api(&namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    ctx.api(api.patch(&object.name_any(), &parameters, &Patch::Merge(&patch))).await
}
