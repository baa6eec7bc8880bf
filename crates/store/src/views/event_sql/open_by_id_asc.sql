/* views::open_by_id_asc */
-- $1 to $5 and $13 the filters, $6 the status, $7 the id to go on after, $9 the limit, $10 the offset.
--
-- The index deliveries_open is ordered within one destination: its destinations are found by skipping through it, and
-- the heads of their walks are merged. The delivery decides its event's status (max(o.status) goes by the declared
-- order of delivery_status) and is the first of the event's that does, so that an event is met once.
WITH RECURSIVE destinations AS (
    (
        SELECT integration_id, destination FROM deliveries
        WHERE finished_at IS NULL
        ORDER BY integration_id, destination LIMIT 1
    )
    UNION ALL
    SELECT following.* FROM destinations known, LATERAL (
        SELECT integration_id, destination FROM deliveries
        WHERE finished_at IS NULL
            AND (integration_id, destination) > (known.integration_id, known.destination)
        ORDER BY integration_id, destination LIMIT 1
    ) following
)
SELECT head.event_id FROM destinations
CROSS JOIN LATERAL (
    SELECT d.event_id FROM deliveries d
    WHERE d.integration_id = destinations.integration_id AND d.destination = destinations.destination
        AND ($7::uuid IS NULL OR d.event_id > $7)
        AND d.finished_at IS NULL AND d.status::text = $6
        AND (
            SELECT max(o.status) = d.status
                AND min(o.destination) FILTER (WHERE o.status = d.status) = d.destination
            FROM deliveries o WHERE o.event_id = d.event_id AND o.finished_at IS NULL
        )
        AND ($13::uuid[] IS NULL OR d.integration_id = ANY($13))
        AND (
            ($1::text IS NULL AND $2::text IS NULL AND $3::text IS NULL
                AND $4::timestamptz IS NULL AND $5::timestamptz IS NULL)
            OR (
                SELECT true FROM events e
                WHERE e.id = d.event_id
                    AND ($1::text IS NULL OR e.provider = $1)
                    AND ($2::text IS NULL OR e.event_type = $2)
                    AND ($3::text IS NULL OR e.subject ILIKE $3)
                    AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
                    AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
            )
        )
    ORDER BY d.event_id ASC LIMIT $9 + $10
) head
ORDER BY head.event_id ASC LIMIT $9 OFFSET $10
