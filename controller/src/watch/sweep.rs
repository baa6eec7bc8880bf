//! Finds what no notification showed: objects that were never reconciled, and leftovers of objects that no longer
//! exist.
//!
//! An object can be missed if it is created while the watch is interrupted, and it can be deleted without its cleanup
//! if someone removes its finalizer. Before anything is removed, the API server is asked whether the object really no
//! longer exists: the cache alone may be behind. While the API server does not know the resource, nothing is removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use grapnel_core::error_chain::chain;
use grapnel_core::ids::IntegrationId;
use grapnel_crds::names::{INTEGRATION_ID_LABEL, INTEGRATION_NAME_ANNOTATION, INTEGRATION_NAMESPACE_LABEL};
use grapnel_crds::{Integration, IntegrationSpec};
use grapnel_store::audit::{self, ObjectEnd};
use grapnel_store::integrations as rows;
use grapnel_store::integrations::retire;
use kube::ResourceExt;
use kube::api::Api;
use kube::core::Status;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::Kind;
use crate::context::Context;
use crate::error::CallError;
use crate::object::{id_of, object_ref};
use crate::reconcile::workers::delete_workers;
use crate::{crd_wait, queues};

const INTERVAL: Duration = Duration::from_secs(30);

/// Runs until stopped.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let mut is_installed = true;
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if !ctx.leadership.is_held() {
            continue;
        }
        let check = crd_wait::log_changes(&ctx.client, &ctx.settings.watched, &mut is_installed);
        if stop.run_until_cancelled(check).await.is_none() {
            return;
        }
        trigger_missed(&ctx);
        let Some(removed) = stop.run_until_cancelled(Box::pin(remove_orphans(&ctx))).await else { return };
        if let Err(error) = removed {
            tracing::warn!(error = %chain(&error), "cannot remove leftovers yet");
        }
    }
}

/// Triggers objects whose current version was not reconciled. A status that was just written creates such a version,
/// which then gets one pass.
fn trigger_missed(ctx: &Context) {
    let objects = ctx.integrations.state();
    let ids: BTreeSet<IntegrationId> = objects.iter().map(|object| id_of(object)).collect();
    ctx.memory.retain(&ids);
    for object in &objects {
        let version = object.resource_version();
        if ctx.memory.with(id_of(object), |memory| memory.pass.has_missed(version.as_deref())) {
            ctx.trigger(object_ref(object));
        }
    }
}

async fn remove_orphans(ctx: &Context) -> Result<(), CallError> {
    let known: BTreeSet<IntegrationId> =
        ctx.integrations.state().iter().map(|object| id_of(object)).collect();
    // Namespaces that are not watched are another controller's responsibility.
    let is_missing = |known: &BTreeSet<IntegrationId>, id: IntegrationId, namespace: &str| {
        !known.contains(&id) && ctx.settings.watched.contains(namespace)
    };
    for deployment in ctx.deployments.state() {
        let id = deployment.labels().get(INTEGRATION_ID_LABEL).and_then(|id| id.parse().ok());
        let namespace = deployment.labels().get(INTEGRATION_NAMESPACE_LABEL);
        let name = deployment.annotations().get(INTEGRATION_NAME_ANNOTATION);
        let (Some(id), Some(namespace), Some(name)) = (id, namespace, name) else { continue };
        if is_missing(&known, id, namespace)
            && is_deleted::<Integration>(ctx, id.uuid(), namespace, name).await?
        {
            tracing::warn!(integration.id = %id, "stopping the workers of an object that no longer exists");
            delete_workers(ctx, id).await?;
        }
    }
    for row in ctx.database(retire::live(&ctx.db)).await? {
        if is_missing(&known, row.id, &row.namespace)
            && is_deleted::<Integration>(ctx, row.id.uuid(), &row.namespace, &row.name).await?
        {
            tracing::warn!(integration.id = %row.id, "retiring the row of an object that no longer exists");
            remove_row(ctx, row.id).await?;
        }
    }
    Ok(())
}

/// Returns whether there is no object of this uid any more.
pub async fn is_deleted<K: Kind>(
    ctx: &Context,
    uid: Uuid,
    namespace: &str,
    name: &str,
) -> Result<bool, CallError> {
    let api: Api<K> = ctx.objects_api(namespace);
    match ctx.api(api.get_metadata(name)).await {
        Ok(found) => Ok(found.uid().and_then(|found| found.parse().ok()) != Some(uid)),
        Err(CallError::Api(kube::Error::Api(status))) if status.code == 404 => Ok(is_about(&status, name)),
        Err(error) => Err(error),
    }
}

/// Returns whether a response says that there is no object of that name. The API server answers with the same code if
/// it does not know the resource, and then nothing is known about its objects.
fn is_about(status: &Status, name: &str) -> bool {
    status.details.as_ref().is_some_and(|details| details.name == name)
}

async fn remove_row(ctx: &Context, id: IntegrationId) -> Result<(), CallError> {
    let found = ctx.database(rows::find(&ctx.db, id)).await?;
    let spec: Option<IntegrationSpec> = found.and_then(|found| serde_json::from_str(&found.row.spec).ok());
    queues::delete_all(ctx, id, &spec).await?;
    ctx.database(retire::retire(&ctx.db, id, ctx.leadership.epoch, audit::CONTROLLER, &ObjectEnd::default()))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_object_is_deleted_only_if_the_response_is_about_it() {
        let response = |details: Value| -> Status {
            serde_json::from_value(json!({"code": 404, "details": details})).unwrap()
        };
        assert!(is_about(&response(json!({"name": "orders", "kind": "integrations"})), "orders"));
        // The API server does not know the resource: a text, or a status without a name.
        assert!(!is_about(&response(json!(null)), "orders"));
        assert!(!is_about(&response(json!({})), "orders"));
    }
}
