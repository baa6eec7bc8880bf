//! The ids of the events on a page, in order, and the number of events in the list.
//!
//! [`collect_matching`] counts. Where no more than the cap match, it has found them all, and the page is cut from them.
//! Where more do, [`find`] walks to the page, and with so many events that match the walk is short.

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::event_sql as sql;
use super::events::{EventFilter, EventSelection, EventStatus};
use super::id_time::id_at;
use super::owners::bare;
use super::page::{Order, Position, TOTAL_CAP};
use crate::error::Result;

/// The sort key of the ids; the id settles equal keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortKey {
    /// The id is the time of receipt.
    Id,
    OccurredAt,
}

/// A walk along the list of the events in one status, of those with a filtered delivery, or of all events, from a position to the end of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventWalk<'a> {
    pub(super) filter: &'a EventFilter,
    pub(super) selection: Option<EventSelection>,
    pub(super) key: SortKey,
    pub(super) order: Order,
    pub(super) after_id: Option<Uuid>,
    pub(super) after_time: Option<jiff_sqlx::Timestamp>,
    pub(super) limit: i64,
    pub(super) offset: i64,
}

/// The events that pass a filter: their number, and the events themselves when they are few.
#[derive(Debug)]
pub(super) struct MatchingEvents {
    /// One more than [`super::TOTAL_CAP`] when there are more than that.
    pub(super) counted: i64,
    /// The positions of all, in no order; `None` when there are more than the cap.
    pub(super) positions: Option<Vec<Position>>,
}

/// Counts the events that pass the filter. When few events pass it and no index serves it, this reads the whole history;
/// so it keeps the events found on the way, and their page is made of them without a second reading.
pub(super) async fn collect_matching(
    connection: &mut PgConnection,
    filter: &EventFilter,
    selection: Option<EventSelection>,
    key: SortKey,
) -> Result<MatchingEvents> {
    use EventSelection::{Filtered, Status};
    let is_processed = selection == Some(Status(EventStatus::Processed));
    if is_processed && *filter == EventFilter::default() && are_more_processed(connection).await? {
        return Ok(MatchingEvents { counted: i64::from(TOTAL_CAP) + 1, positions: None });
    }
    let statement = match selection {
        None | Some(Status(EventStatus::Processed)) => sql::MATCHING_EVENTS,
        Some(Status(EventStatus::Failed)) => sql::MATCHING_FAILED,
        Some(Filtered) => sql::MATCHING_FILTERED,
        Some(Status(_)) => sql::MATCHING_OPEN,
    };
    let row = sqlx::query(statement)
        .bind(filter.provider.as_deref())
        .bind(filter.event_type.as_deref())
        .bind(filter.subject_pattern())
        .bind(filter.from.map(jiff_sqlx::Timestamp::from))
        .bind(filter.until.map(jiff_sqlx::Timestamp::from))
        .bind(selection.map(EventSelection::as_str))
        .bind(key == SortKey::OccurredAt)
        .bind(bare(filter.visible.as_deref()))
        .fetch_one(connection)
        .await?;
    let counted: i64 = row.try_get("counted")?;
    if counted > i64::from(TOTAL_CAP) {
        return Ok(MatchingEvents { counted, positions: None });
    }
    // Aggregates of nothing are NULL.
    let ids: Vec<Uuid> = row.try_get::<Option<_>, _>("ids")?.unwrap_or_default();
    let positions = match key {
        SortKey::Id => ids.into_iter().map(|id| Position { key: 0, id }).collect(),
        SortKey::OccurredAt => {
            let times: Vec<jiff_sqlx::Timestamp> = row.try_get::<Option<_>, _>("times")?.unwrap_or_default();
            let keys = times.into_iter().map(|time| time.to_jiff().as_microsecond());
            keys.zip(ids).map(|(key, id)| Position { key, id }).collect()
        }
    };
    Ok(MatchingEvents { counted, positions: Some(positions) })
}

/// Returns whether more events than the cap are processed, as far as that is known without a look at each.
async fn are_more_processed(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar(sql::MORE_PROCESSED).fetch_one(connection).await?)
}

