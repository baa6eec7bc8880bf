//! Finds the deliveries that a replay selects, one destination at a time, in the order of their events.
//!
//! A statement reads a slice of a source: the index that has the deliveries in question, or the events of the integration. What it meets is tested
//! with the same conditions, whatever the source is, so that a dry run counts what is fed. Nothing is locked: who feeds looks again.

use std::time::Duration;

use grapnel_core::ids::{EventId, IntegrationId};
use grapnel_core::replay::{ReplayOrder, ReplaySelect, ReplaySpec};
use sqlx::Row;
use uuid::Uuid;

use crate::database::Database;
use crate::deliveries::is_filtered;
use crate::error::Result;
use crate::events::index::indexed_ids;
use crate::views::id_time::id_window;
use crate::views::snapshot::Snapshot;

/// A destination of a replay, to be walked.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    spec: &'a ReplaySpec,
    integration_id: IntegrationId,
    destination: &'a str,
    /// Patterns for `LIKE`.
    included_types: Option<Vec<String>>,
    excluded_types: Option<Vec<String>>,
    subject: Option<String>,
    error: Option<String>,
}

/// What a slice has, in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// The last event that was read.
    pub(super) through: Option<Uuid>,
    /// Whether nothing is left behind it.
    pub(super) is_last: bool,
    pub(super) met: Vec<Met>,
}

/// An event that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Met {
    pub event_id: EventId,
    /// Whether another replay is delivering it.
    pub is_unfinished: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(spec: &'a ReplaySpec, integration_id: IntegrationId, destination: &'a str) -> Self {
        let types = || spec.event_types.iter().flatten();
        let patterns = |patterns: Vec<String>| (!patterns.is_empty()).then_some(patterns);
        let included = types().filter(|pattern| !pattern.starts_with('!')).map(|pattern| glob(pattern));
        let excluded = types().filter_map(|pattern| pattern.strip_prefix('!')).map(glob);
        Self {
            spec,
            integration_id,
            destination,
            included_types: patterns(included.collect()),
            excluded_types: patterns(excluded.collect()),
            subject: spec.subject.as_deref().map(anywhere),
            error: spec.error_contains.as_deref().map(anywhere),
        }
    }

    /// Reads so many rows behind a position, within so much time.
    pub(super) async fn read(
        &self,
        db: &Database,
        after: Option<Uuid>,
        rows: i64,
        time: Duration,
    ) -> Result<Slice> {
        let (first, end) = id_window(self.spec.received_after, Some(self.spec.received_before));
        let ids = self.spec.event_ids.as_ref().map(|ids| ids.iter().map(|id| id.uuid()).collect::<Vec<_>>());
        let row = db
            .bounded(async {
                let mut snapshot = Snapshot::take(db).await?;
                snapshot.walk_for(time).await?;
                let statement = sqlx::query(self.statement())
                    .bind(self.integration_id.uuid())
                    .bind(self.destination)
                    .bind(first)
                    .bind(end)
                    .bind(after)
                    .bind(rows)
                    .bind(self.spec.select.as_str())
                    .bind(self.included_types.as_deref())
                    .bind(self.excluded_types.as_deref())
                    .bind(self.subject.as_deref())
                    .bind(self.spec.http_status.map(u16::cast_signed))
                    .bind(self.error.as_deref());
                // Only the statements for named events have it.
                let statement = match &ids {
                    Some(ids) => statement.bind(ids),
                    None => statement,
                };
                let row = statement.fetch_one(snapshot.connection()).await?;
                snapshot.release().await?;
                Ok(row)
            })
            .await?;
        let events = |column: &str| -> Result<Vec<Uuid>> {
            Ok(row.try_get::<Option<Vec<Uuid>>, _>(column)?.unwrap_or_default())
        };
        let met = |is_unfinished| move |id| Met { event_id: EventId::new(id), is_unfinished };
        let matching = events("matching")?.into_iter().map(met(false));
        let mut met: Vec<Met> = matching.chain(events("unfinished")?.into_iter().map(met(true))).collect();
        met.sort_unstable_by_key(|met| met.event_id);
        if self.spec.order == ReplayOrder::NewestFirst {
            met.reverse();
        }
        Ok(Slice { through: row.try_get("last")?, is_last: row.try_get::<i64, _>("scanned")? < rows, met })
    }

    fn statement(&self) -> &'static str {
        use ReplayOrder::{NewestFirst, OldestFirst};
        use ReplaySelect::{All, Failed, Filtered, Missing};
        match (&self.spec.event_ids, self.spec.select, self.spec.order) {
            (Some(_), _, OldestFirst) => NAMED_ASC,
            (Some(_), _, NewestFirst) => NAMED_DESC,
            (None, Failed, OldestFirst) => FAILED_ASC,
            (None, Failed, NewestFirst) => FAILED_DESC,
            (None, Filtered, OldestFirst) => FILTERED_ASC,
            (None, Filtered, NewestFirst) => FILTERED_DESC,
            (None, All | Missing, OldestFirst) => EVENTS_ASC,
            (None, All | Missing, NewestFirst) => EVENTS_DESC,
        }
    }
}

