//! Delivery attempts.

use grapnel_core::delivery::state::Trigger;
use grapnel_core::ids::{AttemptId, EventId, IntegrationId};
use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::event_pages::anywhere;
use super::id_time::{id_window, time_of_id};
use super::integration_scope::IntegrationSelection;
use super::list_page::{ListStatements, list_page};
use super::owners::bare;
use super::page::{Page, PageRequest, Position};
use super::snapshot::Snapshot;
use super::walk::{Slice, WalkedPage, walk_to_page};
use crate::columns::Columns;
use crate::database::Database;
use crate::deliveries::{indexed_attempts, is_attempt_entry, is_attempt_entry_at, is_attempt_of_slice};
use crate::error::{Error, Result};

/// One HTTP request of a delivery.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    pub id: AttemptId,
    pub event_id: EventId,
    pub integration_id: IntegrationId,
    pub destination: String,
    /// Counts from 1 within the delivery, replays included.
    pub attempt_no: i32,
    pub succeeded: bool,
    /// `None` when there was no answer.
    pub http_status: Option<i16>,
    /// The beginning of the receiver's answer.
    pub response_body: Option<String>,
    pub error_message: Option<String>,
    pub duration_ms: i32,
    pub triggered_by: Trigger,
    pub scheduled_at: Timestamp,
    pub started_at: Timestamp,
    /// The time in the id, which the list is sorted by.
    pub created_at: Timestamp,
}

/// The attempts that a list has. Absent filters restrict nothing.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    pub event_id: Option<EventId>,
    pub succeeded: Option<bool>,
    pub integrations: IntegrationSelection,
    pub destination: Option<String>,
    /// The earliest time of recording.
    pub from: Option<Timestamp>,
    /// The end of the times of recording, exclusive.
    pub until: Option<Timestamp>,
    pub http_status: Option<i16>,
    /// Matches anywhere in the error, in either case, literally.
    pub error: Option<String>,
    /// Only of events of these integrations: those that the caller may see.
    pub visible: Option<Vec<IntegrationId>>,
}

impl AttemptFilter {
    /// Whether it has a filter that only a search knows.
    fn needs_search(&self) -> bool {
        !self.integrations.is_any()
            || self.destination.is_some()
            || self.from.is_some()
            || self.until.is_some()
            || self.http_status.is_some()
            || self.error.is_some()
    }

    /// Whether nothing but an index says what passes, as far as integrations and outcomes have one.
    fn is_of_index(&self) -> bool {
        self.destination.is_none() && self.http_status.is_none() && self.error.is_none()
    }
}

// With the event's id, one partition is read, by its primary key. Without it, the heads of all partitions are merged
// along the index on the id, or on the id of those that failed.
pub(super) const LIST: ListStatements = ListStatements {
    list: "/* views::list_attempts */
        SELECT a.id, a.event_id, a.integration_id, a.destination, a.attempt_no, a.succeeded, a.http_status,
            a.response_body, a.error_message, a.duration_ms, a.triggered_by, a.scheduled_at, a.started_at
        FROM delivery_attempts a
        WHERE ($1::uuid IS NULL OR a.event_id = $1)
            AND ($2::boolean IS NULL OR a.succeeded = $2)
            AND ($3::uuid[] IS NULL OR a.integration_id = ANY($3))
            AND ($4::uuid IS NULL OR a.id < $4)
        ORDER BY a.id DESC LIMIT $5 OFFSET $6",
    count: "/* views::count_attempts */
        SELECT count(*) FROM (
            SELECT FROM delivery_attempts a
            WHERE ($1::uuid IS NULL OR a.event_id = $1)
                AND ($2::boolean IS NULL OR a.succeeded = $2)
                AND ($3::uuid[] IS NULL OR a.integration_id = ANY($3))
            LIMIT 10001
        ) AS counted",
    sorted_by_time: false,
};

/// Reads one page of attempts, the latest first.
pub async fn list_attempts(
    db: &Database,
    filter: &AttemptFilter,
    request: PageRequest,
) -> Result<Page<AttemptRow>> {
    if filter.needs_search() {
        return search_attempts(db, filter, request).await;
    }
    let event_id = filter.event_id.map(EventId::uuid);
    list_page(
        db,
        LIST,
        request,
        |statement| statement.bind(event_id).bind(filter.succeeded).bind(bare(filter.visible.as_deref())),
        attempt_row,
        |attempt| Position { key: 0, id: attempt.id.uuid() },
    )
    .await
}

