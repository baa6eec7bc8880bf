//! `grapnel dev`: api, worker and dispatcher in one process, with Integrations from files.
//!
//! The database's rows are what the files say: an edit takes effect without a restart, and an object that is in no file
//! any more is retired. Files that are wrong change nothing, and why is logged once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use grapnel_store::Database;
use tokio_util::sync::CancellationToken;

use super::api::{self, ApiConfig};
use super::worker::CLAIM_CONNECTIONS;
use crate::args::{ApiArgs, DeliveryArgs, RedisArgs};
use crate::commands::apply::{Applied, apply, declare_queues, retire_others};
use crate::delivery::send::DeliveryClient;
use crate::delivery::worker::{LaneHealth, Worker};
use crate::integrations::cache::{Table, table};
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_core::error_chain::chain;
use grapnel_core::manifests::{self, ManifestErrors};
use grapnel_core::sealing::SealingKeys;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::manifest_files;
use grapnel_platform::ops_server::ProcessHealth;
use grapnel_platform::ops_server::{bind, ops_stage, start_metrics};
use grapnel_platform::queue::Link;
use grapnel_platform::shutdown::{Stage, requested, supervise};
use grapnel_store::migrate;

/// How often the files are looked at. An edit is applied at the second look that finds it.
const POLL: Duration = Duration::from_millis(250);

/// How soon files that could not be applied, for a reason that is not in them, are tried again.
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
    delivery: DeliveryArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    sealing: SealingArgs,
}

pub async fn run(command: DevCommand) -> anyhow::Result<()> {
    let DevCommand { files, common, api, delivery, database, redis, queue, sealing } = command;
    let config = ApiConfig::new(&common, &api, &redis, &queue)?;
    let keys = Arc::new(sealing.sealing_keys(common.environment)?);
    let database_url = database.database_url()?;
    let db = Database::new(&database_url, "dev", api::DATABASE_CONNECTIONS)?;
    let claims = Database::for_claims(&database_url, CLAIM_CONNECTIONS)?;
    let client =
        DeliveryClient::new(EgressPolicy::new(delivery.allowed_destination_cidrs(common.environment)))?;
    // The first reading must be good: there is no last good state yet.
    let texts = manifest_files::read(&files)?;
    manifests::parse(&texts)?;
    migrate::run(&db).await.context("migrate the database")?;
    let metrics = start_metrics()?;
    let (public, ops) =
        (bind(api.http_addr, "GRAPNEL_HTTP_ADDR").await?, bind(common.ops_addr, "GRAPNEL_OPS_ADDR").await?);

    let link = |name: &str| Link::new(config.rabbitmq_url.clone(), format!("grapnel-dev-{name}"));
    let watcher = Watcher {
        files,
        db: db.clone(),
        keys: Arc::clone(&keys),
        link: link("apply"),
        queue_prefix: config.queue_prefix.clone(),
    };
    watcher.apply(&texts).await?;
    let (table, reading) = table(db.clone(), Arc::clone(&keys));
    let worker = Worker {
        db: db.clone(),
        claims,
        integrations: table.clone(),
        client,
        link: link("worker"),
        queue_prefix: config.queue_prefix.clone(),
        only: None,
        drain: common.shutdown_deadline() / 2,
    };
    let health = LaneHealth::default();
    let ops = ops_stage(ops, Arc::new(DevProbes { table: table.clone(), lanes: health.clone() }), metrics);
    tracing::info!(address = %public.local_addr()?, "accepting webhooks and delivering");
    let mut work = Stage::default();
    work.spawn("worker", worker.run(health, work.token()));
    work.spawn("files", watcher.run(texts, work.token()));
    let mut stages = vec![work];
    stages.extend(api::stages(config, db, keys, table, reading, public)?);
    stages.push(ops);
    supervise(stages, common.shutdown_deadline(), requested()).await
}

/// Ready once the integrations were read; dead when a queue is not consumed.
struct DevProbes {
    table: Table,
    lanes: LaneHealth,
}

impl ProcessHealth for DevProbes {
    fn dead(&self) -> Option<String> {
        self.lanes.dead()
    }

    fn not_ready(&self) -> Option<String> {
        (!self.table.is_read()).then(|| "the integrations are not read yet".to_owned())
    }
}

/// The texts of the files, or why they cannot be read.
type Found = Result<BTreeMap<PathBuf, String>, ManifestErrors>;

/// Tells a file that is being written from one that was: an editor empties it first, and what is in no file any more is
/// retired with its work.
#[derive(Default)]
struct Looks {
    last: Option<Found>,
}

impl Looks {
    /// What was found, when the look before found the same.
    fn settled(&mut self, found: Found) -> Option<Found> {
        let is_settled = self.last.as_ref() == Some(&found);
        self.last = Some(found.clone());
        is_settled.then_some(found)
    }
}

/// Follows the files.
struct Watcher {
    files: Vec<PathBuf>,
    db: Database,
    keys: Arc<SealingKeys>,
    link: Link,
    queue_prefix: String,
}

impl Watcher {
    /// Applies each edit until the token is cancelled. `applied` is what was applied last.
    async fn run(self, applied: BTreeMap<PathBuf, String>, stop: CancellationToken) {
        let mut applied = Some(applied);
        let (mut looks, mut refused, mut wait) = (Looks::default(), String::new(), POLL);
        while stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_some() {
            wait = POLL;
            let Some(found) = looks.settled(manifest_files::read(&self.files)) else { continue };
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
                        // Some of it may have been applied, so that even the state before is an edit.
                        applied = None;
                        wait = RETRY;
                    }
                    if reason != refused {
                        tracing::error!("the files were not applied, the last good state stays:\n{reason}");
                        refused = reason;
                    }
                }
            }
        }
        self.link.close().await;
    }

    /// Makes the rows what the files say.
    async fn apply(&self, texts: &BTreeMap<PathBuf, String>) -> anyhow::Result<()> {
        let desired = manifests::parse(texts)?;
        // First, so that a route can move from an object that goes to one that comes.
        for id in retire_others(&self.db, &desired).await? {
            tracing::info!(integration.id = %id, "integration retired");
        }
        for desired in &desired {
            let applied = apply(&self.db, &self.keys, desired).await?;
            if applied != Applied::Unchanged {
                declare_queues(&self.link, &self.queue_prefix, desired).await?;
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

    fn found(text: &str) -> Found {
        Ok(BTreeMap::from([(PathBuf::from("acme.yaml"), text.to_owned())]))
    }

    #[test]
    fn file_in_the_middle_of_being_written_is_not_taken_for_an_edit() {
        let mut looks = Looks::default();
        assert_eq!(looks.settled(found("old")), None);
        assert_eq!(looks.settled(found("old")), Some(found("old")));
        assert_eq!(looks.settled(found("")), None);
        assert_eq!(looks.settled(found("ne")), None);
        assert_eq!(looks.settled(found("new")), None);
        assert_eq!(looks.settled(found("new")), Some(found("new")));
        assert_eq!(looks.settled(found("new")), Some(found("new")));
    }

    #[test]
    fn file_that_is_away_for_a_moment_is_not_missing() {
        let away = || manifest_files::read(&[PathBuf::from("/nonexistent/acme.yaml")]);
        let mut looks = Looks::default();
        assert_eq!(looks.settled(found("old")), None);
        assert_eq!(looks.settled(away()), None);
        assert_eq!(looks.settled(found("old")), None);
        assert_eq!(looks.settled(away()), None);
        assert!(looks.settled(away()).is_some_and(|found| found.is_err()));
    }
}
