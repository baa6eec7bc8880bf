//! What the management API reads of jobs.

use grapnel_core::ids::{IntegrationId, ReplayJobId};
use grapnel_core::replay::ReplayState;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::{ReplayJob, read};
use crate::columns::Columns;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::views::list_page::{ListStatements, list_page};
use crate::views::owners::bare;
use crate::views::{IntegrationRef, Owner, Page, PageRequest, Position};

/// The jobs that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct ReplayJobFilter {
    pub state: Option<ReplayState>,
    pub namespace: Option<String>,
    /// Those that are about this integration, perhaps among others.
    pub integration: Option<IntegrationRef>,
    /// Only those that are about these integrations and no others: those that the caller may see.
    pub visible: Option<Vec<IntegrationId>>,
}

/// A job, and how far it is with each destination.
#[derive(Debug, Clone)]
pub struct ReplayProgress {
    pub job: ReplayJob,
    pub destinations: Vec<DestinationProgress>,
}

/// How far a job is with a destination.
#[derive(Debug, Clone)]
pub struct DestinationProgress {
    pub integration_id: IntegrationId,
    pub name: String,
    pub matched: u64,
    pub fed: u64,
    pub skipped: u64,
    /// Whether all of it was fed or skipped.
    pub is_done: bool,
}

/// Whose rights count for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayOwner {
    Integration(Owner),
    Namespace(String),
}

/// So many jobs are in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateCount {
    pub state: ReplayState,
    pub jobs: u64,
}

// $1 the state, $2 the namespace, $3 the integration, or $4 its namespace and $5 its name, $6 the integrations that may be seen.
const LIST: ListStatements = ListStatements {
    list: concat!(
        "/* replay_jobs::list_jobs */ SELECT ",
        read::columns!(),
        " FROM replay_jobs j
        WHERE ($1::text IS NULL OR j.state = $1)
            AND ($2::text IS NULL OR j.namespace = $2)
            AND ($3::uuid IS NULL OR $3 = ANY(j.integration_ids))
            AND ($5::text IS NULL OR j.namespace = $4 AND EXISTS (
                SELECT FROM integrations i WHERE i.id = ANY(j.integration_ids) AND i.name = $5
            ))
            AND ($6::uuid[] IS NULL OR j.integration_ids <@ $6)
            AND ($7::uuid IS NULL OR j.id < $7)
        ORDER BY j.id DESC LIMIT $8 OFFSET $9"
    ),
    count: "/* replay_jobs::count_jobs */
        SELECT count(*) FROM (
            SELECT FROM replay_jobs j
            WHERE ($1::text IS NULL OR j.state = $1)
                AND ($2::text IS NULL OR j.namespace = $2)
                AND ($3::uuid IS NULL OR $3 = ANY(j.integration_ids))
                AND ($5::text IS NULL OR j.namespace = $4 AND EXISTS (
                    SELECT FROM integrations i WHERE i.id = ANY(j.integration_ids) AND i.name = $5
                ))
                AND ($6::uuid[] IS NULL OR j.integration_ids <@ $6)
            LIMIT 10001
        ) AS counted",
    sorted_by_time: false,
};

/// Reads one page of jobs, the latest first.
pub async fn list_jobs(
    db: &Database,
    filter: &ReplayJobFilter,
    request: PageRequest,
) -> Result<Page<ReplayJob>> {
    list_page(
        db,
        LIST,
        request,
        |statement| {
            let statement =
                statement.bind(filter.state.map(ReplayState::as_str)).bind(filter.namespace.as_deref());
            let (id, namespace, name) = match &filter.integration {
                Some(IntegrationRef::Id(id)) => (Some(*id), None, None),
                Some(IntegrationRef::Name { namespace, name }) => {
                    (None, Some(namespace.as_str()), Some(name.as_str()))
                }
                None => (None, None, None),
            };
            let visible = bare(filter.visible.as_deref());
            statement.bind(id).bind(namespace).bind(name).bind(visible)
        },
        read::replay_job,
        |job| Position { key: 0, id: job.id.uuid() },
    )
    .await
}

/// Reads a job with its destinations.
pub async fn load_progress(db: &Database, id: ReplayJobId) -> Result<Option<ReplayProgress>> {
    let Some(job) = read::load(db, id).await? else { return Ok(None) };
    let destinations = db.bounded(async {
        let rows = sqlx::query(
            "/* replay_jobs::load_progress */
            SELECT integration_id, destination, matched, fed, skipped, is_done FROM replay_destinations
            WHERE job_id = $1 ORDER BY destination, integration_id",
        )
        .bind(id.uuid())
        .fetch_all(db.pool())
        .await?;
        rows.iter().map(destination).collect::<Result<Vec<_>>>()
    });
    Ok(Some(ReplayProgress { job, destinations: destinations.await? }))
}

fn destination(row: &PgRow) -> Result<DestinationProgress> {
    let count = |column: &str| -> Result<u64> { Ok(row.try_get::<i64, _>(column)?.unsigned_abs()) };
    let (fed, skipped) = (count("fed")?, count("skipped")?);
    Ok(DestinationProgress {
        integration_id: row.id("integration_id", IntegrationId::new)?,
        name: row.try_get("destination")?,
        matched: count("matched")?.max(fed + skipped),
        fed,
        skipped,
        is_done: row.try_get("is_done")?,
    })
}

/// Reads whose rights count for a job.
pub async fn owner(db: &Database, id: ReplayJobId) -> Result<Option<ReplayOwner>> {
    db.bounded(async {
        let row = sqlx::query(
            "/* replay_jobs::owner */
            SELECT j.namespace, j.is_of_namespace, i.id, i.name
            FROM replay_jobs j LEFT JOIN integrations i ON NOT j.is_of_namespace AND i.id = j.integration_ids[1]
            WHERE j.id = $1",
        )
        .bind(id.uuid())
        .fetch_optional(db.pool())
        .await?;
        let owner = |row: PgRow| {
            let namespace: String = row.try_get("namespace")?;
            let id = row.optional_id("id", IntegrationId::new)?;
            Ok(match id {
                Some(id) => ReplayOwner::Integration(Owner { id, namespace, name: row.try_get("name")? }),
                None => ReplayOwner::Namespace(namespace),
            })
        };
        row.map(owner).transpose()
    })
    .await
}

/// Counts the jobs in each state that has some.
pub async fn count_by_state(db: &Database) -> Result<Vec<StateCount>> {
    db.bounded(async {
        let rows = sqlx::query(
            "/* replay_jobs::count_by_state */ SELECT state, count(*) AS jobs FROM replay_jobs GROUP BY state",
        )
        .fetch_all(db.pool())
        .await?;
        let count = |row: &PgRow| {
            let state: &str = row.try_get("state")?;
            let corrupt =
                || Error::Corrupt { table: "replay_jobs", column: "state", id: uuid::Uuid::default() };
            let state = ReplayState::parse(state).ok_or_else(corrupt)?;
            Ok(StateCount { state, jobs: row.try_get::<i64, _>("jobs")?.unsigned_abs() })
        };
        rows.iter().map(count).collect()
    })
    .await
}
