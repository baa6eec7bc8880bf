//! `grapnel-controller uninstall`: removes what the controller created and a chart therefore cannot remove: the worker
//! Deployments, and the finalizers of Integrations and Replays, which would block their deletion.
//!
//! The controller is stopped first, since it would create everything again. The objects, rows, queues and history stay, and a later installation continues with them. Every step may run twice.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use grapnel_crds::names::FINALIZER;
use grapnel_crds::{Integration, Replay};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::api::Kind;
use crate::context::{API_DEADLINE, MANAGER};
use crate::namespaces::WatchedNamespaces;

/// How long the controller may take to stop; then the uninstallation proceeds anyway.
const STOP_DEADLINE: Duration = Duration::from_secs(45);

/// Between two checks whether the controller has stopped.
const POLL: Duration = Duration::from_millis(500);

/// How many objects are listed at a time.
const PAGE: u32 = 500;

/// How often an object that changes in the meantime is read again.
const PATCH_ATTEMPTS: u32 = 5;

#[derive(Debug, Args)]
pub struct UninstallArgs {
    /// The namespace of the platform. Default: the one that the process runs in
    #[arg(long, env = "GRAPNEL_NAMESPACE")]
    namespace: Option<String>,
    /// Namespaces whose Integrations and Replays are watched, separated by commas. Default: all of the cluster
    #[arg(long, env = "GRAPNEL_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// The Deployment of the controller
    #[arg(long, env = "GRAPNEL_CONTROLLER_DEPLOYMENT")]
    controller_deployment: String,
}

pub async fn uninstall(args: UninstallArgs) -> anyhow::Result<()> {
    let config = Config::infer().await.context("find the API server")?;
    let namespace = args.namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("create a client of the API server")?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    stop_controller(&deployments, &args.controller_deployment).await.context("stop the controller")?;
    delete_workers(&deployments).await.context("delete the workers")?;
    let watched = WatchedNamespaces::new(args.watch_namespaces);
    remove_finalizers::<Integration>(&client, &watched)
        .await
        .context("remove the finalizers of Integrations")?;
    remove_finalizers::<Replay>(&client, &watched).await.context("remove the finalizers of Replays")
}

/// Deletes in the foreground: the Deployment exists until its pods are gone.
async fn stop_controller(deployments: &Api<Deployment>, name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + STOP_DEADLINE;
    match call(deployments.delete(name, &DeleteParams::foreground())).await {
        Err(error) if !is_missing(&error) => return Err(error),
        _ => {}
    }
    while call(deployments.get_metadata_opt(name)).await?.is_some() {
        if Instant::now() > deadline {
            tracing::warn!("the controller has not stopped in time; proceeding anyway");
            break;
        }
        sleep(POLL).await;
    }
    Ok(())
}

async fn delete_workers(deployments: &Api<Deployment>) -> anyhow::Result<()> {
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    for worker in call(deployments.list_metadata(&ours)).await?.items {
        match call(deployments.delete(&worker.name_any(), &DeleteParams::background())).await {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => tracing::info!(deployment = worker.name_any(), "deleted"),
        }
    }
    Ok(())
}

async fn remove_finalizers<K: Kind>(client: &Client, watched: &WatchedNamespaces) -> anyhow::Result<()> {
    for api in watched.apis::<K>(client) {
        remove_finalizers_in(client, &api).await?;
    }
    Ok(())
}

async fn remove_finalizers_in<K: Kind>(client: &Client, api: &Api<K>) -> anyhow::Result<()> {
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let found = match call(api.list_metadata(&page)).await {
            Ok(found) => found,
            // Without the custom resource no object can have a finalizer.
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for object in found.items {
            remove_finalizer::<K>(client, object).await?;
        }
        match found.metadata.continue_ {
            Some(token) if !token.is_empty() => page.continue_token = Some(token),
            _ => return Ok(()),
        }
    }
}

async fn remove_finalizer<K: Kind>(client: &Client, mut object: PartialObjectMeta<K>) -> anyhow::Result<()> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    for _ in 0..PATCH_ATTEMPTS {
        if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let kept: Vec<&String> =
            object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
        // With the version, so that a finalizer that someone else adds at this moment is not lost.
        let patch = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": kept}});
        match call(api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))).await {
            Ok(_) => {
                tracing::info!(kind = %K::kind(&()), namespace, name, "released");
                return Ok(());
            }
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) if has_code(&error, 409) => {
                let Some(current) = call(api.get_metadata_opt(&name)).await? else { return Ok(()) };
                object = current;
            }
            Err(error) => return Err(error),
        }
    }
    anyhow::bail!("{namespace}/{name} keeps changing")
}

/// Awaits one call of the API server, with a deadline.
async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    Ok(timeout(API_DEADLINE, request).await.context("the API server did not answer in time")??)
}

fn is_missing(error: &anyhow::Error) -> bool {
    has_code(error, 404)
}

fn has_code(error: &anyhow::Error, code: u16) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if status.code == code)
}
