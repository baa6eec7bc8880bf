//! Follows the Services that Integrations deliver to: watches the namespaces in which there are any, keeps the addresses in the
//! rows current, and triggers the objects whose condition changes.
//!
//! The addresses of a row are those of the Services that it was registered with, whatever keeps a newer spec from being
//! registered, and also while the object is being deleted: an address that a pod no longer has may be another one's soon.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use grapnel_core::delivery::service_endpoints::ServiceEndpoints;
use grapnel_core::error_chain::chain;
use grapnel_store::integrations::endpoints::{self as rows, StoredEndpoints};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::watcher;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{FIRST_PAUSE, WatchBackoff, config, without_errors};
use crate::context::Context;
use crate::error::CallError;
use crate::memory::ServicesMemory;
use crate::object::{WatchedObject, integration_id, object_ref, wait_until_filled};
use crate::services::pod::WatchedPod;
use crate::services::{ServiceCaches, services_of};

/// How often the rows are compared without a change.
const INTERVAL: Duration = Duration::from_secs(30);

/// How soon a failed comparison is repeated.
const RETRY: Duration = Duration::from_secs(1);

/// Changes within this time are one: a rollout changes many pods.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Runs until stopped.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let follow = async {
        wait_until_filled(&ctx.integrations).await;
        let mut watches = NamespaceWatches::default();
        let mut next_look_up = Instant::now();
        loop {
            let mut wait = INTERVAL;
            if Instant::now() >= next_look_up {
                ctx.services.datastores.look_up().await;
                next_look_up = Instant::now() + INTERVAL;
            }
            if ctx.leadership.is_held()
                && let Err(error) = compare(&ctx, &mut watches).await
            {
                tracing::warn!(error = %chain(&error), "the addresses of Services cannot be written");
                wait = RETRY;
            }
            if timeout(wait, ctx.services.changed.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

async fn compare(ctx: &Arc<Context>, watches: &mut NamespaceWatches) -> Result<(), CallError> {
    let stored = ctx.database(rows::load(&ctx.db)).await;
    let objects = ctx.integrations.state();
    let of_objects = objects.iter().filter_map(|object| {
        let integration = object.0.as_ref().ok()?;
        (!services_of(integration).is_empty()).then(|| integration.namespace_or_default())
    });
    let of_rows = stored.iter().flatten().map(|row| row.namespace.clone());
    let mut wanted: BTreeSet<String> = of_objects.chain(of_rows).collect();
    wanted.retain(|namespace| ctx.settings.watched.contains(namespace));
    watches.follow(ctx, &wanted);
    for object in &objects {
        trigger_if_changed(ctx, object);
    }
    for row in stored? {
        replace_if_changed(ctx, &row).await?;
    }
    Ok(())
}

/// Triggers an object whose condition would be another one now.
fn trigger_if_changed(ctx: &Context, object: &WatchedObject) {
    let Ok(integration) = &object.0 else { return };
    let services = services_of(integration);
    if services.is_empty() || integration.metadata.deletion_timestamp.is_some() {
        return;
    }
    let namespace = integration.namespace_or_default();
    let Some(caches) = filled(ctx, &namespace) else { return };
    let resolved = ctx.services.resolve(&caches, &namespace, &services);
    let current = ServicesMemory::Read(resolved.problem);
    if ctx.memory.with(integration_id(integration), |memory| memory.services != current) {
        ctx.trigger(object_ref(object));
    }
}

/// Writes the addresses of the Services of a row, if they are others than it has.
async fn replace_if_changed(ctx: &Context, row: &StoredEndpoints) -> Result<(), CallError> {
    let Some(caches) = filled(ctx, &row.namespace) else { return Ok(()) };
    let Ok(before) = ServiceEndpoints::parse(&row.endpoints) else {
        // The next pass over its object writes them.
        return Ok(());
    };
    let current = ctx.services.resolve(&caches, &row.namespace, before.services()).endpoints;
    if current == before {
        return Ok(());
    }
    let epoch = ctx.leadership.epoch;
    if ctx.database(rows::replace(&ctx.db, row, &current.to_text(), epoch)).await? {
        tracing::info!(integration.id = %row.id, "the addresses of its Services changed");
    }
    Ok(())
}

fn filled(ctx: &Context, namespace: &str) -> Option<ServiceCaches> {
    ctx.services.get(namespace).filter(ServiceCaches::are_filled)
}

/// The watches of each namespace; they end when its guard is dropped.
#[derive(Default)]
struct NamespaceWatches(HashMap<String, DropGuard>);

impl NamespaceWatches {
    fn follow(&mut self, ctx: &Arc<Context>, wanted: &BTreeSet<String>) {
        self.0.retain(|namespace, _| {
            let is_wanted = wanted.contains(namespace);
            if !is_wanted {
                ctx.services.remove(namespace);
            }
            is_wanted
        });
        for namespace in wanted {
            if !self.0.contains_key(namespace) {
                self.0.insert(namespace.clone(), start(ctx, namespace));
            }
        }
    }
}

fn start(ctx: &Arc<Context>, namespace: &str) -> DropGuard {
    let (services, services_writer) = reflector::store();
    let (slices, slices_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    ctx.services.insert(namespace, ServiceCaches { services, slices, pods });
    let stop = CancellationToken::new();
    let (ctx, namespace, token) = (Arc::clone(ctx), namespace.to_owned(), stop.clone());
    tokio::spawn(async move {
        let watches = async {
            tokio::join!(
                watch::<Service>(&ctx, &namespace, "services", services_writer, trim),
                watch::<EndpointSlice>(&ctx, &namespace, "endpointslices", slices_writer, trim),
                watch::<WatchedPod>(&ctx, &namespace, "pods", pods_writer, WatchedPod::trim),
            )
        };
        token.run_until_cancelled(Box::pin(watches)).await;
    });
    stop.drop_guard()
}

/// Fills a cache, and notifies of every change in it.
async fn watch<K>(ctx: &Context, namespace: &str, kind: &'static str, writer: Writer<K>, trim: fn(&mut K))
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watcher(Api::<K>::namespaced(ctx.client.clone(), namespace), config())
        .modify(trim)
        .backoff(WatchBackoff(FIRST_PAUSE))
        .reflect(writer);
    let notify = async |_| ctx.services.changed.notify_one();
    without_errors(kind, events).for_each(notify).await;
}

/// Removes what is not needed, to keep the cache small.
fn trim(object: &mut impl ResourceExt) {
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
}