/// A slice of attempts (see [`super::walk`]), `$7` to `$10` as in the source: $1 the integrations, $2 the event, $3 the destination, $4 the outcome, $5
/// the HTTP status, $6 the pattern of the error.
macro_rules! search_statement {
    ($name:literal, $source:expr) => {
        concat!(
            "/* views::",
            $name,
            " */
        SELECT count(*) AS scanned, min(id::text)::uuid AS last, array_agg(id) FILTER (WHERE passes) AS ids
        FROM (
            SELECT a.id, (
                ($1::uuid[] IS NULL OR a.integration_id = ANY($1))
                AND ($3::text IS NULL OR a.destination = $3)
                AND ($4::boolean IS NULL OR a.succeeded = $4)
                AND ($5::smallint IS NULL OR a.http_status = $5)
                AND ($6::text IS NULL OR a.error_message ILIKE $6)
            ) AS passes FROM (
                ",
            $source,
            "
            ) AS a
        ) AS slice"
        )
    };
}

/// `$7` the first id, `$8` the end of the ids, `$9` the id to go on after, `$10` the rows. With the event's id, one partition is read. Failed attempts
/// have an index of their own.
macro_rules! all_attempts {
    () => {
        "SELECT a.* FROM delivery_attempts a
                WHERE ($2::uuid IS NULL OR a.event_id = $2)
                    AND ($4::boolean IS DISTINCT FROM false OR NOT a.succeeded)
                    AND a.id >= $7 AND a.id < $8 AND ($9::uuid IS NULL OR a.id < $9)
                ORDER BY a.id DESC LIMIT $10"
    };
}

/// The heads of the walks of each integration and outcome are merged (see [`crate::deliveries::indexed_attempts`] and [`Slice`]).
macro_rules! attempts_of_integrations {
    () => {
        concat!(
            "SELECT a.* FROM unnest($1::uuid[]) AS integration (id)
                CROSS JOIN (VALUES (true), (false)) AS outcome (succeeded)
                CROSS JOIN LATERAL (
                    ",
            indexed_attempts!(is_attempt_of_slice!(), "$10"),
            "
                ) AS a
                WHERE $4::boolean IS NULL OR outcome.succeeded = $4
                ORDER BY a.id DESC LIMIT $10"
        )
    };
}

/// How many attempts of the window the integrations have, as far as entries of the index tell: those of the slots in which it begins and ends are counted
/// by their ids.
const COUNT_INTEGRATIONS: &str = concat!(
    "/* views::count_attempts_of_integrations */
    SELECT COALESCE(sum(counted.attempts), 0)::bigint
    FROM unnest($1::uuid[]) AS integration (id)
    CROSS JOIN (VALUES (true), (false)) AS outcome (succeeded)
    CROSS JOIN LATERAL (
        SELECT sum(entry.attempts) AS attempts FROM (
            SELECT l.indexed_attempts AS attempts FROM delivery_attempts l
            WHERE ",
    is_attempt_entry!(">", "$7", "<", "$8"),
    "
            ORDER BY l.integration_id DESC, l.succeeded DESC, id_slot(l.id) DESC LIMIT $10
        ) AS entry
        UNION ALL
        SELECT count(*) FROM (
            ",
    indexed_attempts!(concat!(is_attempt_entry_at!("=", "$7"), " AND a.id >= $7 AND a.id < $8"), "$10"),
    "
        ) AS first
        UNION ALL
        SELECT count(*) FROM (
            ",
    indexed_attempts!(
        concat!(
            is_attempt_entry_at!("=", "$8"),
            " AND a.id >= $7 AND a.id < $8 AND id_slot($7) <> id_slot($8)"
        ),
        "$10"
    ),
    "
        ) AS last
    ) AS counted
    WHERE $4::boolean IS NULL OR outcome.succeeded = $4"
);

const SEARCH: &str = search_statement!("search_attempts", all_attempts!());
/// The number of rows, as a slice has them.
const COUNT: &str =
    concat!("/* views::count_searched_attempts */ SELECT count(*) FROM (", all_attempts!(), ") AS counted");
