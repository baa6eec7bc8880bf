//! What is walked: the rows of each source, in the order of the list and as many as a slice has.
//!
//! $1 the integrations, $3 the type, $7 the external id, $9 the destination, $12 the text of the body, $13 the first id of the window of
//! receipt, $14 its end, $15 the id to go on after. How many rows there are at most is said by who uses them, in a slice by $16.

/// The columns that the condition needs. Where nothing looks for a text, a slice that is sorted has no bodies to carry.
macro_rules! columns {
    () => {
        "e.id, e.integration_id, e.provider, e.event_type, e.subject, e.occurred_at, e.external_event_id, e.correlation_id,
                CASE WHEN $12::bytea IS NOT NULL THEN e.raw_body END AS raw_body,
                CASE WHEN $12::bytea IS NOT NULL THEN e.payload END AS payload, e.payload_start, e.payload_length, e.request_id"
    };
}

macro_rules! is_in_window {
    ($id:literal, $beyond:literal) => {
        concat!($id, " >= $13 AND ", $id, " < $14 AND ($15::uuid IS NULL OR ", $id, " ", $beyond, " $15)")
    };
}

/// All events.
macro_rules! all_events {
    ($beyond:literal, $order:literal) => {
        all_events!($beyond, $order, "$16")
    };
    ($beyond:literal, $order:literal, $rows:expr) => {
        concat!(
            "SELECT ",
            columns!(),
            " FROM events e
                WHERE ",
            is_in_window!("e.id", $beyond),
            "
                ORDER BY e.id ",
            $order,
            " LIMIT ",
            $rows
        )
    };
}

/// The heads of the walks of each integration are merged, along an index that begins with the columns of the key (see [`crate::events::index`]). A
/// purge may have deleted an event and not yet the one that leads it: it counts as read.
macro_rules! events_along_index {
    (DESC, $key:expr, $of:expr, $sorted:expr) => {
        events_along_index!($key, $of, $sorted, "$13", "LEAST($14, $15)", "<", "DESC")
    };
    (ASC, $key:expr, $of:expr, $sorted:expr) => {
        events_along_index!($key, $of, $sorted, "GREATEST($13, $15)", "$14", ">", "ASC")
    };
    ($key:expr, $of:expr, $sorted:expr, $first:expr, $last:expr, $beyond:literal, $order:literal) => {
        concat!(
            "SELECT found.id, e.integration_id, e.provider, e.event_type, e.subject, e.occurred_at, e.external_event_id, e.correlation_id,
                    e.raw_body, e.payload, e.payload_start, e.payload_length, e.request_id
                FROM (
                    SELECT m.id FROM unnest($1::uuid[]) AS integration (id) CROSS JOIN LATERAL (
                    ",
            indexed_ids!(
                $key,
                $of,
                $sorted,
                $first,
                $last,
                is_in_window!("m.id", $beyond),
                $order,
                "$16"
            ),
            "
                    ) AS m
                    ORDER BY m.id ",
            $order,
            " LIMIT $16
                ) AS found LEFT JOIN LATERAL (
                    SELECT ",
            columns!(),
            " FROM events e WHERE e.id = found.id OFFSET 0
                ) AS e ON true"
        )
    };
}

macro_rules! events_of_integrations {
    ($order:ident) => {
        events_along_index!(
            $order,
            "l.integration_id",
            "integration.id",
            concat!("l.integration_id ", stringify!($order))
        )
    };
}

macro_rules! events_of_types {
    ($order:ident) => {
        events_along_index!(
            $order,
            "l.integration_id, l.event_type",
            "integration.id, $3",
            concat!("l.integration_id ", stringify!($order), ", l.event_type ", stringify!($order))
        )
    };
}

/// Through the keys that are made of the id, one for each integration; those of other events are in the index events_external. OFFSET 0 has the few
/// events collected and sorted; a walk in the order of the ids would look for them among all.
macro_rules! events_of_external_id {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT * FROM (
                    SELECT ",
            columns!(),
            " FROM events e
                    WHERE hashtext(e.external_event_id) = hashtext($7) AND e.external_event_id = $7 AND NOT e.external_id_in_key
                        AND ",
            is_in_window!("e.id", $beyond),
            "
                    UNION ALL
                    SELECT e.* FROM (
                        SELECT (
                            SELECT k.event_id FROM idempotency_keys k
                            WHERE k.key_hash = ",
            key_hash!("i.id || ':' || $7"),
            "
                        ) AS id
                        FROM integrations i WHERE $1::uuid[] IS NULL OR i.id = ANY($1)
                        OFFSET 0
                    ) AS known CROSS JOIN LATERAL (
                        SELECT ",
            columns!(),
            " FROM events e WHERE e.id = known.id AND e.external_id_in_key AND ",
            is_in_window!("e.id", $beyond),
            "
                        OFFSET 0
                    ) AS e
                    WHERE known.id IS NOT NULL
                    OFFSET 0
                ) AS e
                ORDER BY e.id ",
            $order,
            " LIMIT $16"
        )
    };
}

/// In the words of a partial index, with a destination in those of deliveries_failed_destination. Those of other integrations count as read: a
/// slice has so many rows, however few of them are meant.
macro_rules! finished_deliveries {
    ($which:literal, $beyond:literal, $order:literal) => {
        concat!(
            "slice AS MATERIALIZED (
            SELECT d.event_id AS id, ($1::uuid[] IS NULL OR d.integration_id = ANY($1)) AS is_meant FROM deliveries d
            WHERE ",
            $which,
            " AND ($9::text IS NULL OR d.destination = $9)
                AND ",
            is_in_window!("d.event_id", $beyond),
            "
            ORDER BY d.event_id ",
            $order,
            " LIMIT $16
        )"
        )
    };
}

/// The index deliveries_open is ordered within one destination: its destinations, those of the integrations if there are some, are found by
/// skipping through it, and the heads of their walks are merged.
macro_rules! open_deliveries {
    ($beyond:literal, $order:literal) => {
        concat!(
            "queues AS (
            (
                (
                    SELECT integration_id, destination FROM deliveries
                    WHERE $1::uuid[] IS NULL AND finished_at IS NULL
                    ORDER BY integration_id, destination LIMIT 1
                )
                UNION ALL
                SELECT first.* FROM unnest($1::uuid[]) AS integration (id) CROSS JOIN LATERAL (
                    SELECT integration_id, destination FROM deliveries
                    WHERE finished_at IS NULL AND integration_id = integration.id
                    ORDER BY destination LIMIT 1
                ) first
            )
            UNION ALL
            SELECT following.* FROM queues known, LATERAL (
                SELECT integration_id, destination FROM deliveries
                WHERE finished_at IS NULL
                    AND (integration_id, destination) > (known.integration_id, known.destination)
                    AND ($1::uuid[] IS NULL OR integration_id = known.integration_id)
                ORDER BY integration_id, destination LIMIT 1
            ) following
        ), slice AS MATERIALIZED (
            SELECT head.event_id AS id, true AS is_meant FROM queues CROSS JOIN LATERAL (
                SELECT d.event_id FROM deliveries d
                WHERE d.integration_id = queues.integration_id AND d.destination = queues.destination
                    AND d.finished_at IS NULL
                    AND ",
            is_in_window!("d.event_id", $beyond),
            "
                ORDER BY d.event_id ",
            $order,
            " LIMIT $16
            ) AS head
            WHERE $9::text IS NULL OR queues.destination = $9
            ORDER BY head.event_id ",
            $order,
            " LIMIT $16
        )"
        )
    };
}
