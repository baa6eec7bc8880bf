//! Triggers reconciles: watches Integrations, the Secrets that they refer to, the Services that they deliver to, and their worker
//! Deployments; a poll of the database and a sweep find what no watch shows.
//!
//! Secrets are watched as metadata, so no value is kept. Watches end by themselves before a load balancer drops them
//! and resume within seconds after the API server is back, and an object that cannot be decoded does not hide the
//! others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::select_all;
use futures::{Stream, StreamExt, TryStreamExt};
use grapnel_core::error_chain::chain;
use grapnel_crds::Integration;
use grapnel_crds::names::{INTEGRATION_NAME_ANNOTATION, INTEGRATION_NAMESPACE_LABEL};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PartialObjectMeta};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::Kind;
use crate::context::Context;
use crate::metrics;
use crate::object::{WatchedObject, id_of, keep_last_manager};
use crate::reconcile::secrets::refers_to;
use crate::reconcile::workers::{fingerprint, selector};
use crate::reconcile::{after_error, reconcile};
use crate::scale_subresource::SCALER;

pub mod merge;
pub mod followed_services;
mod polls;
pub mod verification_secrets;
pub mod filter_errors;
pub mod sweep;

use self::merge::merge_watches;

/// Load balancers drop connections that are silent for some minutes; a watch is renewed earlier.
const WATCH_SECONDS: u32 = 200;

/// Changes of an object within this time cause one pass. Without it a trigger can overtake the cache, and the object is
/// missed.
const DEBOUNCE: Duration = Duration::from_millis(400);

/// The pauses before a failed watch is restarted: short, so that changes are noticed soon after the API server is back.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reconciles until stopped, and then finishes the passes in progress.
pub async fn reconcile_all(
    ctx: Arc<Context>,
    writer: Writer<WatchedObject>,
    mut triggers: mpsc::Receiver<ObjectRef<WatchedObject>>,
    concurrency: u16,
    stop: CancellationToken,
) {
    let objects = watch_objects(&ctx, "integrations", writer);
    let triggers = futures::stream::poll_fn(move |task| triggers.poll_recv(task));
    Controller::for_stream(objects, ctx.integrations.clone())
        .with_config(controller_config(concurrency))
        .reconcile_on(triggers)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, after_error, ctx)
        .for_each(async |outcome| {
            // The error of a failed pass is logged by `after_error`; the rest are objects that no longer exist.
            if let Err(error) = outcome {
                tracing::debug!(%error, "reconciling ended with an error");
            }
        })
        .await;
}

/// Fills the cache of a kind, and returns each object as it changes.
pub fn watch_objects<K: Kind>(
    ctx: &Context,
    kind: &'static str,
    writer: Writer<DeserializeGuard<K>>,
) -> impl Stream<Item = Result<DeserializeGuard<K>, watcher::Error>> + Send + use<K> {
    let watches = ctx.settings.watched.apis(&ctx.client).into_iter().map(|api: Api<DeserializeGuard<K>>| {
        watcher(api, config())
            .modify(|object| keep_last_manager(object.meta_mut()))
            .backoff(WatchBackoff(FIRST_PAUSE))
            .boxed()
    });
    let objects = merge_watches(watches.collect()).reflect(writer).applied_objects();
    without_errors(kind, objects).map(Ok)
}

/// Returns how a controller runs its passes.
pub fn controller_config(concurrency: u16) -> controller::Config {
    controller::Config::default().debounce(DEBOUNCE).concurrency(concurrency)
}

/// Triggers the Integrations that refer to a Secret that was created, changed or deleted.
pub async fn watch_secrets(
    ctx: Arc<Context>,
    triggers: mpsc::Sender<ObjectRef<WatchedObject>>,
    stop: CancellationToken,
) {
    let apis = ctx.settings.watched.apis::<PartialObjectMeta<Secret>>(&ctx.client).into_iter();
    let watches =
        apis.map(|api| watcher(api, config()).backoff(WatchBackoff(FIRST_PAUSE)).touched_objects().boxed());
    let send = without_errors("secrets", select_all(watches)).for_each(|secret| {
        let (ctx, triggers) = (Arc::clone(&ctx), triggers.clone());
        async move { trigger_referring(&ctx, &triggers, &secret).await }
    });
    stop.run_until_cancelled(send).await;
}

