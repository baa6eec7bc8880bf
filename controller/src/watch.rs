//! What triggers a reconcile: Integrations themselves, Secrets that they refer to, and their worker Deployments.
//!
//! Secrets are watched as metadata, so no value is kept. Watches end by themselves before a load balancer drops them,
//! come back within seconds after the API server did, and an object that cannot be decoded does not hide the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::select_all;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use grapnel_crds::Integration;
use grapnel_crds::names::{INTEGRATION_NAME_ANNOTATION, INTEGRATION_NAMESPACE_LABEL};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::apply_workers;
use crate::context::{Context, Watched};
use crate::metrics;
use crate::reconcile::{after_error, id_of, reconcile};
use crate::resolve_secrets::refers_to;
use crate::scale::apply::SCALER;

pub mod namespaces;

use self::namespaces::merged;

/// Load balancers drop connections that are silent for some minutes; a watch is renewed before.
const WATCH_SECONDS: u32 = 200;

/// Changes of an object within this time are one. Without it a trigger can overtake the cache, and the object is missed.
const DEBOUNCE: Duration = Duration::from_millis(400);

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

/// The pause before a broken watch is begun again: short, so that changes are seen soon after the API server is back.
#[derive(Debug)]
struct Pause(Duration);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.0;
        self.0 = whole.saturating_mul(2).min(LONGEST_PAUSE);
        Some(whole.mul_f64(0.5 + rand::random::<f64>() / 2.0))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

/// The items of a watch. Its errors are counted and told here, and it goes on.
fn told<T>(
    kind: &'static str,
    stream: impl Stream<Item = Result<T, watcher::Error>>,
) -> impl Stream<Item = T> {
    stream
        .inspect_err(move |error| {
            metrics::watch_failed(kind);
            tracing::warn!(kind, error = %grapnel::telemetry::chain(error), "a watch failed and is begun again");
        })
        .filter_map(async |item| item.ok())
}

/// Waits until a cache has been filled for the first time.
///
/// Of several tasks that wait for one store only the last is woken (kube-runtime 5.0), so this looks now and then.
pub async fn filled<K>(store: &Store<K>)
where
    K: reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    while store.wait_until_ready().now_or_never().is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Reconciles until told to stop, and then ends what is under way.
pub async fn reconcile_all(
    ctx: Arc<Context>,
    writer: Writer<Watched>,
    mut triggers: mpsc::Receiver<ObjectRef<Watched>>,
    concurrency: u16,
    stop: CancellationToken,
) {
    let watches = ctx.settings.watched.apis(&ctx.client).into_iter().map(|api: Api<Watched>| {
        watcher(api, config())
            .modify(|object| object.managed_fields_mut().clear())
            .backoff(Pause(FIRST_PAUSE))
            .boxed()
    });
    let objects = merged(watches.collect()).reflect(writer).applied_objects();
    let objects = told("integrations", objects).map(Ok);
    let triggers = futures::stream::poll_fn(move |task| triggers.poll_recv(task));
    Controller::for_stream(objects, ctx.integrations.clone())
        .with_config(controller::Config::default().debounce(DEBOUNCE).concurrency(concurrency))
        .reconcile_on(triggers)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, after_error, ctx)
        .for_each(async |outcome| {
            // What a reconcile failed with was told by its policy; the rest are objects that were gone already.
            if let Err(error) = outcome {
                tracing::debug!(%error, "reconciling ended with an error");
            }
        })
        .await;
}

/// Triggers the Integrations that refer to a Secret which appeared, changed or went.
pub async fn watch_secrets(
    ctx: Arc<Context>,
    triggers: mpsc::Sender<ObjectRef<Watched>>,
    stop: CancellationToken,
) {
    let apis = ctx.settings.watched.apis::<PartialObjectMeta<Secret>>(&ctx.client).into_iter();
    let watches =
        apis.map(|api| watcher(api, config()).backoff(Pause(FIRST_PAUSE)).touched_objects().boxed());
    let send = told("secrets", select_all(watches)).for_each(|secret| {
        let (ctx, triggers) = (Arc::clone(&ctx), triggers.clone());
        async move { trigger_referring(&ctx, &triggers, &secret).await }
    });
    stop.run_until_cancelled(send).await;
}

async fn trigger_referring(
    ctx: &Context,
    triggers: &mpsc::Sender<ObjectRef<Watched>>,
    secret: &PartialObjectMeta<Secret>,
) {
    let (namespace, name) = (secret.namespace(), secret.name_any());
    let refers = |object: &Watched| {
        object.namespace() == namespace
            && object.0.as_ref().is_ok_and(|integration: &Integration| refers_to(integration, &name))
    };
    for object in ctx.integrations.state_filter(refers) {
        // First, so that a pass which has read the value before is not the last one.
        ctx.with_memory(id_of(&object), |memory| {
            memory.secret_changes = memory.secret_changes.wrapping_add(1);
        });
        if triggers.send(ObjectRef::from_obj(&*object)).await.is_err() {
            return;
        }
    }
}

/// Keeps the cache of worker Deployments, and triggers the Integration of one that changed or went.
pub async fn watch_deployments(
    api: Api<Deployment>,
    writer: Writer<Deployment>,
    triggers: mpsc::Sender<ObjectRef<Watched>>,
    stop: CancellationToken,
) {
    let deployments = watcher(api, config().labels(&apply_workers::selector()))
        // Of the managed fields only those are needed that tell whose the number of workers is.
        .modify(|deployment| {
            deployment.managed_fields_mut().retain(|entry| entry.manager.as_deref() == Some(SCALER));
        })
        .backoff(Pause(FIRST_PAUSE))
        .reflect(writer);
    let mut seen = HashMap::new();
    let changed = told("deployments", deployments).filter_map(|event| {
        let changed = news(&mut seen, event);
        async { changed }
    });
    let send = changed.for_each(|integration| {
        let triggers = triggers.clone();
        async move {
            if triggers.send(integration).await.is_err() {
                tracing::debug!("nobody reconciles any more");
            }
        }
    });
    stop.run_until_cancelled(send).await;
}

/// The Integration of a Deployment that has changed in what a pass looks at. Kubernetes writes more into a Deployment than
/// that, several times for each that is made.
fn news(seen: &mut HashMap<String, u64>, event: Event<Deployment>) -> Option<ObjectRef<Watched>> {
    let (deployment, is_gone) = match event {
        Event::Apply(deployment) | Event::InitApply(deployment) => (deployment, false),
        Event::Delete(deployment) => (deployment, true),
        Event::Init | Event::InitDone => return None,
    };
    let name = deployment.name_any();
    if is_gone {
        seen.remove(&name);
    } else {
        let looked_at = apply_workers::looked_at(&deployment);
        if seen.insert(name, looked_at) == Some(looked_at) {
            return None;
        }
    }
    let namespace = deployment.labels().get(INTEGRATION_NAMESPACE_LABEL)?;
    let name = deployment.annotations().get(INTEGRATION_NAME_ANNOTATION)?;
    Some(ObjectRef::new(name).within(namespace))
}