/// Returns the pattern of an event type for `LIKE`.
fn glob(pattern: &str) -> String {
    escape(pattern).replace('*', "%")
}

fn anywhere(text: &str) -> String {
    format!("%{}%", escape(text))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// A slice. $1 the integration, $2 the destination, $3 the first id of the window, $4 its end, $5 the id to go on after, $6 the rows, $7 what is
/// selected, $8 and $9 the patterns of types that are included and excluded, $10 the pattern of the subject, $11 the HTTP status of the last attempt,
/// $12 the pattern of the last error, $13 the ids.
///
/// The source has rows that are meant and others. Of those that are meant, the delivery is looked up by its primary key, in a scalar subquery as all
/// else: a plan cannot flip to reading whole tables. A delivery that is unfinished counts only when a replay has made it so: it had ended before.
macro_rules! slice {
    ($name:literal, $last:literal, $source:expr) => {
        concat!(
            "/* replay_jobs::walk::",
            $name,
            " */
        WITH source AS MATERIALIZED (
            ",
            $source,
            "
        ), met AS (
            SELECT s.id, CASE WHEN s.is_meant THEN COALESCE((
                SELECT CASE
                    WHEN $7 = 'Missing' THEN 'none'
                    WHEN d.finished_at IS NULL THEN CASE WHEN d.replay_request_id IS NOT NULL THEN 'unfinished' ELSE 'none' END
                    WHEN CASE $7
                        WHEN 'Failed' THEN d.last_error IS NOT NULL
                        WHEN 'Filtered' THEN ",
            is_filtered!(),
            "
                        ELSE NOT ",
            is_filtered!(),
            "
                    END AND ($12::text IS NULL OR d.last_error ILIKE $12) THEN 'matching'
                    ELSE 'none' END
                FROM deliveries d WHERE d.event_id = s.id AND d.destination = $2
            ), CASE WHEN $7 = 'Missing' THEN 'matching' ELSE 'none' END) ELSE 'none' END AS kind
            FROM source s
        ), passing AS (
            SELECT m.id, m.kind FROM met m
            WHERE m.kind <> 'none' AND (
                SELECT e.erased_at IS NULL AND e.integration_id = $1
                    AND ($8::text[] IS NULL OR e.event_type LIKE ANY($8))
                    AND ($9::text[] IS NULL OR NOT e.event_type LIKE ANY($9))
                    AND ($10::text IS NULL OR e.subject ILIKE $10)
                FROM events e WHERE e.id = m.id
            ) AND ($11::smallint IS NULL OR $11 = (
                SELECT a.http_status FROM delivery_attempts a
                WHERE a.event_id = m.id AND a.destination = $2
                ORDER BY a.attempt_no DESC LIMIT 1
            ))
        )
        SELECT (SELECT count(*) FROM source) AS scanned, (SELECT ",
            $last,
            "(id::text)::uuid FROM source) AS last,
            array_agg(id) FILTER (WHERE kind = 'matching') AS matching,
            array_agg(id) FILTER (WHERE kind = 'unfinished') AS unfinished
        FROM passing"
        )
    };
}

macro_rules! within {
    ($id:literal, $beyond:literal) => {
        concat!($id, " >= $3 AND ", $id, " < $4 AND ($5::uuid IS NULL OR ", $id, " ", $beyond, " $5)")
    };
}

/// In the words of deliveries_failed_destination, and of deliveries_open for those that another replay has taken. The heads of both are merged. Those of
/// other integrations count as read.
macro_rules! failed_deliveries {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT id, is_meant FROM (
                (
                    SELECT d.event_id AS id, d.integration_id = $1 AS is_meant FROM deliveries d
                    WHERE d.destination = $2 AND d.finished_at IS NOT NULL AND d.last_error IS NOT NULL AND ",
            within!("d.event_id", $beyond),
            "
                    ORDER BY d.event_id ",
            $order,
            " LIMIT $6
                ) UNION ALL (
                    SELECT d.event_id, d.replay_request_id IS NOT NULL FROM deliveries d
                    WHERE d.integration_id = $1 AND d.destination = $2 AND d.finished_at IS NULL AND ",
            within!("d.event_id", $beyond),
            "
                    ORDER BY d.event_id ",
            $order,
            " LIMIT $6
                )
            ) AS heads
            ORDER BY id ",
            $order,
            " LIMIT $6"
        )
    };
}

