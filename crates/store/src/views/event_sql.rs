//! The statements about events.
//!
//! Each walk follows an index in the order of the list and tests what it meets with correlated scalar subqueries.
//! PostgreSQL never turns those into joins, so a plan cannot flip to reading whole tables: the walk ends as soon as
//! the page is full. What each of them costs is in the documentation of [`super`].
//!
//! Statements that differ in a few words only are put together by macros, so that all of them are static text.

// Parameters of all statements here: $1 to $5 the filters, $6 the status, $7 and $8 the id and the time to go on
// after, $9 the limit, $10 the offset, $11 and $12 bounds of the id.

macro_rules! filters {
    () => {
        "($1::text IS NULL OR e.provider = $1)
        AND ($2::text IS NULL OR e.event_type = $2)
        AND ($3::text IS NULL OR e.subject ILIKE $3)
        AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
        AND ($5::timestamptz IS NULL OR e.occurred_at < $5)"
    };
}

// The status of an event, over its deliveries; the declared order of the enum is the order in which unfinished ones are
// advanced. An event without deliveries would have nothing left to do.
macro_rules! event_status {
    ($delivery:literal) => {
        concat!(
            "CASE WHEN COALESCE(bool_and(",
            $delivery,
            ".status = 'succeeded'), true) THEN 'processed'
                ELSE COALESCE(max(",
            $delivery,
            ".status) FILTER (WHERE ",
            $delivery,
            ".finished_at IS NULL)::text, 'failed') END"
        )
    };
}

macro_rules! in_status {
    () => {
        concat!(
            "($6::text IS NULL OR (SELECT ",
            event_status!("o"),
            " FROM deliveries o WHERE o.event_id = e.id) = $6)"
        )
    };
}

// The delivery decides its event's status, and is the first of the event's that does, so that an event is met once.
macro_rules! leads_open {
    () => {
        "d.finished_at IS NULL AND d.status::text = $6
        AND (SELECT max(o.status) = d.status
                AND min(o.destination) FILTER (WHERE o.status = d.status) = d.destination
            FROM deliveries o WHERE o.event_id = d.event_id AND o.finished_at IS NULL)"
    };
}

// In the words of the index deliveries_failed.
macro_rules! leads_failed {
    () => {
        "d.finished_at IS NOT NULL AND d.last_error IS NOT NULL
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

// What was received after, around and before the window of occurredAt. Around it the walk of the primary key meets the
// window at once. Before and after, events of the window are rare: OFFSET 0 has them collected, by the index on
// occurred_at, and sorted. A single walk would pass everything that is newer than an old window.
macro_rules! events_by_id {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* views::", $name, " */
            SELECT id FROM (",
            events_by_id!(@part "e.id >= $12", "OFFSET 0", $compare, $direction),
            " UNION ALL ",
            events_by_id!(@part "e.id >= $11 AND e.id < $12", "", $compare, $direction),
            " UNION ALL ",
            events_by_id!(@part "e.id < $11", "OFFSET 0", $compare, $direction),
            ") AS parts ORDER BY id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
    (@part $bounds:literal, $fence:literal, $compare:literal, $direction:literal) => {
        concat!(
            "(SELECT id FROM (SELECT e.id FROM events e WHERE ",
            $bounds,
            " AND ($7::uuid IS NULL OR e.id ",
            $compare,
            " $7) AND ",
            filters!(),
            " AND ",
            in_status!(),
            " ",
            $fence,
            ") AS part ORDER BY id ",
            $direction,
            " LIMIT $9 + $10)"
        )
    };
}

// No index has both the status and occurred_at: the walk tests every event on its way. $11 and $12 are the first and the
// last that can be in the status, which keeps it from the days that have none.
macro_rules! events_by_occurred_at {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* views::",
            $name,
            " */
            SELECT e.id FROM events e WHERE ($7::uuid IS NULL OR (e.occurred_at, e.id) ",
            $compare,
            " ($8, $7)) AND e.id >= $11 AND e.id <= $12 AND ",
            filters!(),
            " AND ",
            in_status!(),
            " ORDER BY e.occurred_at ",
            $direction,
            ", e.id ",
            $direction,
            " LIMIT $9 OFFSET $10"
        )
    };
}

// There is no min(uuid); as text the order is the same.
pub(super) const BOUNDS_OF_OPEN: &str = "/* views::bounds_of_open */
    SELECT min(event_id::text)::uuid AS first, max(event_id::text)::uuid AS last
    FROM deliveries WHERE finished_at IS NULL AND status::text = $1";

pub(super) const BOUNDS_OF_FAILED: &str = "/* views::bounds_of_failed */
    SELECT (SELECT event_id FROM deliveries WHERE finished_at IS NOT NULL AND last_error IS NOT NULL ORDER BY event_id LIMIT 1) AS first,
        (SELECT event_id FROM deliveries WHERE finished_at IS NOT NULL AND last_error IS NOT NULL ORDER BY event_id DESC LIMIT 1) AS last";

// deliveries_open is ordered within one destination: its destinations are found by skipping through the index, and
// the heads of their walks are merged.
macro_rules! open_by_id {
    ($name:literal, $compare:literal, $direction:literal) => {
        concat!(
            "/* views::", $name, " */
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
            "/* views::",
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

// Stops at one more than the cap: then there are more, and the ids are no use. $7 asks for the times too.
macro_rules! stock {
    ($name:literal, $matching:expr) => {
        concat!(
            "/* views::",
            $name,
            " */
            SELECT count(*) AS counted, CASE WHEN count(*) <= 10000 THEN array_agg(id) END AS ids,
                CASE WHEN count(*) <= 10000 AND $7 THEN array_agg(occurred_at) END AS times
            FROM (",
            $matching,
            " LIMIT 10001) AS matching"
        )
    };
}

macro_rules! stock_of_deliveries {
    ($name:literal, $leads:expr) => {
        stock!(
            $name,
            concat!(
                "SELECT d.event_id AS id,
                    CASE WHEN $7 THEN (SELECT e.occurred_at FROM events e WHERE e.id = d.event_id) END AS occurred_at
                FROM deliveries d WHERE ",
                $leads,
                " AND ",
                event_passes!()
            )
        )
    };
}

pub(super) const STOCK_OF_EVENTS: &str = stock!(
    "stock_of_events",
    concat!(
        "SELECT e.id, CASE WHEN $7 THEN e.occurred_at END AS occurred_at FROM events e WHERE ",
        filters!(),
        " AND ",
        in_status!()
    )
);

pub(super) const EVENTS_BY_ID_DESC: &str = events_by_id!("events_by_id_desc", "<", "DESC");
pub(super) const EVENTS_BY_ID_ASC: &str = events_by_id!("events_by_id_asc", ">", "ASC");
pub(super) const FAILED_BY_ID_DESC: &str = failed_by_id!("failed_by_id_desc", "<", "DESC");
pub(super) const FAILED_BY_ID_ASC: &str = failed_by_id!("failed_by_id_asc", ">", "ASC");
pub(super) const OPEN_BY_ID_DESC: &str = open_by_id!("open_by_id_desc", "<", "DESC");
pub(super) const OPEN_BY_ID_ASC: &str = open_by_id!("open_by_id_asc", ">", "ASC");
pub(super) const EVENTS_BY_OCCURRED_AT_DESC: &str =
    events_by_occurred_at!("events_by_occurred_at_desc", "<", "DESC");
pub(super) const EVENTS_BY_OCCURRED_AT_ASC: &str =
    events_by_occurred_at!("events_by_occurred_at_asc", ">", "ASC");
pub(super) const STOCK_OF_FAILED: &str = stock_of_deliveries!("stock_of_failed", leads_failed!());
pub(super) const STOCK_OF_OPEN: &str = stock_of_deliveries!("stock_of_open", leads_open!());

// The derived columns of an event; `e` is the event. An aggregate without GROUP BY always answers one row.
macro_rules! derived {
    () => {
        concat!(
            "CROSS JOIN LATERAL (
            SELECT ",
            event_status!("d"),
            " AS status,
                COALESCE(sum(d.attempts), 0)::bigint AS attempts,
                (array_agg(d.last_error ORDER BY d.updated_at DESC)
                    FILTER (WHERE d.last_error IS NOT NULL AND d.status <> 'succeeded'))[1] AS last_error,
                max(d.updated_at) AS updated_at
            FROM deliveries d WHERE d.event_id = e.id
        ) AS delivered
        CROSS JOIN LATERAL (
            SELECT max(a.started_at + a.duration_ms * interval '1 millisecond') AS last_processed_at
            FROM delivery_attempts a WHERE a.event_id = e.id
        ) AS attempted"
        )
    };
}

macro_rules! columns {
    () => {
        "e.id, e.integration_id, e.provider, e.external_event_id, e.event_type, e.subject, e.occurred_at,
        e.received_at, e.correlation_id, e.payload_key, e.body_form, e.secret_index, delivered.status, delivered.attempts, delivered.last_error,
        delivered.updated_at, attempted.last_processed_at"
    };
}

pub(super) const LOAD_EVENTS: &str = concat!(
    "/* views::load_events */ SELECT ",
    columns!(),
    ", CASE WHEN e.payload_length <= $4 THEN substring(e.raw_body FROM e.payload_start + 1 FOR e.payload_length)
        END AS payload
    FROM events e ",
    derived!(),
    " WHERE e.id = ANY($1) AND e.id BETWEEN $2 AND $3"
);

pub(super) const LOAD_EVENT: &str = concat!(
    "/* views::load_event */ SELECT ",
    columns!(),
    ", substring(e.raw_body FROM e.payload_start + 1 FOR e.payload_length) AS payload, e.raw_body,
        e.headers::text AS headers, host(e.source_ip) AS source_ip, e.idempotency_key
    FROM events e ",
    derived!(),
    " WHERE e.id = $1"
);

// The payload is not read.
pub(super) const LOAD_PROCESSING: &str = concat!(
    "/* views::load_processing */
    SELECT e.id, delivered.status, delivered.attempts, delivered.last_error, attempted.last_processed_at
    FROM events e ",
    derived!(),
    " WHERE e.id = $1"
);