async fn trigger_referring(
    ctx: &Context,
    triggers: &mpsc::Sender<ObjectRef<WatchedObject>>,
    secret: &PartialObjectMeta<Secret>,
) {
    let (namespace, name) = (secret.namespace(), secret.name_any());
    let refers = |object: &WatchedObject| {
        object.namespace() == namespace
            && object.0.as_ref().is_ok_and(|integration: &Integration| refers_to(integration, &name))
    };
    for object in ctx.integrations.state_filter(refers) {
        ctx.memory.with(id_of(&object), |memory| memory.registration.note_secret_change());
        if triggers.send(ObjectRef::from_obj(&*object)).await.is_err() {
            return;
        }
    }
}

/// Fills the cache of worker Deployments, and triggers the Integration of one that was changed or deleted.
pub async fn watch_deployments(
    api: Api<Deployment>,
    writer: Writer<Deployment>,
    triggers: mpsc::Sender<ObjectRef<WatchedObject>>,
    stop: CancellationToken,
) {
    let deployments = watcher(api, config().labels(&selector()))
        // Only those managed fields are needed that show who owns the number of workers.
        .modify(|deployment| {
            deployment.managed_fields_mut().retain(|entry| entry.manager.as_deref() == Some(SCALER));
        })
        .backoff(WatchBackoff(FIRST_PAUSE))
        .reflect(writer);
    let mut fingerprints = HashMap::new();
    let changed = without_errors("deployments", deployments).filter_map(|event| {
        let changed = changed_integration(&mut fingerprints, event);
        async { changed }
    });
    let send = changed.for_each(|integration| {
        let triggers = triggers.clone();
        async move {
            if triggers.send(integration).await.is_err() {
                tracing::debug!("the reconciler has stopped");
            }
        }
    });
    stop.run_until_cancelled(send).await;
}

/// Returns the Integration of a Deployment, if anything changed that a pass reads. Kubernetes itself writes more into a
/// Deployment than that, several times for each one that is created.
fn changed_integration(
    fingerprints: &mut HashMap<String, u64>,
    event: Event<Deployment>,
) -> Option<ObjectRef<WatchedObject>> {
    let (deployment, is_deleted) = match event {
        Event::Apply(deployment) | Event::InitApply(deployment) => (deployment, false),
        Event::Delete(deployment) => (deployment, true),
        Event::Init | Event::InitDone => return None,
    };
    let name = deployment.name_any();
    if is_deleted {
        fingerprints.remove(&name);
    } else {
        let current = fingerprint(&deployment);
        if fingerprints.insert(name, current) == Some(current) {
            return None;
        }
    }
    let namespace = deployment.labels().get(INTEGRATION_NAMESPACE_LABEL)?;
    let name = deployment.annotations().get(INTEGRATION_NAME_ANNOTATION)?;
    Some(ObjectRef::new(name).within(namespace))
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// Returns the items of a watch. Errors are counted and logged here, and the watch continues.
fn without_errors<T>(
    kind: &'static str,
    stream: impl Stream<Item = Result<T, watcher::Error>>,
) -> impl Stream<Item = T> {
    stream
        .inspect_err(move |error| {
            metrics::watch_failed(kind);
            tracing::warn!(kind, error = %chain(error), "a watch failed and is restarted");
        })
        .filter_map(async |item| item.ok())
}

/// The backoff of a failed watch: doubling, with jitter.
#[derive(Debug)]
struct WatchBackoff(Duration);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.0;
        self.0 = whole.saturating_mul(2).min(LONGEST_PAUSE);
        Some(whole.mul_f64(0.5 + rand::random::<f64>() / 2.0))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}