/// In the words of deliveries_filtered, from the first id on that such an event can have.
macro_rules! filtered_deliveries {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT d.event_id AS id, d.integration_id = $1 AND d.destination = $2 AS is_meant FROM deliveries d
            WHERE d.event_id >= filtered_since() AND d.finished_at IS NOT NULL AND d.last_error IS NULL AND d.attempts = 0
                AND ",
            within!("d.event_id", $beyond),
            "
            ORDER BY d.event_id ",
            $order,
            " LIMIT $6"
        )
    };
}

/// Along the index events_integration.
macro_rules! events_of_integration {
    (ASC) => {
        events_of_integration!("GREATEST($3, $5)", "$4", ">", "ASC")
    };
    (DESC) => {
        events_of_integration!("$3", "LEAST($4, $5)", "<", "DESC")
    };
    ($first:literal, $last:literal, $beyond:literal, $order:literal) => {
        concat!(
            "SELECT indexed.id, true AS is_meant FROM (
            ",
            indexed_ids!(
                "l.integration_id",
                "$1",
                concat!("l.integration_id ", $order),
                $first,
                $last,
                within!("m.id", $beyond),
                $order,
                "$6"
            ),
            "
            ) AS indexed"
        )
    };
}

macro_rules! named_events {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT named.id, true AS is_meant FROM unnest($13::uuid[]) AS named (id)
            WHERE ",
            within!("named.id", $beyond),
            "
            ORDER BY named.id ",
            $order,
            " LIMIT $6"
        )
    };
}

const FAILED_ASC: &str = slice!("failed_asc", "max", failed_deliveries!(">", "ASC"));
const FAILED_DESC: &str = slice!("failed_desc", "min", failed_deliveries!("<", "DESC"));
const FILTERED_ASC: &str = slice!("filtered_asc", "max", filtered_deliveries!(">", "ASC"));
const FILTERED_DESC: &str = slice!("filtered_desc", "min", filtered_deliveries!("<", "DESC"));
const EVENTS_ASC: &str = slice!("events_asc", "max", events_of_integration!(ASC));
const EVENTS_DESC: &str = slice!("events_desc", "min", events_of_integration!(DESC));
const NAMED_ASC: &str = slice!("named_asc", "max", named_events!(">", "ASC"));
const NAMED_DESC: &str = slice!("named_desc", "min", named_events!("<", "DESC"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_in_both_orders_differ_only_in_the_direction() {
        let pairs = [
            (FAILED_ASC, FAILED_DESC),
            (FILTERED_ASC, FILTERED_DESC),
            (EVENTS_ASC, EVENTS_DESC),
            (NAMED_ASC, NAMED_DESC),
        ];
        for (ascending, descending) in pairs {
            // The last attempt is the last one either way.
            let turned = descending.replace("attempt_no DESC", "attempt_no latest");
            let turned = turned.replace("_desc", "_asc").replace("min(id", "max(id").replace(" DESC", " ASC");
            let turned =
                turned.replace("_slot($3)", "_slot(GREATEST($3, $5))").replace("LEAST($4, $5)", "$4");
            let turned = turned.replace("id < $5", "id > $5").replace("attempt_no latest", "attempt_no DESC");
            assert_eq!(turned, ascending);
        }
    }

    #[test]
    fn patterns_are_literal_but_for_their_stars() {
        assert_eq!(glob("order.*"), "order.%");
        assert_eq!(glob(r"a_b%\c"), r"a\_b\%\\c");
        assert_eq!(anywhere("50%"), r"%50\%%");
    }
}
