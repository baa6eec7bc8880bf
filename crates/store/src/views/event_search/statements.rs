//! The statements of a search: one for each source and direction, with the same condition.

use crate::deliveries::is_filtered;
use crate::events::index::{indexed_ids, key_hash};
use crate::views::page::Order;

/// What is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Events,
    /// Those of a few integrations: each has an index in the order of the list.
    Integrations,
    /// Those of one type of a few integrations.
    Types,
    ExternalId,
    /// Failed deliveries, or those of one destination.
    Failed,
    Filtered,
    /// Unfinished deliveries.
    Open,
}

/// Returns the statement that reads a slice of a source, in this order.
pub(super) fn statement(source: Source, order: Order) -> &'static str {
    match (source, order) {
        (Source::Events, Order::Descending) => EVENTS_DESC,
        (Source::Events, Order::Ascending) => EVENTS_ASC,
        (Source::Integrations, Order::Descending) => INTEGRATIONS_DESC,
        (Source::Integrations, Order::Ascending) => INTEGRATIONS_ASC,
        (Source::Types, Order::Descending) => TYPES_DESC,
        (Source::Types, Order::Ascending) => TYPES_ASC,
        (Source::ExternalId, Order::Descending) => EXTERNAL_ID_DESC,
        (Source::ExternalId, Order::Ascending) => EXTERNAL_ID_ASC,
        (Source::Failed, Order::Descending) => FAILED_DESC,
        (Source::Failed, Order::Ascending) => FAILED_ASC,
        (Source::Filtered, Order::Descending) => FILTERED_DESC,
        (Source::Filtered, Order::Ascending) => FILTERED_ASC,
        (Source::Open, Order::Descending) => OPEN_DESC,
        (Source::Open, Order::Ascending) => OPEN_ASC,
    }
}

