/* views::filtered_by_id_asc */
-- $1 to $5 and $13 the filters, $7 the id to go on after, $9 the limit, $10 the offset.
--
-- In the words of the index deliveries_filtered, from the first id on that such an event can have. The delivery is the first filtered
-- one of its event, so that an event is met once.
SELECT d.event_id FROM deliveries d
WHERE ($7::uuid IS NULL OR d.event_id > $7)
    AND d.event_id >= filtered_since()
    AND d.finished_at IS NOT NULL AND d.last_error IS NULL AND d.attempts = 0
    AND (
        SELECT min(o.destination) = d.destination FROM deliveries o
        WHERE o.event_id = d.event_id AND o.finished_at IS NOT NULL AND o.last_error IS NULL AND o.attempts = 0
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
ORDER BY d.event_id ASC LIMIT $9 OFFSET $10
