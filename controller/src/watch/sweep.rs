//! Finds what no notification told of: objects that were never reconciled, and what was left by objects that are gone.
//!
//! An object can be missed when it appears while the watch is broken, and an object can go without its cleanup when
//! someone takes its finalizer away. Before anything is removed, the API server is asked whether the object is really
//! gone: the cache alone may be behind. While the API server does not know the resource, nothing is removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use grapnel::store::integrations as rows;
use grapnel::store::retire;
use grapnel_crds::IntegrationSpec;
use grapnel_crds::names::{
    INTEGRATION_ID_LABEL, INTEGRATION_NAME_ANNOTATION, INTEGRATION_NAMESPACE_LABEL, queue_name,
};
use kube::ResourceExt;
use kube::core::Status;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cleanup::stop_workers;
use crate::context::{CallError, Context, MANAGER};
use crate::crd_wait;
use crate::reconcile::{id_of, object_ref};

const EVERY: Duration = Duration::from_secs(30);

/// Runs until told to stop.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let mut resource_is_there = true;
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if !ctx.lead.is_held() {
            continue;
        }
        let look = crd_wait::tell_changes(&ctx.client, &ctx.settings.watched, &mut resource_is_there);
        if stop.run_until_cancelled(look).await.is_none() {
            return;
        }
        trigger_missed(&ctx);
        let Some(removed) = stop.run_until_cancelled(remove_orphans(&ctx)).await else { return };
        if let Err(error) = removed {
            tracing::warn!(error = %grapnel::telemetry::chain(&error), "leftovers cannot be removed yet");
        }
    }
}

/// Triggers objects whose present version was not reconciled. A status that was just written makes such a version, and
/// is looked at once.
fn trigger_missed(ctx: &Context) {
    let objects = ctx.integrations.state();
    let ids: BTreeSet<Uuid> = objects.iter().map(|object| id_of(object)).collect();
    ctx.remember_only(&ids);
    for object in &objects {
        let version = object.resource_version();
        let missed =
            ctx.with_memory(id_of(object), |memory| memory.failures == 0 && memory.reconciled != version);
        if missed {
            ctx.trigger(object_ref(object));
        }
    }
}

async fn remove_orphans(ctx: &Context) -> Result<(), CallError> {
    let known: BTreeSet<Uuid> = ctx.integrations.state().iter().map(|object| id_of(object)).collect();
    // What belongs to namespaces that are not watched is another controller's to judge.
    let is_missing = |known: &BTreeSet<Uuid>, id: Uuid, namespace: &str| {
        !known.contains(&id) && ctx.settings.watched.contains(namespace)
    };
    for deployment in ctx.deployments.state() {
        let id = deployment.labels().get(INTEGRATION_ID_LABEL).and_then(|id| Uuid::parse_str(id).ok());
        let namespace = deployment.labels().get(INTEGRATION_NAMESPACE_LABEL);
        let name = deployment.annotations().get(INTEGRATION_NAME_ANNOTATION);
        let (Some(id), Some(namespace), Some(name)) = (id, namespace, name) else { continue };
        if is_missing(&known, id, namespace) && is_gone(ctx, id, namespace, name).await? {
            tracing::warn!(integration.id = %id, "stopping the workers of an object that is gone");
            stop_workers(ctx, id).await?;
        }
    }
    for row in ctx.database(retire::live(&ctx.pool)).await? {
        if is_missing(&known, row.id, &row.namespace)
            && is_gone(ctx, row.id, &row.namespace, &row.name).await?
        {
            tracing::warn!(integration.id = %row.id, "retiring the row of an object that is gone");
            remove_row(ctx, row.id).await?;
        }
    }
    Ok(())
}

async fn is_gone(ctx: &Context, id: Uuid, namespace: &str, name: &str) -> Result<bool, CallError> {
    let api = ctx.integrations_api(namespace);
    match ctx.api(api.get_metadata(name)).await {
        Ok(found) => Ok(found.uid().and_then(|uid| Uuid::parse_str(&uid).ok()) != Some(id)),
        Err(CallError::Api(kube::Error::Api(status))) if status.code == 404 => Ok(is_about(&status, name)),
        Err(error) => Err(error),
    }
}

/// Whether an answer says that there is no object of that name. The API server answers with the same code when it does not
/// know the resource, and then nothing is known of its objects.
fn is_about(status: &Status, name: &str) -> bool {
    status.details.as_ref().is_some_and(|details| details.name == name)
}

async fn remove_row(ctx: &Context, id: Uuid) -> Result<(), CallError> {
    let found = ctx.database(rows::find(&ctx.pool, id)).await?;
    let spec: Option<IntegrationSpec> = found.and_then(|found| serde_json::from_str(&found.row.spec).ok());
    for destination in spec.iter().flat_map(|spec| &spec.destinations) {
        ctx.leading()?;
        ctx.link.delete_queue(&queue_name(&ctx.settings.queue_prefix, id, &destination.name)).await?;
    }
    ctx.database(retire::retire(&ctx.pool, id, ctx.lead.epoch, MANAGER)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_object_is_gone_only_when_the_answer_is_about_it() {
        let answer = |details: Value| -> Status {
            serde_json::from_value(json!({"code": 404, "details": details})).unwrap()
        };
        assert!(is_about(&answer(json!({"name": "orders", "kind": "integrations"})), "orders"));
        // The API server does not know the resource: a text, or a status without a name.
        assert!(!is_about(&answer(json!(null)), "orders"));
        assert!(!is_about(&answer(json!({})), "orders"));
    }
}