/// Returns the ids of a walk, in its order.
pub(super) async fn find(connection: &mut PgConnection, walk: EventWalk<'_>) -> Result<Vec<Uuid>> {
    use EventSelection::{Filtered, Status};
    use EventStatus::{Failed, Processed};
    use Order::{Ascending, Descending};
    use SortKey::{Id, OccurredAt};
    let statement = match (walk.key, walk.selection, walk.order) {
        (Id, None | Some(Status(Processed)), Descending) => sql::EVENTS_BY_ID_DESC,
        (Id, None | Some(Status(Processed)), Ascending) => sql::EVENTS_BY_ID_ASC,
        (Id, Some(Status(Failed)), Descending) => sql::FAILED_BY_ID_DESC,
        (Id, Some(Status(Failed)), Ascending) => sql::FAILED_BY_ID_ASC,
        (Id, Some(Filtered), Descending) => sql::FILTERED_BY_ID_DESC,
        (Id, Some(Filtered), Ascending) => sql::FILTERED_BY_ID_ASC,
        (Id, Some(Status(_)), Descending) => sql::OPEN_BY_ID_DESC,
        (Id, Some(Status(_)), Ascending) => sql::OPEN_BY_ID_ASC,
        (OccurredAt, _, Descending) => sql::EVENTS_BY_OCCURRED_AT_DESC,
        (OccurredAt, _, Ascending) => sql::EVENTS_BY_OCCURRED_AT_ASC,
    };
    let (first, end) = match walk.key {
        Id => walk.filter.window_ids(),
        OccurredAt => bounds(connection, walk.selection).await?,
    };
    let filter = walk.filter;
    let ids = sqlx::query_scalar(statement)
        .bind(filter.provider.as_deref())
        .bind(filter.event_type.as_deref())
        .bind(filter.subject_pattern())
        .bind(filter.from.map(jiff_sqlx::Timestamp::from))
        .bind(filter.until.map(jiff_sqlx::Timestamp::from))
        .bind(walk.selection.map(EventSelection::as_str))
        .bind(walk.after_id)
        .bind(walk.after_time)
        .bind(walk.limit)
        .bind(walk.offset)
        .bind(first)
        .bind(end)
        .bind(bare(filter.visible.as_deref()))
        .fetch_all(connection)
        .await?;
    Ok(ids)
}

/// Returns the first and the last id that a selected event can have.
async fn bounds(connection: &mut PgConnection, selection: Option<EventSelection>) -> Result<(Uuid, Uuid)> {
    use EventSelection::{Filtered, Status};
    let query = match selection {
        None | Some(Status(EventStatus::Processed)) => return Ok((Uuid::nil(), Uuid::max())),
        Some(Status(EventStatus::Failed)) => sqlx::query(sql::BOUNDS_OF_FAILED),
        Some(Filtered) => sqlx::query(sql::BOUNDS_OF_FILTERED),
        Some(Status(open)) => sqlx::query(sql::BOUNDS_OF_OPEN).bind(open.as_str()),
    };
    let row = query.fetch_one(connection).await?;
    // When no event is selected, no id lies between these.
    let first: Option<Uuid> = row.try_get("first")?;
    let last: Option<Uuid> = row.try_get("last")?;
    Ok((first.unwrap_or(Uuid::max()), last.unwrap_or(Uuid::nil())))
}

/// The largest difference between receipt and occurrence at which the walk around a window meets the event.
const WINDOW_MARGIN_MILLISECONDS: i64 = 10 * 60 * 1000;

impl EventFilter {
    /// Returns the first id, and the end of the ids, of the events received around the window of occurrence.
    fn window_ids(&self) -> (Uuid, Uuid) {
        let first = self.from.map_or(Uuid::nil(), |from| {
            id_at(from.as_millisecond().saturating_sub(WINDOW_MARGIN_MILLISECONDS))
        });
        let end = self.until.map_or(Uuid::max(), |until| {
            id_at(until.as_millisecond().saturating_add(WINDOW_MARGIN_MILLISECONDS))
        });
        // The walks must not overlap, even when the window is empty.
        (first, end.max(first))
    }

    /// Returns the ILIKE pattern of the subject.
    pub(super) fn subject_pattern(&self) -> Option<String> {
        self.subject.as_deref().map(anywhere)
    }
}

/// Returns the ILIKE pattern that matches the text anywhere, literally.
pub(super) fn anywhere(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
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
