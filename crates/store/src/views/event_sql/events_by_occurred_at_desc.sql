/* views::events_by_occurred_at_desc */
-- $1 to $5 and $13 the filters, $6 the status, $7 the id and $8 the time to go on after, $9 the limit, $10 the offset,
-- $11 the first and $12 the last id that can be in the status.
--
-- No index has both the status and occurred_at: the walk tests every event on its way, and the bounds keep it from the
-- days that have none.
SELECT e.id FROM events e
WHERE ($7::uuid IS NULL OR (e.occurred_at, e.id) < ($8, $7))
    AND e.id >= $11 AND e.id <= $12
    AND ($1::text IS NULL OR e.provider = $1)
    AND ($2::text IS NULL OR e.event_type = $2)
    AND ($3::text IS NULL OR e.subject ILIKE $3)
    AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
    AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
    AND ($13::uuid[] IS NULL OR e.integration_id = ANY($13))
    AND ($6::text IS NULL OR (
        SELECT CASE
            WHEN $6 = 'filtered' THEN
                CASE WHEN bool_or(o.finished_at IS NOT NULL AND o.last_error IS NULL AND o.attempts = 0) THEN 'filtered' END
            ELSE CASE WHEN COALESCE(bool_and(o.status = 'succeeded'), true) THEN 'processed'
                ELSE COALESCE(max(o.status) FILTER (WHERE o.finished_at IS NULL)::text, 'failed') END
            END
        FROM deliveries o WHERE o.event_id = e.id
    ) = $6)
ORDER BY e.occurred_at DESC, e.id DESC LIMIT $9 OFFSET $10
