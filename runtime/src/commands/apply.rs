//! `grapnel apply`: writes Integrations from files as rows and declares their queues. `grapnel dev` uses this too.
//!
//! An unchanged object is not written, so applying twice does nothing. The generation of an object from a file is counted
//! here, as the API server counts it for an applied one.

use std::path::PathBuf;

use anyhow::{Context, bail};
use grapnel_crds::names::queue_name;
use grapnel_store::Database;

use grapnel_core::ids::IntegrationId;
use grapnel_core::integration::{FILE_UID_PREFIX, IntegrationRow, RowIdentity, spec_text};
use grapnel_core::manifests::{self, DesiredIntegration};
use grapnel_core::sealing::SealingKeys;
use grapnel_core::secrets::IntegrationSecrets;
use grapnel_platform::args::{CommonArgs, DatabaseArgs, QueueArgs, SealingArgs};
use grapnel_platform::manifest_files;
use grapnel_platform::queue::{self, QueueConnection};
use grapnel_store::integrations::waiting::{WaitingDeliveries, waiting_for};
use grapnel_store::integrations::{self as rows, StoredRow, UpsertOutcome};
use grapnel_store::migrate;

/// The actor in audit entries: the program that applied an object, as a field manager is in a cluster.
const ACTOR: &str = "manager:grapnel";

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

/// The outcome of applying one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApplyOutcome {
    Created,
    Updated,
    Unchanged,
}

/// Writes the rows, declares the queues, and prints a line for each Integration.
pub async fn run(args: ApplyArgs) -> anyhow::Result<()> {
    let keys = args.sealing.sealing_keys(args.common.environment)?;
    let (database_url, rabbitmq_url) = (args.database.database_url()?, args.queue.rabbitmq_url()?);
    let prefix = args.queue.queue_prefix()?;
    let desired = manifests::parse(&manifest_files::read(&args.files)?)?;
    let db = Database::new(&database_url, "apply", 2)?;
    migrate::require(&db).await?;
    let queues = QueueConnection::new(rabbitmq_url, "grapnel-apply");
    for desired in &desired {
        let outcome = apply(&db, &keys, desired).await?;
        declare_queues(&queues, &prefix, desired).await?;
        let word = match outcome {
            ApplyOutcome::Created => "created",
            ApplyOutcome::Updated => "updated",
            ApplyOutcome::Unchanged => "unchanged",
        };
        println!("{} {word}", describe(desired));
    }
    queues.close().await;
    Ok(())
}

fn id_of(desired: &DesiredIntegration) -> IntegrationId {
    IntegrationId::new(desired.object.id())
}

fn describe(desired: &DesiredIntegration) -> String {
    let name = desired.object.metadata.name.as_deref().unwrap_or_default();
    format!("integration {}/{name}", desired.object.namespace_or_default())
}

/// Writes one object's row, unless it is unchanged.
pub(super) async fn apply(
    db: &Database,
    keys: &SealingKeys,
    desired: &DesiredIntegration,
) -> anyhow::Result<ApplyOutcome> {
    let before = rows::find(db, id_of(desired)).await.context("read the integration's row")?;
    if let Some(before) = &before
        && !before.deleted
        && is_unchanged(&before.row, desired, keys)
    {
        return Ok(ApplyOutcome::Unchanged);
    }
    let generation = before.as_ref().map_or(1, |before| before.row.generation + 1);
    let row = row(desired, generation, keys);
    let destinations: Vec<String> =
        desired.object.spec.destinations.iter().map(|destination| destination.name.clone()).collect();
    warn_of_waiting(db, before.as_ref(), desired, &destinations).await?;
    match rows::upsert(db, &row, &destinations, ACTOR).await.context("write the integration's row")? {
        UpsertOutcome::Applied if before.is_some_and(|before| !before.deleted) => Ok(ApplyOutcome::Updated),
        UpsertOutcome::Applied => Ok(ApplyOutcome::Created),
        UpsertOutcome::Superseded => {
            bail!("{}: a newer version was written in the meantime", describe(desired))
        }
        UpsertOutcome::RouteTaken => {
            bail!("{}: spec.route: {} belongs to another integration", describe(desired), row.route)
        }
        UpsertOutcome::RouteKept { until } => bail!(
            "{}: spec.route: {} was freed by another namespace and stays its own until {until:.0}",
            describe(desired),
            row.route
        ),
        UpsertOutcome::NameTaken => bail!("{}: another integration has this name", describe(desired)),
    }
}

/// Warns of deliveries that end because their destination is no longer in the file.
async fn warn_of_waiting(
    db: &Database,
    before: Option<&StoredRow>,
    desired: &DesiredIntegration,
    destinations: &[String],
) -> anyhow::Result<()> {
    let Some(before) = before.filter(|before| !before.deleted) else { return Ok(()) };
    let removed = before.row.removed_destinations(destinations);
    let waiting = waiting_for(db, before.row.id, &removed).await.context("count what waits")?;
    if let Some(warning) = WaitingDeliveries::warning(&waiting) {
        tracing::warn!("{}: {warning}", describe(desired));
    }
    Ok(())
}

/// Retires the rows of objects that were removed from the files.
pub(super) async fn retire_others(
    db: &Database,
    kept: &[DesiredIntegration],
) -> anyhow::Result<Vec<IntegrationId>> {
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
pub(super) async fn declare_queues(
    queues: &QueueConnection,
    prefix: &str,
    desired: &DesiredIntegration,
) -> anyhow::Result<()> {
    let channel = queues.channel().await.context("connect to RabbitMQ")?;
    for destination in &desired.object.spec.destinations {
        let name = queue_name(prefix, desired.object.id(), &destination.name);
        queue::declare(&channel, &name).await.with_context(|| format!("declare the queue {name}"))?;
    }
    Ok(())
}

fn is_unchanged(row: &IntegrationRow, desired: &DesiredIntegration, keys: &SealingKeys) -> bool {
    let same_spec = row.spec == spec_text(&desired.object.spec);
    // Secrets that can no longer be opened are written again.
    let same_secrets =
        IntegrationSecrets::open(keys, row.id, &row.secrets).is_ok_and(|secrets| secrets == desired.secrets);
    same_spec && same_secrets
}

fn row(desired: &DesiredIntegration, generation: i64, keys: &SealingKeys) -> IntegrationRow {
    let (id, namespace) = (id_of(desired), desired.object.namespace_or_default());
    let name = desired.object.metadata.name.as_deref().unwrap_or_default();
    let uid = format!("{FILE_UID_PREFIX}{namespace}/{name}");
    let identity = RowIdentity { id, uid, generation, writer_epoch: 0 };
    IntegrationRow::new(&desired.object, identity, desired.secrets.seal(keys, id))
}
