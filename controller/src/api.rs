//! Writes to an object at the API server: its status and its finalizers.
//!
//! A status is written for one object alone: an object of the same name that came later has another uid. Finalizers are
//! written on the condition that the object has not changed, so none that someone else adds is lost.

use std::fmt::Debug;

use grapnel_crds::names::FINALIZER;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::{Context, MANAGER};
use crate::error::CallError;
use crate::metrics;

/// A kind of objects that the controller reconciles.
pub trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + DeserializeOwned
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// The API of a kind as JSON, for objects that cannot be decoded.
pub fn dynamic_api<K: Kind>(ctx: &Context, namespace: &str) -> (Api<DynamicObject>, ApiResource) {
    let resource = ApiResource::erase::<K>(&());
    (Api::namespaced_with(ctx.client.clone(), namespace, &resource), resource)
}

/// Applies the status of an object of this kind.
pub async fn apply_status<K: Kind>(
    ctx: &Context,
    object: &impl ResourceExt,
    status: &(impl Serialize + Sync),
) -> Result<(), CallError> {
    ctx.ensure_leading()?;
    let name = object.name_any();
    let (api, resource) = dynamic_api::<K>(ctx, &object.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "uid": object.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    ctx.api(api.patch_status(&name, &parameters, &Patch::Apply(&patch))).await?;
    metrics::status_written();
    Ok(())
}

/// Adds the finalizer if it is missing, before anything is created that would have to be cleaned up. Returns the object with its new
/// metadata.
pub async fn ensure_finalizer<K: Kind>(ctx: &Context, mut object: K) -> Result<K, CallError> {
    if has_finalizer(&object) {
        return Ok(object);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let written = write_finalizers::<K>(ctx, &object, &finalizers).await?;
    *object.meta_mut() = written.meta().clone();
    Ok(object)
}

/// Removes the finalizer. The cache may be behind, so after a conflict the current object is read and tried once more.
pub async fn remove_finalizer<K: Kind>(ctx: &Context, object: &impl ResourceExt) -> Result<(), CallError> {
    let written = match write_finalizers::<K>(ctx, object, &other_finalizers(object)).await {
        Err(CallError::Api(kube::Error::Api(status))) if status.is_conflict() => {
            let api: Api<K> = ctx.objects_api(&object.namespace().unwrap_or_default());
            let current = ctx.api(api.get_metadata_opt(&object.name_any())).await?;
            match current.filter(|current| current.uid() == object.uid()) {
                Some(current) => write_finalizers::<K>(ctx, &current, &other_finalizers(&current)).await,
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

async fn write_finalizers<K: Kind>(
    ctx: &Context,
    object: &impl ResourceExt,
    finalizers: &[String],
) -> Result<K, CallError> {
    ctx.ensure_leading()?;
    let namespace = object.namespace().unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    let api: Api<K> = ctx.objects_api(&namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    ctx.api(api.patch(&object.name_any(), &parameters, &Patch::Merge(&patch))).await
}
