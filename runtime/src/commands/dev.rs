//! `grapnel dev`: api, management port, worker and dispatcher in one process, with Integrations from files.
//!
//! The rows of the database follow the files: an edit takes effect without a restart, and an object that was removed from
//! the files is retired. Invalid files change nothing, and the reason is logged once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use grapnel_store::{ClaimConnections, Database};
use tokio_util::sync::CancellationToken;

use super::READ_ONLY;
use super::api::{self, ApiConfig, ApiDatabases};
use super::manage::{self, ManageConfig};
use super::worker::{CLAIM_CONNECTIONS, DATABASE_CONNECTIONS};
use crate::args::{ApiArgs, DeliveryArgs, ManageArgs, ManagementKeyArgs, PortArgs, RedisArgs};
use crate::commands::apply::{ApplyOutcome, apply, declare_queues, retire_others};
use crate::console::settings::ConsoleArgs;
use crate::delivery::heartbeat;
use crate::delivery::send::DeliveryClient;
use crate::delivery::tokens::TokenClient;
use crate::delivery::worker::{LaneHealth, Worker};
use crate::ingress::readable_form::ReadableForm;
use crate::integrations::cache::{self, IntegrationCache};
use crate::traffic::{self, Traffic};
use grapnel_core::error_chain::chain;
use grapnel_core::manifests::{self, ManifestErrors};
use grapnel_core::sealing::SealingKeys;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::manifest_files;
use grapnel_platform::ops_server::{ProcessHealth, bind, ops_stage, start_metrics};
use grapnel_platform::queue::QueueConnection;
use grapnel_platform::shutdown::{Stage, stop_signal, supervise};
use grapnel_store::migrate;

/// How often the files are read. An edit is applied at the second read that finds it.
const POLL: Duration = Duration::from_millis(250);

/// How soon files that could not be applied, for a reason outside of them, are retried.
const RETRY: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub struct DevCommand {
    /// YAML files with Integrations and Secrets, or directories of them
    #[arg(long = "file", required = true, num_args = 1.., value_name = "PATH")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    api: ApiArgs,
    #[command(flatten)]
    manage: ManageArgs,
    #[command(flatten)]
    keys: ManagementKeyArgs,
    #[command(flatten)]
    port: PortArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    sealing: SealingArgs,
    #[command(flatten)]
    console: ConsoleArgs,
}

