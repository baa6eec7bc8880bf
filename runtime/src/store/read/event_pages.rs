//! Which events are on a page: ids only, in order, and how many there are.
//!
//! Each statement walks an index in the order of the list and tests what it meets with correlated scalar subqueries.
//! PostgreSQL never turns those into joins, so a plan cannot flip to reading whole tables: the walk ends as soon as
//! the page is full. What each of them costs is in the documentation of [`super`].

use sqlx::PgConnection;
use uuid::Uuid;

use super::failure::StoreFailure;
use super::instant::id_at;
use super::page::Order;
use super::{EventFilter, EventStatus};

/// What the ids are sorted by; the id settles equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// The id is the time of receipt.
    Id,
    OccurredAt,
}

/// A stretch of a list of events in one status (or of all events).
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub(super) filter: &'a EventFilter,
    pub(super) status: Option<EventStatus>,
    pub(super) key: Key,
    pub(super) order: Order,
    pub(super) after_id: Option<Uuid>,
    pub(super) after_time: Option<jiff_sqlx::Timestamp>,
    pub(super) limit: i64,
    pub(super) offset: i64,
}

// Parameters of all statements here: $1 to $5 the filters, $6 the status, $7 and $8 the id and the time to go on
// after, $9 the limit, $10 the offset, $11 and $12 the ids between which the window of $4 and $5 lies.

macro_rules! filters {
    () => {
        "($1::text IS NULL OR e.provider = $1)
        AND ($2::text IS NULL OR e.event_type = $2)
        AND ($3::text IS NULL OR e.subject ILIKE $3)
        AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
        AND ($5::timestamptz IS NULL OR e.occurred_at < $5)"
    };
}

// All deliveries succeeded. Asked only of status `processed`.
macro_rules! processed {
    () => {
        "($6::text IS NULL OR COALESCE(
            (SELECT bool_and(o.status = 'succeeded') FROM deliveries o WHERE o.event_id = e.id), true))"
    };
}

// The delivery decides its event's status, and is the first of the event's that does, so that an event is met once.
// The declared order of the enum is the order in which unfinished deliveries are advanced.
macro_rules! leads_open {
    () => {
        "d.finished_at IS NULL AND d.status::text = $6
        AND (SELECT max(o.status) = d.status
                AND min(o.destination) FILTER (WHERE o.status = d.status) = d.destination
            FROM deliveries o WHERE o.event_id = d.event_id AND o.finished_at IS NULL)"
    };
}

macro_rules! leads_failed {
    () => {
        "d.status = 'failed'
        AND (SELECT bool_and(o.finished_at IS NOT NULL)
                AND min(o.destination) FILTER (WHERE o.status = 'failed') = d.destination
            FROM deliveries o WHERE o.event_id = d.event_id)"
    };
}

// The delivery's event passes the filters; without filters no event is read.
macro_rules! event_passes {
    () => {
        concat!(
            "(($1::text IS NULL AND $2::text IS NULL AND $3::text IS NULL
            AND $4::timestamptz IS NULL AND $5::timestamptz IS NULL)
            OR (SELECT true FROM events e WHERE e.id = d.event_id AND ",
            filters!(),
            "))"
        )
    };
}