/// The condition on an event `e`. $1 the integrations, $2 the provider, $3 the type, $4 the pattern of the subject, $5 and $6 the window of
/// occurrence, $7 the external id, $8 the correlation id, $9 the destination, $10 the status, $11 the HTTP status of the last attempt, $12
/// the text of the body. With a destination, status and attempt are those of the delivery to it.
///
/// The cheap conditions come first. Of a request that it shares, an event has only its own part.
macro_rules! passes {
    () => {
        concat!(
            "($1::uuid[] IS NULL OR e.integration_id = ANY($1))
            AND ($2::text IS NULL OR e.provider = $2)
            AND ($3::text IS NULL OR e.event_type = $3)
            AND ($4::text IS NULL OR e.subject ILIKE $4)
            AND ($5::timestamptz IS NULL OR e.occurred_at >= $5)
            AND ($6::timestamptz IS NULL OR e.occurred_at < $6)
            AND ($7::text IS NULL OR e.external_event_id = $7)
            AND ($8::text IS NULL OR e.correlation_id = $8)
            AND ($12::bytea IS NULL OR position($12 IN
                CASE WHEN e.request_id IS NULL THEN e.raw_body ELSE COALESCE(e.payload, (
                    SELECT substring(r.raw_body FROM e.payload_start + 1 FOR e.payload_length)
                    FROM event_requests r WHERE r.id = e.request_id
                )) END
            ) > 0)
            AND ($9::text IS NULL AND $10::text IS NULL OR (
                SELECT CASE
                    WHEN $9 IS NOT NULL THEN COALESCE(bool_or($10 IS NULL OR $10 = CASE
                        WHEN ",
            is_filtered!(),
            " THEN 'filtered'
                        WHEN d.status = 'succeeded' THEN 'processed'
                        ELSE d.status::text END), false)
                    WHEN $10 = 'filtered' THEN COALESCE(bool_or",
            is_filtered!(),
            ", false)
                    ELSE $10 = CASE WHEN COALESCE(bool_and(d.status = 'succeeded'), true) THEN 'processed'
                        ELSE COALESCE(max(d.status) FILTER (WHERE d.finished_at IS NULL)::text, 'failed') END
                    END
                FROM deliveries d WHERE d.event_id = e.id AND ($9 IS NULL OR d.destination = $9)
            ))
            AND ($11::smallint IS NULL OR $11 = (
                SELECT a.http_status FROM delivery_attempts a
                WHERE a.event_id = e.id AND ($9::text IS NULL OR a.destination = $9)
                ORDER BY a.id DESC LIMIT 1
            ))"
        )
    };
}

/// A slice of events: $13 the first id of the window of receipt, $14 its end, $15 the id to go on after, $16 the rows.
macro_rules! events_statement {
    ($name:literal, $last:literal, $source:expr) => {
        concat!(
            "/* views::event_search::",
            $name,
            " */
        SELECT count(*) AS scanned, ",
            $last,
            "(id::text)::uuid AS last, array_agg(id) FILTER (WHERE passes) AS ids
        FROM (
            SELECT e.id, (",
            passes!(),
            ") AS passes FROM (
                ",
            $source,
            "
            ) AS e
        ) AS slice"
        )
    };
}

/// A slice of deliveries, in the order of their events. An event that is met more than once is tested once.
macro_rules! deliveries_statement {
    ($name:literal, $last:literal, $source:expr) => {
        concat!(
            "/* views::event_search::",
            $name,
            " */
        WITH RECURSIVE ",
            $source,
            "
        SELECT (SELECT count(*) FROM slice) AS scanned, (SELECT ",
            $last,
            "(id::text)::uuid FROM slice) AS last, array_agg(met.id) AS ids
        FROM (SELECT DISTINCT id FROM slice WHERE is_meant) AS met
        WHERE (SELECT ",
            passes!(),
            " FROM events e WHERE e.id = met.id)"
        )
    };
}

const EVENTS_DESC: &str = events_statement!("events_desc", "min", all_events!("<", "DESC"));
const EVENTS_ASC: &str = events_statement!("events_asc", "max", all_events!(">", "ASC"));
const INTEGRATIONS_DESC: &str = events_statement!("integrations_desc", "min", events_of_integrations!(DESC));
const INTEGRATIONS_ASC: &str = events_statement!("integrations_asc", "max", events_of_integrations!(ASC));
const TYPES_DESC: &str = events_statement!("types_desc", "min", events_of_types!(DESC));
const TYPES_ASC: &str = events_statement!("types_asc", "max", events_of_types!(ASC));
const EXTERNAL_ID_DESC: &str =
    events_statement!("external_id_desc", "min", events_of_external_id!("<", "DESC"));
const EXTERNAL_ID_ASC: &str = events_statement!("external_id_asc", "max", events_of_external_id!(">", "ASC"));
const FAILED_DESC: &str = deliveries_statement!(
    "failed_desc",
    "min",
    finished_deliveries!("d.finished_at IS NOT NULL AND d.last_error IS NOT NULL", "<", "DESC")
);
const FAILED_ASC: &str = deliveries_statement!(
    "failed_asc",
    "max",
    finished_deliveries!("d.finished_at IS NOT NULL AND d.last_error IS NOT NULL", ">", "ASC")
);
// In the words of deliveries_filtered, from the first id on that such an event can have.
const FILTERED_DESC: &str = deliveries_statement!(
    "filtered_desc",
    "min",
    finished_deliveries!(
        "d.event_id >= filtered_since() AND d.finished_at IS NOT NULL AND d.last_error IS NULL AND d.attempts = 0",
        "<",
        "DESC"
    )
);
const FILTERED_ASC: &str = deliveries_statement!(
    "filtered_asc",
    "max",
    finished_deliveries!(
        "d.event_id >= filtered_since() AND d.finished_at IS NOT NULL AND d.last_error IS NULL AND d.attempts = 0",
        ">",
        "ASC"
    )
);
const OPEN_DESC: &str = deliveries_statement!("open_desc", "min", open_deliveries!("<", "DESC"));
const OPEN_ASC: &str = deliveries_statement!("open_asc", "max", open_deliveries!(">", "ASC"));

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [Source; 7] = [
        Source::Events,
        Source::Integrations,
        Source::Types,
        Source::ExternalId,
        Source::Failed,
        Source::Filtered,
        Source::Open,
    ];

    #[test]
    fn ascending_and_descending_walks_differ_only_in_the_direction() {
        for source in SOURCES {
            // The last attempt is the last one either way.
            let turned = statement(source, Order::Descending)
                .replace("a.id DESC", "a.id latest")
                .replace("DESC", "ASC")
                .replace("a.id latest", "a.id DESC")
                .replace("_desc", "_asc")
                .replace("< $15", "> $15")
                .replace("_slot($13)", "_slot(GREATEST($13, $15))")
                .replace("LEAST($14, $15)", "$14")
                .replace("min(id", "max(id")
                // The last attempt is the same one in either direction.
                .replace("a.id ASC LIMIT 1\n", "a.id DESC LIMIT 1\n");
            assert_eq!(turned, statement(source, Order::Ascending), "{source:?}");
        }
    }
}