/// Runs all roles until the stop signal.
pub async fn run(command: DevCommand) -> anyhow::Result<()> {
    let DevCommand {
        files,
        common,
        api,
        manage,
        keys,
        port,
        delivery,
        database,
        redis,
        queue,
        sealing,
        console,
    } = command;
    let management_keys = keys.management_keys()?;
    let databases = ApiDatabases::new(&database.database_url()?)?;
    let egress = api::egress(&common, &delivery, &databases, &redis, &queue)?;
    let config = ApiConfig::new(&common, &api, management_keys.clone(), &port, &redis, &queue, egress)?;
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let db = databases.ingest.beside("dev", DATABASE_CONNECTIONS);
    let claims = ClaimConnections::new(&db, CLAIM_CONNECTIONS);
    let client = DeliveryClient::new(config.egress.clone());
    let tokens = TokenClient::new(config.egress.clone());
    // The first read must succeed: there is no last valid state yet.
    let texts = manifest_files::read(&files)?;
    manifests::parse(&texts)?;
    migrate::run(&db).await.context("migrate the database")?;
    let prefix = config.queue_prefix.clone();
    // Open to this machine alone, it needs no log-in.
    let is_local = manage.management_addr.ip().is_loopback();
    let console = console.settings_of_dev(manage.kubernetes_access, is_local)?;
    let console_path = console.path();
    let managed =
        ManageConfig::new(&common, &manage, management_keys, &port, &redis, prefix, Some(console)).await?;
    let metrics = start_metrics()?;
    let (public, ops) =
        (bind(api.http_addr, "GRAPNEL_HTTP_ADDR").await?, bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?);

    let connect =
        |name: &str| QueueConnection::new(config.rabbitmq_url.clone(), format!("grapnel-dev-{name}"));
    let watcher = FileWatcher {
        files,
        db: db.clone(),
        keys: Arc::clone(&keys),
        queues: connect("apply"),
        queue_prefix: config.queue_prefix.clone(),
    };
    watcher.apply(&texts).await?;
    let (integrations, cache_task) = cache::new(databases.ingest.clone(), Arc::clone(&keys));
    let traffic = Traffic::default();
    let worker = Worker {
        db,
        claims,
        integrations: integrations.clone(),
        client,
        tokens,
        queues: connect("worker"),
        queue_prefix: config.queue_prefix.clone(),
        traffic: traffic.clone(),
        only: None,
        drain: common.shutdown_deadline() / 2,
    };
    let lanes = LaneHealth::default();
    let health =
        DevHealth { db: databases.work.clone(), integrations: integrations.clone(), lanes: lanes.clone() };
    let ops = ops_stage(ops, Arc::new(health), metrics);
    tracing::info!(address = %public.local_addr()?, "accepting webhooks and delivering");
    let form = ReadableForm::read(&databases.ingest).await;
    let mut work = Stage::default();
    work.spawn("heartbeat", heartbeat::run(databases.work.clone(), work.token()));
    work.spawn("worker", worker.run(lanes, work.token()));
    work.spawn("files", watcher.run(texts, work.token()));
    let mut counted = Stage::default();
    counted.spawn("traffic", traffic::run(databases.work.clone(), traffic, counted.token()));
    let mut stages = vec![work, counted];
    match managed {
        Some(managed) => {
            let listener = bind(manage.management_addr, "GRAPNEL_MANAGEMENT_ADDR").await?;
            let address = listener.local_addr()?;
            tracing::info!(%address, "serving the management routes");
            let host =
                if address.ip().is_unspecified() { "localhost".to_owned() } else { host(address.ip()) };
            tracing::info!("the console is at http://{host}:{}{console_path}", address.port());
            let (routes, work) = (databases.management.clone(), &databases.work);
            stages.push(manage::serve(managed, routes, work, Arc::clone(&config.wake), listener)?);
        }
        None => tracing::info!(
            "there is no management key: the management routes and the console are not served. The console needs none at a loopback address, such as GRAPNEL_MANAGEMENT_ADDR=127.0.0.1:8081"
        ),
    }
    stages.extend(api::stages(config, databases, keys, integrations, cache_task, form, public)?);
    stages.push(ops);
    supervise(stages, common.shutdown_deadline(), stop_signal()).await
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Ready once the integrations are loaded, and while PostgreSQL accepts writes; dead when a queue is not consumed.
struct DevHealth {
    db: Database,
    integrations: IntegrationCache,
    lanes: LaneHealth,
}

impl ProcessHealth for DevHealth {
    fn dead(&self) -> Option<String> {
        self.lanes.dead()
    }

    fn not_ready(&self) -> Option<String> {
        if !self.integrations.is_loaded() {
            return Some("the integrations are not loaded yet".to_owned());
        }
        if self.db.is_read_only() {
            return Some(READ_ONLY.to_owned());
        }
        self.integrations.load().why_none_is_usable()
    }
}

/// The texts of the files, or why they cannot be read.
type FileTexts = Result<BTreeMap<PathBuf, String>, ManifestErrors>;

/// Distinguishes a file that is being written from a complete one: an editor empties it first, and an object that is in no
/// file is retired with its deliveries.
#[derive(Default)]
struct EditDetector {
    last: Option<FileTexts>,
}

impl EditDetector {
    /// Returns the texts if the previous read found the same.
    fn settled(&mut self, texts: FileTexts) -> Option<FileTexts> {
        let is_settled = self.last.as_ref() == Some(&texts);
        self.last = Some(texts.clone());
        is_settled.then_some(texts)
    }
}

/// Applies the files whenever they change.
struct FileWatcher {
    files: Vec<PathBuf>,
    db: Database,
    keys: Arc<SealingKeys>,
    queues: QueueConnection,
    queue_prefix: String,
}

impl FileWatcher {
    /// Applies each edit until the token is cancelled. `applied` are the texts that were applied last.
    async fn run(self, applied: BTreeMap<PathBuf, String>, stop: CancellationToken) {
        let mut applied = Some(applied);
        let (mut edits, mut refused, mut wait) = (EditDetector::default(), String::new(), POLL);
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            wait = POLL;
            let Some(found) = edits.settled(manifest_files::read(&self.files)) else { continue };
            let outcome = match found {
                Ok(texts) if applied.as_ref() == Some(&texts) => Ok(texts),
                Ok(texts) => self.apply(&texts).await.map(|()| texts),
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(texts) => {
                    applied = Some(texts);
                    refused.clear();
                }
                Err(error) => {
                    let reason = chain(&*error);
                    if !error.is::<ManifestErrors>() {
                        // Part of it may have been applied, so even the previous state counts as an edit.
                        applied = None;
                        wait = RETRY;
                    }
                    if reason != refused {
                        tracing::error!(
                            "the files were not applied; the last valid state stays in effect:\n{reason}"
                        );
                        refused = reason;
                    }
                }
            }
        }
        self.queues.close().await;
    }

    /// Makes the rows match the files.
    async fn apply(&self, texts: &BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
        let desired = manifests::parse(texts)?;
        // First, so that a route can move from a removed object to a new one.
        for id in retire_others(&self.db, &desired).await? {
            tracing::info!(integration.id = %id, "integration retired");
        }
        for desired in &desired {
            let outcome = apply(&self.db, &self.keys, desired).await?;
            if outcome != ApplyOutcome::Unchanged {
                declare_queues(&self.queues, &self.queue_prefix, desired).await?;
                let name = desired.object.metadata.name.as_deref().unwrap_or_default();
                tracing::info!(
                    integration.name = name, integration.id = %desired.object.id(), route = desired.object.route(),
                    "integration applied"
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> FileTexts {
        Ok(BTreeMap::from([(PathBuf::from("acme.yaml"), text.to_owned())]))
    }

    #[test]
    fn partly_written_file_is_not_taken_for_an_edit() {
        let mut edits = EditDetector::default();
        assert_eq!(edits.settled(found("old")), None);
        assert_eq!(edits.settled(found("old")), Some(found("old")));
        assert_eq!(edits.settled(found("")), None);
        assert_eq!(edits.settled(found("ne")), None);
        assert_eq!(edits.settled(found("new")), None);
        assert_eq!(edits.settled(found("new")), Some(found("new")));
        assert_eq!(edits.settled(found("new")), Some(found("new")));
    }

    #[test]
    fn briefly_missing_file_is_not_taken_for_an_edit() {
        let away = || manifest_files::read(&[PathBuf::from("/nonexistent/acme.yaml")]);
        let mut edits = EditDetector::default();
        assert_eq!(edits.settled(found("old")), None);
        assert_eq!(edits.settled(away()), None);
        assert_eq!(edits.settled(found("old")), None);
        assert_eq!(edits.settled(away()), None);
        assert!(edits.settled(away()).is_some_and(|found| found.is_err()));
    }
}
