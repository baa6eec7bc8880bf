//! Writes Integrations from files as rows, and declares their queues: `grapnel apply`, and the first half of
//! `grapnel dev`.
//!
//! An object that says nothing new is not written, so applying twice does nothing. The generation of a file's object is
//! counted here, as the API server counts that of an applied one.

use std::path::PathBuf;

use anyhow::{Context, bail};
use grapnel_crds::names::queue_name;
use grapnel_store::Database;

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{FILE_UID_PREFIX, IntegrationRow};
use grapnel_core::manifests::{self, DesiredIntegration};
use grapnel_core::sealing::SealingKeys;
use grapnel_core::secrets::IntegrationSecrets;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::manifest_files;
use grapnel_platform::queue::{self, Link};
use grapnel_store::integrations::{self as rows, UpsertOutcome};
use grapnel_store::migrate;

/// Who wrote, in the audit log.
const ACTOR: &str = "file";

#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// YAML files with Integrations and Secrets, or directories of them
    #[arg(long = "file", required = true, num_args = 1.., value_name = "PATH")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    queue: QueueArgs,
    #[command(flatten)]
    sealing: SealingArgs,
}

/// What applying one object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Updated,
    Unchanged,
}

/// `grapnel apply`: writes the rows and queues once and prints a line for each Integration.
pub async fn run(args: ApplyArgs) -> anyhow::Result<()> {
    let keys = args.sealing.sealing_keys(args.common.environment)?;
    let (database_url, rabbitmq_url) = (args.database.database_url()?, args.queue.rabbitmq_url()?);
    let prefix = args.queue.queue_prefix()?;
    let desired = manifests::parse(&manifest_files::read(&args.files)?)?;
    let db = Database::new(&database_url, "apply", 2)?;
    migrate::require(&db).await?;
    let link = Link::new(rabbitmq_url, "grapnel-apply");
    for desired in &desired {
        let applied = apply(&db, &keys, desired).await?;
        declare_queues(&link, &prefix, desired).await?;
        let word = match applied {
            Applied::Created => "created",
            Applied::Updated => "updated",
            Applied::Unchanged => "unchanged",
        };
        println!("{} {word}", describe(desired));
    }
    link.close().await;
    Ok(())
}

fn id_of(desired: &DesiredIntegration) -> IntegrationId {
    IntegrationId::new(desired.object.id())
}

fn describe(desired: &DesiredIntegration) -> String {
    let name = desired.object.metadata.name.as_deref().unwrap_or_default();
    format!("integration {}/{name}", desired.object.namespace_or_default())
}

/// Writes one object's row, if it says anything new.
pub async fn apply(
    db: &Database,
    keys: &SealingKeys,
    desired: &DesiredIntegration,
) -> anyhow::Result<Applied> {
    let before = rows::find(db, id_of(desired)).await.context("read the integration's row")?;
    if let Some(before) = &before
        && !before.deleted
        && is_unchanged(&before.row, desired, keys)?
    {
        return Ok(Applied::Unchanged);
    }
    let generation = before.as_ref().map_or(1, |before| before.row.generation + 1);
    let row = row(desired, generation, keys)?;
    let destinations: Vec<String> =
        desired.object.spec.destinations.iter().map(|destination| destination.name.clone()).collect();
    match rows::upsert(db, &row, &destinations, ACTOR).await.context("write the integration's row")? {
        UpsertOutcome::Applied if before.is_some_and(|before| !before.deleted) => Ok(Applied::Updated),
        UpsertOutcome::Applied => Ok(Applied::Created),
        UpsertOutcome::Superseded => bail!("{}: a newer version was written meanwhile", describe(desired)),
        UpsertOutcome::RouteTaken => {
            bail!("{}: spec.route: {} belongs to another integration", describe(desired), row.route)
        }
        UpsertOutcome::NameTaken => bail!("{}: another integration has this name", describe(desired)),
    }
}

/// Retires the rows that came from files and are in none any more.
pub async fn retire_others(db: &Database, kept: &[DesiredIntegration]) -> anyhow::Result<Vec<IntegrationId>> {
    let live = rows::load_all(db).await.context("read the integrations")?;
    let is_kept = |row: &IntegrationRow| kept.iter().any(|desired| id_of(desired) == row.id);
    let mut retired = Vec::new();
    for row in live.iter().filter(|row| row.uid.starts_with(FILE_UID_PREFIX) && !is_kept(row)) {
        if rows::remove(db, row.id, ACTOR).await.context("retire an integration")? {
            retired.push(row.id);
        }
    }
    Ok(retired)
}

/// Declares the queue of every destination.
pub async fn declare_queues(link: &Link, prefix: &str, desired: &DesiredIntegration) -> anyhow::Result<()> {
    let channel = link.channel().await.context("connect to RabbitMQ")?;
    for destination in &desired.object.spec.destinations {
        let name = queue_name(prefix, desired.object.id(), &destination.name);
        queue::declare(&channel, &name).await.with_context(|| format!("declare the queue {name}"))?;
    }
    Ok(())
}

fn is_unchanged(
    row: &IntegrationRow,
    desired: &DesiredIntegration,
    keys: &SealingKeys,
) -> anyhow::Result<bool> {
    let same_spec = row.spec == serde_json::to_string(&desired.object.spec)?;
    // Secrets that cannot be opened any more are written anew.
    let same_secrets =
        IntegrationSecrets::open(keys, row.id, &row.secrets).is_ok_and(|secrets| secrets == desired.secrets);
    Ok(same_spec && same_secrets)
}

fn row(desired: &DesiredIntegration, generation: i64, keys: &SealingKeys) -> anyhow::Result<IntegrationRow> {
    let object = &desired.object;
    let (id, namespace) = (id_of(desired), object.namespace_or_default());
    let name = object.metadata.name.clone().unwrap_or_default();
    Ok(IntegrationRow {
        id,
        uid: format!("{FILE_UID_PREFIX}{namespace}/{name}"),
        provider: object.spec.provider.clone(),
        route: object.route().to_owned(),
        display_name: object.display_name().to_owned(),
        state: object.spec.state.into(),
        spec: serde_json::to_string(&object.spec)?,
        secrets: desired.secrets.seal(keys, id),
        writer_epoch: 0,
        namespace,
        name,
        generation,
    })
}