const SEARCH_INTEGRATIONS: &str =
    search_statement!("search_attempts_of_integrations", attempts_of_integrations!());

const LOAD: &str = "/* views::load_attempts */
    SELECT a.id, a.event_id, a.integration_id, a.destination, a.attempt_no, a.succeeded, a.http_status,
        a.response_body, a.error_message, a.duration_ms, a.triggered_by, a.scheduled_at, a.started_at
    FROM delivery_attempts a
    WHERE a.id = ANY($1)
    ORDER BY a.id DESC";

async fn search_attempts(
    db: &Database,
    filter: &AttemptFilter,
    request: PageRequest,
) -> Result<Page<AttemptRow>> {
    let scope = filter.integrations.resolve(db).await?.within(filter.visible.as_deref());
    if scope.is_nothing() {
        return Ok(WalkedPage::empty().page(request, Vec::new(), |attempt: &AttemptRow| attempt.id.uuid()));
    }
    let is_of_integrations = scope.is_narrow() && filter.event_id.is_none();
    let (text, count) =
        if is_of_integrations { (SEARCH_INTEGRATIONS, COUNT_INTEGRATIONS) } else { (SEARCH, COUNT) };
    let is_counted =
        filter.is_of_index() && (is_of_integrations || scope.is_any() && filter.succeeded != Some(true));
    let pattern = filter.error.as_deref().map(anywhere);
    let (first, end) = id_window(filter.from, filter.until);
    let read = |text: &'static str, slice: Slice| {
        sqlx::query(text)
            .bind(scope.ids())
            .bind(filter.event_id.map(EventId::uuid))
            .bind(filter.destination.as_deref())
            .bind(filter.succeeded)
            .bind(filter.http_status)
            .bind(pattern.as_deref())
            .bind(first)
            .bind(end)
            .bind(slice.after)
            .bind(slice.rows)
    };
    let count = is_counted.then(|| read(count, Slice::COUNTED));
    let found = walk_to_page(db, request, true, |slice| read(text, slice), count).await?;
    let attempts = db
        .bounded(async {
            let mut snapshot = Snapshot::take(db).await?;
            let rows = sqlx::query(LOAD).bind(&found.ids).fetch_all(snapshot.connection()).await?;
            snapshot.release().await?;
            rows.iter().map(attempt_row).collect::<Result<Vec<_>>>()
        })
        .await?;
    Ok(found.page(request, attempts, |attempt| attempt.id.uuid()))
}

const OF_EVENT: &str = "/* views::attempts_of_event */
    SELECT a.id, a.event_id, a.integration_id, a.destination, a.attempt_no, a.succeeded, a.http_status,
        a.response_body, a.error_message, a.duration_ms, a.triggered_by, a.scheduled_at, a.started_at
    FROM delivery_attempts a
    WHERE a.event_id = $1
    ORDER BY a.id DESC LIMIT $2";

/// Reads the latest attempts of an event, in the order in which they were made.
pub(super) async fn attempts_of_event(
    connection: &mut PgConnection,
    event_id: EventId,
    limit: i64,
) -> Result<Vec<AttemptRow>> {
    let rows = sqlx::query(OF_EVENT).bind(event_id.uuid()).bind(limit).fetch_all(connection).await?;
    rows.iter().rev().map(attempt_row).collect()
}

fn attempt_row(row: &PgRow) -> Result<AttemptRow> {
    let id = row.id("id", AttemptId::new)?;
    let corrupt = |column| move || Error::Corrupt { table: "delivery_attempts", column, id: id.uuid() };
    Ok(AttemptRow {
        id,
        event_id: row.id("event_id", EventId::new)?,
        integration_id: row.id("integration_id", IntegrationId::new)?,
        destination: row.try_get("destination")?,
        attempt_no: row.try_get("attempt_no")?,
        succeeded: row.try_get("succeeded")?,
        http_status: row.try_get("http_status")?,
        response_body: row.try_get("response_body")?,
        error_message: row.try_get("error_message")?,
        duration_ms: row.try_get("duration_ms")?,
        triggered_by: Trigger::parse(row.try_get("triggered_by")?).ok_or_else(corrupt("triggered_by"))?,
        scheduled_at: row.time("scheduled_at")?,
        started_at: row.time("started_at")?,
        created_at: time_of_id(id.uuid()).ok_or_else(corrupt("id"))?,
    })
}
