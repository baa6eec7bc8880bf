/* views::events_by_id_desc */
-- $1 to $5 and $13 the filters, $6 the status, $7 the id to go on after, $9 the limit, $10 the offset, $11 the
-- first id and $12 the end of the ids of what was received around the window of occurred_at.
--
-- Around the window, the walk of the primary key meets its events at once. Before and after it they are rare: OFFSET 0
-- has them collected, by the index on occurred_at, and sorted. A single walk would pass everything that is newer than
-- an old window.
SELECT id FROM (
    (
        SELECT id FROM (
            SELECT e.id FROM events e
            WHERE e.id >= $12 AND ($7::uuid IS NULL OR e.id < $7)
                AND ($1::text IS NULL OR e.provider = $1)
                AND ($2::text IS NULL OR e.event_type = $2)
                AND ($3::text IS NULL OR e.subject ILIKE $3)
                AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
                AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
                AND ($13::uuid[] IS NULL OR e.integration_id = ANY($13))
                AND ($6::text IS NULL OR (
                    SELECT CASE WHEN COALESCE(bool_and(o.status = 'succeeded'), true) THEN 'processed'
                        ELSE COALESCE(max(o.status) FILTER (WHERE o.finished_at IS NULL)::text, 'failed') END
                    FROM deliveries o WHERE o.event_id = e.id
                ) = $6)
            OFFSET 0
        ) AS part
        ORDER BY id DESC LIMIT $9 + $10
    )
    UNION ALL
    (
        SELECT id FROM (
            SELECT e.id FROM events e
            WHERE e.id >= $11 AND e.id < $12 AND ($7::uuid IS NULL OR e.id < $7)
                AND ($1::text IS NULL OR e.provider = $1)
                AND ($2::text IS NULL OR e.event_type = $2)
                AND ($3::text IS NULL OR e.subject ILIKE $3)
                AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
                AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
                AND ($13::uuid[] IS NULL OR e.integration_id = ANY($13))
                AND ($6::text IS NULL OR (
                    SELECT CASE WHEN COALESCE(bool_and(o.status = 'succeeded'), true) THEN 'processed'
                        ELSE COALESCE(max(o.status) FILTER (WHERE o.finished_at IS NULL)::text, 'failed') END
                    FROM deliveries o WHERE o.event_id = e.id
                ) = $6)
        ) AS part
        ORDER BY id DESC LIMIT $9 + $10
    )
    UNION ALL
    (
        SELECT id FROM (
            SELECT e.id FROM events e
            WHERE e.id < $11 AND ($7::uuid IS NULL OR e.id < $7)
                AND ($1::text IS NULL OR e.provider = $1)
                AND ($2::text IS NULL OR e.event_type = $2)
                AND ($3::text IS NULL OR e.subject ILIKE $3)
                AND ($4::timestamptz IS NULL OR e.occurred_at >= $4)
                AND ($5::timestamptz IS NULL OR e.occurred_at < $5)
                AND ($13::uuid[] IS NULL OR e.integration_id = ANY($13))
                AND ($6::text IS NULL OR (
                    SELECT CASE WHEN COALESCE(bool_and(o.status = 'succeeded'), true) THEN 'processed'
                        ELSE COALESCE(max(o.status) FILTER (WHERE o.finished_at IS NULL)::text, 'failed') END
                    FROM deliveries o WHERE o.event_id = e.id
                ) = $6)
            OFFSET 0
        ) AS part
        ORDER BY id DESC LIMIT $9 + $10
    )
) AS parts
ORDER BY id DESC LIMIT $9 OFFSET $10