// Three walks, of what was received after, around and before the window of occurredAt. Around it the walk of the
// primary key meets the window at once; before and after, events of the window are rare, and their planner statistics
// say so, which leads it to the index on occurred_at. One walk over all would pass everything newer than an old window.
macro_rules! events_by_id {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* read::", $name, " */
            SELECT id FROM (",
            events_by_id!(@walk "e.id >= $12", $compare, $direction),
            " UNION ALL ",
            events_by_id!(@walk "e.id >= $11 AND e.id < $12", $compare, $direction),
            " UNION ALL ",
            events_by_id!(@walk "e.id < $11", $compare, $direction),
            ") AS walks ORDER BY id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
    (@walk $bounds:literal, $compare:literal, $direction:literal) => {
        concat!(
            "(SELECT e.id FROM events e WHERE ",
            $bounds,
            " AND ($7::uuid IS NULL OR e.id ",
            $compare,
            " $7) AND ",
            filters!(),
            " AND ",
            processed!(),
            " ORDER BY e.id ",
            $direction,
            " LIMIT $9 + $10)"
        )
    };
}

macro_rules! events_by_occurred_at {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* read::",
            $name,
            " */
            SELECT e.id FROM events e WHERE ($7::uuid IS NULL OR (e.occurred_at, e.id) ",
            $compare,
            " ($8, $7)) AND ",
            filters!(),
            " AND ",
            processed!(),
            " ORDER BY e.occurred_at ",
            $direction,
            ", e.id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
}

// deliveries_open is ordered within one destination: its destinations are found by skipping through the index, and
// the heads of their walks are merged.
macro_rules! open_by_id {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* read::", $name, " */
            WITH RECURSIVE destinations AS (
                (SELECT integration_id, destination FROM deliveries WHERE finished_at IS NULL
                ORDER BY integration_id, destination LIMIT 1)
                UNION ALL
                SELECT following.* FROM destinations known, LATERAL (
                    SELECT integration_id, destination FROM deliveries WHERE finished_at IS NULL
                    AND (integration_id, destination) > (known.integration_id, known.destination)
                    ORDER BY integration_id, destination LIMIT 1) following
            )
            SELECT head.event_id FROM destinations CROSS JOIN LATERAL (
                SELECT d.event_id FROM deliveries d
                WHERE d.integration_id = destinations.integration_id AND d.destination = destinations.destination
                AND ($7::uuid IS NULL OR d.event_id ",
            $compare,
            " $7) AND ",
            leads_open!(),
            " AND ",
            event_passes!(),
            " ORDER BY d.event_id ",
            $direction,
            " LIMIT $9 + $10) head ORDER BY head.event_id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
}

macro_rules! failed_by_id {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* read::",
            $name,
            " */
            SELECT d.event_id FROM deliveries d WHERE ($7::uuid IS NULL OR d.event_id ",
            $compare,
            " $7) AND ",
            leads_failed!(),
            " AND ",
            event_passes!(),
            " ORDER BY d.event_id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
}

// No index has both the status and occurred_at: all events in the status are read and sorted.
macro_rules! deliveries_by_occurred_at {
    ($name:literal, $leads:expr, $compare:literal, $direction:literal) => {
        concat!(
            "/* read::",
            $name,
            " */
            SELECT event_id FROM (
                SELECT d.event_id, (SELECT e.occurred_at FROM events e WHERE e.id = d.event_id AND ",
            filters!(),
            ") AS occurred_at FROM deliveries d WHERE ",
            $leads,
            " OFFSET 0) AS found
            WHERE occurred_at IS NOT NULL AND ($7::uuid IS NULL OR (occurred_at, event_id) ",
            $compare,
            " ($8, $7)) ORDER BY occurred_at ",
            $direction,
            ", event_id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
}

// One more than the cap tells that there are more. In the caller's order nothing would be gained: any will do.
macro_rules! count_deliveries {
    ($name:literal, $leads:expr) => {
        concat!(
            "/* read::",
            $name,
            " */
            SELECT count(*) FROM (SELECT FROM deliveries d WHERE ",
            $leads,
            " AND ",
            event_passes!(),
            " LIMIT 10001) AS counted"
        )
    };
}

const COUNT_EVENTS: &str = concat!(
    "/* read::count_events */ SELECT count(*) FROM (SELECT FROM events e WHERE ",
    filters!(),
    " AND ",
    processed!(),
    " LIMIT 10001) AS counted"
);

/// The ids of a stretch, in its order.
pub(super) async fn find(
    connection: &mut PgConnection,
    stretch: Stretch<'_>,
) -> Result<Vec<Uuid>, StoreFailure> {
    use EventStatus::{Failed, Pending, Processed, Processing, Retrying};
    use Key::{Id, OccurredAt};
    use Order::{Ascending, Descending};
    let statement = match (stretch.status, stretch.key, stretch.order) {
        (None | Some(Processed), Id, Descending) => events_by_id!("events_by_id_desc", "<", "DESC"),
        (None | Some(Processed), Id, Ascending) => events_by_id!("events_by_id_asc", ">", "ASC"),
        (None | Some(Processed), OccurredAt, Descending) => {
            events_by_occurred_at!("events_by_occurred_at_desc", "<", "DESC")
        }
        (None | Some(Processed), OccurredAt, Ascending) => {
            events_by_occurred_at!("events_by_occurred_at_asc", ">", "ASC")
        }
        (Some(Failed), Id, Descending) => failed_by_id!("failed_by_id_desc", "<", "DESC"),
        (Some(Failed), Id, Ascending) => failed_by_id!("failed_by_id_asc", ">", "ASC"),
        (Some(Failed), OccurredAt, Descending) => {
            deliveries_by_occurred_at!("failed_by_occurred_at_desc", leads_failed!(), "<", "DESC")
        }
        (Some(Failed), OccurredAt, Ascending) => {
            deliveries_by_occurred_at!("failed_by_occurred_at_asc", leads_failed!(), ">", "ASC")
        }
        (Some(Pending | Processing | Retrying), Id, Descending) => {
            open_by_id!("open_by_id_desc", "<", "DESC")
        }
        (Some(Pending | Processing | Retrying), Id, Ascending) => {
            open_by_id!("open_by_id_asc", ">", "ASC")
        }
        (Some(Pending | Processing | Retrying), OccurredAt, Descending) => {
            deliveries_by_occurred_at!("open_by_occurred_at_desc", leads_open!(), "<", "DESC")
        }
        (Some(Pending | Processing | Retrying), OccurredAt, Ascending) => {
            deliveries_by_occurred_at!("open_by_occurred_at_asc", leads_open!(), ">", "ASC")
        }
    };
    let (first, end) = stretch.filter.window_ids();
    let filter = stretch.filter;
    let ids = sqlx::query_scalar(statement)
        .bind(filter.provider.as_deref())
        .bind(filter.event_type.as_deref())
        .bind(filter.subject_pattern())
        .bind(filter.from.map(jiff_sqlx::Timestamp::from))
        .bind(filter.until.map(jiff_sqlx::Timestamp::from))
        .bind(stretch.status.map(EventStatus::as_str))
        .bind(stretch.after_id)
        .bind(stretch.after_time)
        .bind(stretch.limit)
        .bind(stretch.offset)
        .bind(first)
        .bind(end)
        .fetch_all(connection)
        .await?;
    Ok(ids)
}

/// How many events pass the filter, counted to one more than the cap.
pub(super) async fn count(
    connection: &mut PgConnection,
    filter: &EventFilter,
    status: Option<EventStatus>,
) -> Result<i64, StoreFailure> {
    let statement = match status {
        None | Some(EventStatus::Processed) => COUNT_EVENTS,
        Some(EventStatus::Failed) => count_deliveries!("count_failed", leads_failed!()),
        Some(EventStatus::Pending | EventStatus::Processing | EventStatus::Retrying) => {
            count_deliveries!("count_open", leads_open!())
        }
    };
    let counted = sqlx::query_scalar(statement)
        .bind(filter.provider.as_deref())
        .bind(filter.event_type.as_deref())
        .bind(filter.subject_pattern())
        .bind(filter.from.map(jiff_sqlx::Timestamp::from))
        .bind(filter.until.map(jiff_sqlx::Timestamp::from))
        .bind(status.map(EventStatus::as_str))
        .fetch_one(connection)
        .await?;
    Ok(counted)
}

/// How far receipt may be from occurrence for the walk around a window to meet the event.
const WINDOW_MARGIN_MILLISECONDS: i64 = 10 * 60 * 1000;

impl EventFilter {
    /// The first id, and the end of the ids, of what was received around the window of occurrence.
    fn window_ids(&self) -> (Uuid, Uuid) {
        let first = self.from.map_or(Uuid::nil(), |from| {
            id_at(from.as_millisecond().saturating_sub(WINDOW_MARGIN_MILLISECONDS))
        });
        let end = self.until.map_or(Uuid::max(), |until| {
            id_at(until.as_millisecond().saturating_add(WINDOW_MARGIN_MILLISECONDS))
        });
        // An empty window is no reason to have the walks overlap.
        (first, end.max(first))
    }

    /// The ILIKE pattern that matches the text anywhere, literally.
    fn subject_pattern(&self) -> Option<String> {
        self.subject.as_deref().map(|subject| {
            let mut pattern = String::with_capacity(subject.len() + 2);
            pattern.push('%');
            for character in subject.chars() {
                if matches!(character, '%' | '_' | '\\') {
                    pattern.push('\\');
                }
                pattern.push(character);
            }
            pattern.push('%');
            pattern
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_is_matched_literally() {
        let filter = EventFilter { subject: Some(r"50%_\x".to_owned()), ..EventFilter::default() };
        assert_eq!(filter.subject_pattern().as_deref(), Some(r"%50\%\_\\x%"));
    }

    #[test]
    fn walks_never_overlap() {
        let time = |text: &str| Some(text.parse().unwrap());
        for (from, until) in [
            (None, None),
            (time("2026-01-01T00:00:00Z"), None),
            (None, time("2026-01-01T00:00:00Z")),
            (time("2026-01-02T00:00:00Z"), time("2026-01-01T00:00:00Z")),
            (time("-009999-01-02T01:59:59Z"), time("9999-12-30T22:00:00Z")),
        ] {
            let (first, end) = EventFilter { from, until, ..EventFilter::default() }.window_ids();
            assert!(first <= end, "{from:?} {until:?}");
        }
    }
}
