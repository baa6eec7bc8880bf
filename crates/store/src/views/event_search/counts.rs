//! The totals that indexes tell: nothing has to be tested.

use super::statements::Source;
use crate::events::index::{indexed_ids, is_entry};
use crate::views::events::{EventFilter, EventSelection, EventStatus};
use crate::views::integration_scope::IntegrationScope;

/// Returns the statement that counts the rows of a slice of a source, if an index says which of them pass. It may say nothing (NULL).
pub(super) fn count_statement(
    source: Source,
    filter: &EventFilter,
    selection: Option<EventSelection>,
    scope: &IntegrationScope,
) -> Option<&'static str> {
    let (all, processed, is_of_scope) = match source {
        Source::Events => (EVENTS, PROCESSED_EVENTS, scope.is_any() && filter.event_type.is_none()),
        Source::Integrations => (INTEGRATIONS, PROCESSED_OF_INTEGRATIONS, filter.event_type.is_none()),
        Source::Types => (TYPES, PROCESSED_OF_TYPES, true),
        Source::ExternalId | Source::Failed | Source::Filtered | Source::Open => return None,
    };
    let is_tested = filter.provider.is_some()
        || filter.subject.is_some()
        || filter.from.is_some()
        || filter.until.is_some()
        || filter.destination.is_some()
        || filter.external_event_id.is_some()
        || filter.correlation_id.is_some()
        || filter.http_status.is_some()
        || filter.text.is_some();
    if !is_of_scope || is_tested {
        return None;
    }
    match selection {
        None => Some(all),
        Some(EventSelection::Status(EventStatus::Processed)) => Some(processed),
        Some(_) => None,
    }
}

macro_rules! count_statement {
    ($name:literal, $count:expr) => {
        concat!("/* views::event_search::", $name, " */ SELECT LEAST($16, (", $count, "))")
    };
}

macro_rules! count_of_all {
    ($rows:expr) => {
        concat!("SELECT count(*) FROM (", all_events!("<", "DESC", $rows), ") AS counted")
    };
}

/// How many events of the window the integrations have, up to so many for each: what entries of an index say that are all in the window, and the ids in
/// the slots in which it begins and ends.
macro_rules! indexed_count {
    ($key:expr, $of:expr, $sorted:expr, $rows:expr) => {
        concat!(
            "SELECT COALESCE(sum(counted.events), 0)::bigint
            FROM unnest($1::uuid[]) AS integration (id) CROSS JOIN LATERAL (
                SELECT sum(entry.events) AS events FROM (
                    SELECT l.indexed_events AS events FROM events l
                    WHERE ",
            is_entry!($key, $of, ">", "$13", "<", "$14"),
            "
                    ORDER BY ",
            $sorted,
            ", id_slot(l.id) DESC LIMIT ",
            $rows,
            "
                ) AS entry
                UNION ALL
                SELECT count(*) FROM (
                    ",
            indexed_ids!($key, $of, $sorted, "$13", "$13", "m.id >= $13 AND m.id < $14", "DESC", $rows),
            "
                ) AS first
                UNION ALL
                SELECT count(*) FROM (
                    ",
            indexed_ids!(
                $key,
                $of,
                $sorted,
                "$14",
                "$14",
                "m.id >= $13 AND m.id < $14 AND id_slot($13) <> id_slot($14)",
                "DESC",
                $rows
            ),
            "
                ) AS last
            ) AS counted"
        )
    };
}

macro_rules! count_of_integrations {
    ($rows:expr) => {
        indexed_count!("l.integration_id", "integration.id", "l.integration_id DESC", $rows)
    };
}

macro_rules! count_of_types {
    ($rows:expr) => {
        indexed_count!(
            "l.integration_id, l.event_type",
            "integration.id, $3",
            "l.integration_id DESC, l.event_type DESC",
            $rows
        )
    };
}

/// Whether so many are surely processed, as `views::more_processed` does it: all are, but for at most one for each delivery that is unfinished or
/// failed. Of the failed ones, an index has those of all integrations together.
macro_rules! processed_statement {
    ($name:literal, $unfinished:literal, $count:expr) => {
        concat!(
            "/* views::event_search::",
            $name,
            " */
        WITH unprocessed AS MATERIALIZED (
            SELECT (SELECT count(*) FROM (",
            $unfinished,
            " LIMIT 10001) AS unfinished) + (
                SELECT count(*) FROM (
                    SELECT FROM deliveries WHERE finished_at IS NOT NULL AND last_error IS NOT NULL
                    ORDER BY event_id LIMIT 10001
                ) AS failed
            ) AS deliveries
        )
        SELECT CASE WHEN deliveries <= 10000 AND deliveries + $16 <= (",
            $count,
            ") THEN $16 END
        FROM unprocessed"
        )
    };
}

macro_rules! processed_of_integrations_statement {
    ($name:literal, $count:expr) => {
        processed_statement!(
            $name,
            "SELECT FROM unnest($1::uuid[]) AS integration (id) CROSS JOIN LATERAL (
                    SELECT FROM deliveries
                    WHERE finished_at IS NULL AND integration_id = integration.id
                    ORDER BY destination, event_id LIMIT 10001
                ) AS of_integration",
            $count
        )
    };
}

/// The rows that tell whether so many are processed.
macro_rules! with_unprocessed {
    () => {
        "(SELECT $16 + deliveries FROM unprocessed)"
    };
}

const EVENTS: &str = count_statement!("count_events", count_of_all!("$16"));
const INTEGRATIONS: &str = count_statement!("count_of_integrations", count_of_integrations!("$16"));
const TYPES: &str = count_statement!("count_of_types", count_of_types!("$16"));
const PROCESSED_EVENTS: &str = processed_statement!(
    "count_processed",
    "SELECT FROM deliveries WHERE finished_at IS NULL ORDER BY integration_id, destination, event_id",
    count_of_all!(with_unprocessed!())
);
const PROCESSED_OF_INTEGRATIONS: &str = processed_of_integrations_statement!(
    "count_processed_of_integrations",
    count_of_integrations!(with_unprocessed!())
);
const PROCESSED_OF_TYPES: &str =
    processed_of_integrations_statement!("count_processed_of_types", count_of_types!(with_unprocessed!()));
